"""A worker that is slow to start survives the signal by which the supervisor asks for its stacks."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from relay_worker.process.spec import WorkerSpec


def handled(pid: int) -> tuple[bool, bool]:
    """Whether a process ignores SIGUSR1, and whether it catches it."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    masks = {words[0]: int(words[1], 16) for words in lines if words[0] in ("SigIgn:", "SigCgt:")}
    bit = 1 << (signal.SIGUSR1 - 1)
    return bool(masks["SigIgn:"] & bit), bool(masks["SigCgt:"] & bit)


async def test_a_worker_can_be_asked_for_its_stacks_from_its_first_moment(tmp_path: Path) -> None:
    launcher = ForkServerLauncher(tmp_path)
    await launcher.prepare()
    endpoint = f"ipc://{tmp_path}/bus.sock"
    spec = WorkerSpec(camera="cam", name="Cam", instance="cam.1", control=endpoint, stats=endpoint)
    process = await launcher.start(spec)
    try:
        async with asyncio.timeout(30.0):
            while True:
                os.kill(process.pid, signal.SIGUSR1)
                ignored, caught = handled(process.pid)
                assert ignored or caught, "it would be killed"
                # It is written piece by piece.
                if caught and "most recent call first" in (tmp_path / "cam.1.stacks").read_text():
                    break
                await asyncio.sleep(0.01)
        assert process.phase is EnginePhase.RUNNING
        assert "most recent call first" in process.dumped()
    finally:
        process.end_now()
        await process.wait()
