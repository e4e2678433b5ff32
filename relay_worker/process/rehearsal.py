"""One worker's life in the fork server, before it forks: what it writes to memory is then shared by all workers.

Specialised bytecode, caches of types and tables that are built at first use are otherwise copied, page by page, by each
worker. The real `Worker` plays a recorded camera to a sink, all of it on loopback and in this process, before the fork
server has been given any URL or key. It uses asyncio's own loop: uvloop leaves threads and descriptors behind, and the
process that is forked must have one thread and nothing open that a worker could use.

Whatever is random or secret is made anew by each worker: none of the rehearsal's objects outlives it, and the
generators of Python, OpenSSL and libsodium notice a fork (`tests/integration/test_rehearsal.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay_common import protocol
from relay_common.clock import LoopClock
from relay_common.protocol import SinkTarget
from relay_worker.process.rehearsal_camera import RehearsedCamera
from relay_worker.process.rehearsal_supervisor import RehearsedSink, RehearsedSupervisor
from relay_worker.process.spec import WorkerSpec
from relay_worker.process.worker import Worker
from relay_worker.rtsp.transport import client_context

DEADLINE: Final = 5.0
"""Seconds that a rehearsal may take; it takes 0.6."""
_MEDIA: Final = 0.5
"""Seconds of media after the publication: every step of the way has been taken often enough to be specialised."""
_ENDING: Final = 1.0


def rehearse(within: float = DEADLINE) -> str:
    """Rehearse; returns why it failed, in words, or "". After a failure the process may have threads that are not its
    own and open descriptors: it must not fork.
    """
    before = _descriptors()
    try:
        with tempfile.TemporaryDirectory(prefix="nest-relay-") as directory, _aside():
            asyncio.run(_within(Path(directory), within))
    except TimeoutError:
        return f"it was not over within {within:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client_context.cache_clear()  # of a camera that is gone
    client_context()
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        return f"it left {threads - 1} threads"
    if left := _descriptors() - before:
        return f"it left {len(left)} descriptors"
    return ""


async def _within(directory: Path, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await live(directory)


async def live(directory: Path) -> RehearsedSink:
    """Have a worker live, with its sockets in `directory`; what its sink got."""
    clock = LoopClock()
    camera = RehearsedCamera(directory, clock)
    await camera.start()
    supervisor = RehearsedSupervisor(directory, camera.url, clock)
    spec = WorkerSpec(
        camera="rehearsal",
        name="rehearsal",
        instance="rehearsal.1",
        control=supervisor.control,
        stats=supervisor.stats,
        ca_file=str(camera.ca_file),
        sinks=(SinkTarget(loopback=True),),
    )
    serving = asyncio.create_task(supervisor.serve())
    working = asyncio.create_task(Worker(spec, preloaded=True).run())
    try:
        await supervisor.sink.playing.wait()
        await clock.sleep(_MEDIA)
        supervisor.send(protocol.Stop(reason="the rehearsal is over", within=_ENDING))
        await working
    finally:
        for task in (working, serving):
            task.cancel()
        await asyncio.gather(working, serving, return_exceptions=True)
        await supervisor.close()
        await camera.stop()
    return supervisor.sink


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Keep the worker's signal handlers and its log to the rehearsal."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root, nowhere = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(nowhere)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(nowhere)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _descriptors() -> set[tuple[str, str]]:
    """The open descriptors, and what they are open for."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of this very listing
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found
