"""A watched process, as the kernel sees it: real processes, real descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import Any

from relay_supervisor.fleet.handle import Exit, WorkerProcess


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


class Slow:
    """Stands for the fork server's view of a process whose exit code does not come."""

    exitcode = None


async def test_a_process_is_followed_to_its_end() -> None:
    child = sleeper()
    process = WorkerProcess(child.pid)
    told: list[bool] = []
    process.when_ended(lambda: told.append(process.alive))
    assert process.alive
    process.send_signal(signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), 20.0) == Exit(None)
    await asyncio.sleep(0)
    assert (told, process.alive, process.exit) == ([False], False, Exit(None))
    process.send_signal(signal.SIGKILL)  # nobody is hit
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
    assert (process.alive, process.exit, child.poll()) == (False, None, None)
    process.send_signal(signal.SIGKILL)
    assert child.poll() is None
    child.kill()
    child.wait()
