"""A watched process, as the kernel sees it: real processes, real descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.processes.process import _LONGEST_DUMP, WorkerProcess


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def deaf() -> subprocess.Popen[bytes]:
    """A process that ignores SIGTERM."""
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as told:
        told.readline()
    return child


class Slow:
    """Stands for the fork server's view of a process whose exit code does not come."""

    exitcode = None


async def test_a_process_is_followed_to_its_end() -> None:
    child = sleeper()
    process = WorkerProcess(child.pid)
    told: list[EnginePhase] = []
    process.when_ended(lambda: told.append(process.phase))
    assert (process.phase, process.number) == (EnginePhase.RUNNING, child.pid)
    process.end_now()
    assert process.phase is EnginePhase.ENDING
    assert await asyncio.wait_for(process.wait(), 20.0) == Exit(None)
    await asyncio.sleep(0)
    assert (told, process.phase, process.exit) == ([EnginePhase.GONE], EnginePhase.GONE, Exit(None))
    for late in (process.dump, process.end_now):
        late()  # nobody is hit
    process.ask_to_end(1.0)
    child.wait()


async def test_one_that_is_forgotten_while_its_exit_code_is_collected_closes_no_other_descriptor() -> None:
    child = sleeper()
    slow: Any = Slow()
    process = WorkerProcess(child.pid, slow)
    child.kill()
    for _ in range(2000):
        if process._collecting is not None:
            break
        await asyncio.sleep(0.01)
    assert process._collecting is not None
    freed = process._pidfd
    process.forget()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    assert freed in others, "the number is used again at once"
    await asyncio.gather(process._collecting, return_exceptions=True)
    for descriptor in others:
        os.close(descriptor)  # raises when somebody closed it before
    child.wait()


async def test_one_that_is_forgotten_lives_on() -> None:
    child = sleeper()
    process = WorkerProcess(child.pid)
    process.forget()
    process.forget()
    assert (process.phase, process.exit, child.poll()) == (EnginePhase.GONE, None, None)
    process.end_now()
    assert child.poll() is None
    child.kill()
    child.wait()


async def test_one_that_is_asked_to_end_gets_sigterm() -> None:
    child = sleeper()
    process = WorkerProcess(child.pid)
    process.ask_to_end(1.0)
    assert process.phase is EnginePhase.ENDING
    await asyncio.wait_for(process.wait(), 20.0)
    assert child.wait() == -signal.SIGTERM


async def test_one_that_ignores_sigterm_is_ended_all_the_same() -> None:
    child = deaf()
    process = WorkerProcess(child.pid)
    process.ask_to_end(1.0)
    process.end_now()
    await asyncio.wait_for(process.wait(), 20.0)
    assert child.wait() == -signal.SIGKILL


async def test_its_stacks_are_read_from_the_end_and_go_with_it(tmp_path: Path) -> None:
    child, stacks = sleeper(), tmp_path / "cam.1.stacks"
    process = WorkerProcess(child.pid, stacks=stacks)
    with pytest.raises(FileNotFoundError):
        process.dumped()
    stacks.write_bytes(b"x" * _LONGEST_DUMP + "the last thread \u2026".encode() + b"\xff")
    assert len(process.dumped().encode("utf-8", "replace")) < _LONGEST_DUMP + 10
    assert process.dumped().endswith("the last thread \u2026\ufffd")
    process.end_now()
    await asyncio.wait_for(process.wait(), 20.0)
    assert not stacks.exists()
    child.wait()


async def test_the_stacks_of_one_that_is_forgotten_stay(tmp_path: Path) -> None:
    child, stacks = sleeper(), tmp_path / "cam.1.stacks"
    stacks.touch()
    WorkerProcess(child.pid, stacks=stacks).forget()
    assert stacks.exists(), "its next supervisor may need them"
    child.kill()
    child.wait()
