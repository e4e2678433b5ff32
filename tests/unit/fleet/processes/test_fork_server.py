"""Workers that the fork server's launcher finds again: by pid and start time, and never another process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from multiprocessing import forkserver as fork_server
from pathlib import Path
from typing import Literal

import pytest

from relay_common.config import WorkersConfig
from relay_common.proc import process_ref, ref_of, start_ticks
from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.fleet.processes import process
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher, configured_launcher
from relay_worker import native


@pytest.fixture
def launcher(tmp_path: Path) -> ForkServerLauncher:
    return ForkServerLauncher(tmp_path)


@pytest.fixture
def pid() -> Iterator[int]:
    child = subprocess.Popen(["sleep", "60"])
    yield child.pid
    child.kill()
    child.wait()


async def test_a_worker_is_found_again_by_what_it_is_known_by(
    launcher: ForkServerLauncher, pid: int, tmp_path: Path
) -> None:
    handle = launcher.recall("cam.1", ref_of(pid))
    assert handle is not None
    assert (handle.ref, handle.number, handle.where, handle.phase) == (ref_of(pid), pid, "", EnginePhase.RUNNING)
    (tmp_path / "cam.1.stacks").write_text("its own")
    assert handle.dumped() == "its own"
    handle.forget()


@pytest.mark.parametrize("other", ["another start", "no start", "no such pid", "elsewhere", "nothing"])
async def test_another_process_is_never_taken_for_it(launcher: ForkServerLauncher, pid: int, other: str) -> None:
    refs = {
        "another start": process_ref(pid, start_ticks(pid) + 1),
        "no start": process_ref(pid, 0),
        "no such pid": process_ref(2**22 + 1, start_ticks(pid)),
        "elsewhere": f"pod {pid} {start_ticks(pid)}",
        "nothing": "",
    }
    assert launcher.living({"cam.1": refs[other]}) == []
    assert launcher.recall("cam.1", refs[other]) is None


def watched() -> int:
    """Processes that this one holds; what else it has open, other tests' threads may close meanwhile."""
    return sum("pidfd" in os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())


async def test_a_pid_that_is_used_again_in_the_very_moment_is_let_go(
    launcher: ForkServerLauncher, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, watched_before = ref_of(pid), watched()
    monkeypatch.setattr(process, "start_ticks", lambda pid: 1)
    assert launcher.recall("cam.1", ref) is None
    assert watched() == watched_before


async def test_one_that_cannot_be_watched_is_not_said_to_have_ended(
    launcher: ForkServerLauncher, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    with pytest.raises(OSError, match="Too many"):
        launcher.recall("cam.1", ref_of(pid))


def test_the_living_are_listed_oldest_first(launcher: ForkServerLauncher, pid: int) -> None:
    older = os.getpid()
    refs = {"young": ref_of(pid), "gone": process_ref(pid, 1), "old": ref_of(older)}
    assert launcher.living(refs) == ["old", "young"]


def test_what_others_left_behind_is_swept(launcher: ForkServerLauncher, tmp_path: Path) -> None:
    for name in ("gone.stacks", "cam.1.stacks", "http.sock"):
        (tmp_path / name).touch()
    launcher.sweep({"cam.1"})
    assert {path.name for path in tmp_path.iterdir()} == {"cam.1.stacks", "http.sock"}


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        ({}, ["preload", "preload_rehearsed", "preload_immortal", "preload_settled"]),
        ({"rehearsal": False}, ["preload", "preload_immortal", "preload_settled"]),
        ({"immortal": False}, ["preload", "preload_rehearsed", "preload_settled"]),
        (
            {"compiled": True},
            ["preload", "preload_compiled", "preload_rehearsed", "preload_immortal", "preload_settled"],
        ),
        ({"compiled": True, "rehearsal": False}, ["preload", "preload_immortal", "preload_settled"]),
    ],
)
def test_the_server_is_prepared_in_steps_of_which_two_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, bool], steps: list[str]
) -> None:
    prepared: list[list[str]] = []
    monkeypatch.setattr(fork_server, "set_forkserver_preload", prepared.append)
    ForkServerLauncher(tmp_path, **wanted)
    assert prepared == [[f"relay_worker.process.{step}" for step in steps]]


@pytest.mark.parametrize("setting", ["python", "compiled"])
def test_the_data_path_that_workers_use_is_the_one_that_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Literal["python", "compiled"]
) -> None:
    if setting == "compiled" and native.missing():
        pytest.skip(native.missing())
    prepared: list[list[str]] = []
    monkeypatch.setattr(fork_server, "set_forkserver_preload", prepared.append)
    configured_launcher(tmp_path, WorkersConfig(data_path=setting))
    assert ("relay_worker.process.preload_compiled" in prepared[0]) == (setting == "compiled")
