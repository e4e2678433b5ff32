"""Whether the state cannot be written for want of space, which calls for another remedy than other faults."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_common.clock import ManualClock
from relay_supervisor.state.database import no_space
from relay_supervisor.state.store import Store

SIZE = 64 << 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = [shutil.which("mount") or "false", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: this needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def opened(directory: Path) -> Store:
    return Store(directory / "state" / "relay.db", ManualClock(), boot="boot1").open()


@pytest.mark.parametrize("left", [0, 4096, 12288, 32768])
def test_a_start_on_a_full_disk_says_so_whatever_sqlite_calls_it(small: Path, left: int) -> None:
    """With nothing left it says that the disk is full, with a little left that there was an error of the disk."""
    (small / "filler").write_bytes(bytes(SIZE - left))
    store = opened(small)
    assert "nothing is saved" in store.problem
    assert store.full
    store.close()


def test_another_fault_is_no_full_disk_whatever_its_words(tmp_path: Path) -> None:
    """A path is part of them, and may be called anything."""
    named = tmp_path / "No space left" / "disk is full"
    named.mkdir(parents=True)
    (named / "state").write_text("a file where the directory should be")
    store = opened(named)
    assert "disk is full" in store.problem
    assert not store.full
    store.close()


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "kein Speicherplatz mehr"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EACCES, "disk is full"), False),
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), False),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), False),
        (sqlite3.DatabaseError("disk is full"), False),
    ],
)
def test_want_of_space_is_known_by_the_code(tmp_path: Path, error: Exception, full: bool) -> None:
    assert no_space(error, tmp_path) == full


def test_what_sqlite_calls_an_error_of_the_disk_is_tried(small: Path) -> None:
    assert not no_space(sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE), small.parent)
    (small / "filler").write_bytes(bytes(SIZE))
    assert no_space(sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE), small)
    assert not no_space(sqlite_error(sqlite3.SQLITE_READONLY), small)
