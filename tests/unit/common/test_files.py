"""Private files: replaced whole, readable by their owner only, and left as they were when something fails."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from relay_common.files import write_private
from relay_common.secrets import Secret
from relay_supervisor.google import grant


def test_a_file_is_private_whatever_the_umask_and_its_directory_too(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    before = os.umask(0)
    try:
        write_private(path, b"one")
        write_private(path, b"two")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_no_part_of_the_program_sets_the_umask() -> None:
    """It is the whole process's: files that other threads make meanwhile would get it, too."""
    root = Path(__file__).parents[3]
    files = [
        file
        for package in ("relay_common", "relay_supervisor", "relay_worker")
        for file in root.glob(f"{package}/**/*.py")
    ]
    assert len(files) > 200
    assert [str(file) for file in files if "umask" in file.read_text()] == []


def test_file_and_directory_are_synced_in_the_order_that_survives_a_power_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "secret", list[str]()
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_replace(source: str, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_private(path, b"x")
    assert done == ["file", "rename", "directory"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_private(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_disk_that_fills_up_while_a_grant_is_written_costs_none_that_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant.remember(tmp_path, Secret("1//first"), 100.0, published=True)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as crowded:
        crowded.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            grant.remember(tmp_path, Secret("1//second"), 200.0, published=True)
    assert grant.recall(tmp_path, Secret("1//first")) is not None
    assert grant.recall(tmp_path, Secret("1//second")) is None
    assert [path.name for path in tmp_path.iterdir()] == [grant.FILE]
