"""The local launcher: workers are forked from a server that has imported the media stack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from relay_common.config import WorkersConfig
from relay_common.proc import process_of, start_ticks
from relay_common.tasks import in_thread
from relay_supervisor.fleet.launcher import Handle
from relay_supervisor.fleet.processes.process import WorkerProcess
from relay_worker.process import data_path
from relay_worker.process.entry import run_worker
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

PRELOAD = "relay_worker.process.preload"
PRELOAD_COMPILED = "relay_worker.process.preload_compiled"
PRELOAD_REHEARSED = "relay_worker.process.preload_rehearsed"
PRELOAD_IMMORTAL = "relay_worker.process.preload_immortal"
PRELOAD_SETTLED = "relay_worker.process.preload_settled"
_STACKS: Final = ".stacks"
FORK_TIMEOUT: Final = 45.0
"""Seconds the fork server may take for one worker, its own start and imports included, before it is replaced."""


class ForkServerLauncher:
    """Forks workers from a preloaded single-threaded server, never from the asyncio supervisor itself.

    The fork server inherits the environment at `prepare`: secrets must have been removed from it before. A server that
    does not answer within `timeout` seconds is killed, and the next worker comes from a new one. Workers write their
    stacks, when they are to dump them, to files in `directory`. With `rehearsal` the server lives a worker's life once
    before it forks, on the compiled data path where they use it (`compiled`); with `immortal` references to what they
    share are not counted, where the interpreter allows it. Neither is tried again once a server has died or hung before
    it forked its first worker.
    """

    remote = False

    def __init__(
        self,
        directory: Path,
        timeout: float = FORK_TIMEOUT,
        *,
        rehearsal: bool = True,
        immortal: bool = True,
        compiled: bool = False,
    ) -> None:
        self._directory = directory
        self._context = multiprocessing.get_context("forkserver")
        lived = ((PRELOAD_COMPILED, compiled and rehearsal), (PRELOAD_REHEARSED, rehearsal))
        steps = ((PRELOAD, True), *lived, (PRELOAD_IMMORTAL, immortal), (PRELOAD_SETTLED, True))
        self._context.set_forkserver_preload([name for name, wanted in steps if wanted])
        self._timeout = timeout
        self._one_at_a_time = asyncio.Lock()
        self._proven: int | None = None
        """The pid of the last server that forked a worker."""

    async def prepare(self) -> None:
        await asyncio.to_thread(multiprocessing.forkserver.ensure_running)

    async def start(self, spec: WorkerSpec) -> WorkerProcess:
        stacks = self._stacks(spec.instance)
        process = self._context.Process(target=run_worker, args=(spec, stacks), name=f"relay-worker-{spec.camera}")
        async with self._one_at_a_time:
            # Blocks until the server has forked, which includes its imports when it has just started. In a separate
            # thread: a stuck one must not use up the shared pool.
            forked = in_thread(lambda: _start(process), "fork")
            done, _ = await asyncio.wait([forked], timeout=self._timeout)
            if not done:
                log.error("the fork server has not answered for %.0f s: starting another one", self._timeout)
                self._doubt()
                _kill_fork_server()  # which ends the thread that waits for it
                await asyncio.wait([forked], timeout=1.0)
                raise TimeoutError(f"the fork server did not answer within {self._timeout:.0f} s")
            try:
                forked.result()
            except (EOFError, ConnectionError):
                self._doubt()
                raise
            self._proven = _server()
        assert process.pid is not None
        try:
            return WorkerProcess(process.pid, process, stacks)
        except OSError:
            # Without a descriptor it cannot be watched, and no worker may run unwatched.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            raise

    def recall(self, instance: str, ref: str) -> WorkerProcess | None:
        pid, started = process_of(ref)
        if not started or start_ticks(pid) != started:
            return None
        try:
            process = WorkerProcess(pid, stacks=self._stacks(instance))
        except ProcessLookupError:
            return None
        if process.started != started:  # its pid has just been reused
            process.forget()
            return None
        return process

    def living(self, refs: Mapping[str, str]) -> list[str]:
        started = {instance: process_of(ref) for instance, ref in refs.items()}
        found = [instance for instance, (pid, ticks) in started.items() if ticks and start_ticks(pid) == ticks]
        return sorted(found, key=lambda instance: started[instance][1])

    def suspect(self, handle: Handle) -> None:
        """There is one machine only."""

    def heard(self, handle: Handle) -> None:
        """Nothing has been suspected."""

    def sweep(self, instances: Collection[str]) -> None:
        """Delete stack files: those of workers that ended while no supervisor ran are still there."""
        for file in self._directory.glob(f"*{_STACKS}"):
            if file.stem not in instances:
                file.unlink(missing_ok=True)

    async def close(self) -> None:
        """Nothing is open: the fork server ends with this process."""

    def _doubt(self) -> None:
        """Have the next server only import, when this one did not get as far as forking."""
        if _server() != self._proven:
            log.warning("a fork server has forked no worker: the next one only imports what workers share")
            self._context.set_forkserver_preload([PRELOAD])

    def _stacks(self, instance: str) -> Path:
        return self._directory / f"{instance}{_STACKS}"


def configured_launcher(directory: Path, workers: WorkersConfig) -> ForkServerLauncher:
    """The launcher whose server is prepared as these settings say."""
    return ForkServerLauncher(
        directory,
        rehearsal=workers.rehearsal != "off",
        immortal=workers.immortal_objects != "off",
        compiled=data_path.is_compiled(workers.data_path),
    )


def _start(process: multiprocessing.process.BaseProcess) -> None:
    with _main_unnamed():
        process.start()


def _server() -> int | None:
    """The pid of the fork server; None before the first."""
    pid: int | None = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
    return pid


def _kill_fork_server() -> None:
    if (pid := _server()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _main_unnamed() -> Iterator[None]:
    """Hide the file of the running script from multiprocessing, which would run it again in every child.

    A worker needs nothing from the program that started it, which for a script would be the whole supervisor.
    """
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
