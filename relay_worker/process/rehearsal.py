"""One worker's life in the fork server, before it forks: what it writes to memory is then shared by all workers.

Specialised bytecode, caches of types and tables that are built at first use are otherwise copied, page by page, by each
worker. The real `Worker` plays a recorded camera to a sink, all of it on loopback and in this process, before the fork
server has been given any URL or key. It uses asyncio's own loop: uvloop leaves threads and descriptors behind, and the
process that is forked must have one thread and nothing open that a worker could use.

Whatever is random or secret is made anew by each worker: none of the rehearsal's objects outlives it, and the
generators of Python, OpenSSL and libsodium notice a fork (`tests/integration/test_rehearsal.py`).

On interpreters where it pays, what the first life has run is moved together (`gathered`), and two more are lived at
once, to have that specialised.

A rehearsal that fails, or is late, may leave behind what no fork server may have. The process then starts over, by
`exec`, and does without.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from relay_common import protocol
from relay_common.allocator import fill_holes, give_back
from relay_common.clock import LoopClock
from relay_common.protocol import SinkTarget
from relay_worker.process import gathered, shared_stack
from relay_worker.process.rehearsal_camera import RehearsedCamera
from relay_worker.process.rehearsal_supervisor import RehearsedSink, RehearsedSupervisor
from relay_worker.process.spec import WorkerSpec
from relay_worker.process.worker import Worker
from relay_worker.rtsp.transport import client_context

DEADLINE: Final = 5.0
"""Seconds that a rehearsal may take; it takes 0.5."""
HANGS: Final = 2 * DEADLINE + 3.0
"""Seconds after which both are given up, where not even their deadlines are noticed."""
_MEDIA: Final = 0.3
"""Seconds of media after the publication: every step of the way has been taken often enough to be specialised."""
_AT_ONCE: Final = 2
"""Lives of the last rehearsal: what a life does once is specialised at its second time."""
_BESIDE: Final = (
    *(f"multiprocessing.{name}" for name in ("connection", "forkserver", "process", "reduction", "spawn", "util")),
    *(f"relay_worker.process.{name}" for name in ("confine", "entry", "landlock", "log_forward", "sandbox", "worker")),
    "relay_common.log",
)
"""Modules whose code a worker runs, but a rehearsal does not: before its loop starts, and where it is confined."""
_ENDING: Final = 1.0
FAILED: Final = "NEST_RELAY_REHEARSAL_FAILED"
"""The variable by which the process that starts over knows why it does not rehearse."""


def rehearse_or_start_over() -> None:
    """Rehearse; where that fails or takes too long, start this program over, which then returns at once.

    `shared_stack.rehearsal` says how it went. To be called before anybody depends on this process's threads,
    descriptors or signal handlers.
    """
    if why := os.environ.pop(FAILED, ""):
        shared_stack.rehearsed(f"not rehearsed: {why}")
        return
    try:
        directory = Path(tempfile.mkdtemp(prefix="nest-relay-"))
    except OSError as error:
        shared_stack.rehearsed(f"not rehearsed: {error}")
        return
    start_over = functools.partial(_start_over, directory, _descriptors())
    handler = signal.signal(signal.SIGALRM, lambda *_: start_over(f"it hung for {HANGS:g} s"))
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    why = rehearse_and_gather(directory)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    if why:
        start_over(why)
    signal.signal(signal.SIGALRM, handler)
    shutil.rmtree(directory)
    shared_stack.rehearsed(shared_stack.REHEARSED)


def rehearse_and_gather(directory: Path) -> str:
    """Rehearse; where it pays, move together what has run, and rehearse again. Otherwise as `rehearse`."""
    if not gathered.PAYS:
        return rehearse(directory)
    with gathered.watched() as ran:
        why = rehearse(directory)
    if why:
        return why
    give_back()
    fill_holes()  # for the copies to lie one behind the other
    gathered.gather(ran | gathered.of_modules(_BESIDE))
    return rehearse(directory, _AT_ONCE)


def rehearse(directory: Path, lives: int = 1) -> str:
    """Live so many lives at once, with sockets and keys in `directory`; returns why that failed, in words, or "".

    After a failure the process may have threads that are not its own and open descriptors: it must not fork.
    """
    before = _descriptors()
    try:
        with _aside():
            asyncio.run(_within(DEADLINE, directory, lives))
    except TimeoutError:
        return f"it was not over within {DEADLINE:g} s"
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


def _start_over(directory: Path, had: set[tuple[str, str]], why: str) -> NoReturn:
    """Become the program that was started, anew, with the descriptors that it had."""
    shutil.rmtree(directory, ignore_errors=True)
    for name, _ in _descriptors() - had:
        os.set_inheritable(int(name), False)
    os.execve(sys.executable, sys.orig_argv, os.environ | {FAILED: why.replace("\0", "?")})


async def _within(seconds: float, directory: Path, lives: int) -> None:
    async with asyncio.timeout(seconds):
        await asyncio.gather(*(live(_room(directory)) for _ in range(lives)))


def _room(directory: Path) -> Path:
    """A directory of a life's own, with a short name: a socket's path may have 107 characters."""
    room = directory / str(len(os.listdir(directory)))
    room.mkdir(mode=0o700)
    return room


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
    playing = asyncio.create_task(supervisor.sink.playing.wait())
    try:
        await asyncio.wait([playing, working], return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():  # by a signal
            raise RuntimeError("the worker ended by itself")
        await clock.sleep(_MEDIA)
        supervisor.send(protocol.Stop(reason="the rehearsal is over", within=_ENDING))
        await working
    finally:
        for task in (playing, working, serving):
            task.cancel()
        await asyncio.gather(playing, working, serving, return_exceptions=True)
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
