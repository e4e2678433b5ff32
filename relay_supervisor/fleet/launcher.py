"""Starting worker processes: an interface, and the local fork server behind it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import sys
import threading
from collections.abc import Iterator
from typing import Final, Protocol

from relay_supervisor.fleet.handle import WorkerProcess
from relay_worker.process.entry import run_worker
from relay_worker.process.spec import WorkerSpec

PRELOAD = "relay_worker.process.preload"

_starting: Final = threading.Lock()


class Launcher(Protocol):
    """Starts workers somewhere; a cluster's scheduler could stand behind it as well."""

    async def prepare(self) -> None:
        """Get ready to start workers quickly."""
        ...

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start one worker; raises OSError when the system has no room for it."""
        ...

    def adopt(self, pid: int) -> WorkerProcess:
        """Watch a worker that another supervisor started; raises ProcessLookupError when it is gone."""
        ...


class ForkServerLauncher:
    """Forks workers from a preloaded single-threaded server, never from the asyncio supervisor itself.

    The fork server is started with the environment as it is at `prepare`: secrets must be gone from it by then.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])

    async def prepare(self) -> None:
        await asyncio.to_thread(multiprocessing.forkserver.ensure_running)

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        process = self._context.Process(target=run_worker, args=(spec,), name=f"relay-worker-{spec.camera}")
        # Blocks until the server has forked, which takes its import time when it has only just started.
        await asyncio.to_thread(_start, process)
        assert process.pid is not None
        return WorkerProcess(process.pid, process)

    def adopt(self, pid: int) -> WorkerProcess:
        return WorkerProcess(pid)


def _start(process: multiprocessing.process.BaseProcess) -> None:
    with _starting, _main_unnamed():
        process.start()


@contextlib.contextmanager
def _main_unnamed() -> Iterator[None]:
    """Hide the file of the running script from multiprocessing, which would run it anew in every child.

    A worker needs nothing of the program that started it, and for a script that is the whole supervisor.
    """
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
