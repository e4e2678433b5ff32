"""One operating-system process, watched by a pidfd so that also one we did not start can be watched."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from relay_common.proc import start_ticks

EXIT_CODE_PATIENCE = 0.5
"""Seconds to wait for the fork server to report the exit code of a process that is already gone."""


@dataclass(frozen=True)
class Exit:
    """How a process ended; `code` is None when only its parent could know and that parent is not us."""

    code: int | None

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.code is None:
            return "ended (exit status unknown)"
        if self.code < 0:
            try:
                return f"killed by {signal.Signals(-self.code).name}"
            except ValueError:
                return f"killed by signal {-self.code}"
        return f"exited with status {self.code}"


class WorkerProcess:
    """A running worker: its pid, its end, and signals that cannot hit a recycled pid."""

    def __init__(self, pid: int, process: BaseProcess | None = None) -> None:
        self.pid = pid
        self.started = start_ticks(pid)
        self._process = process
        self._pidfd = os.pidfd_open(pid)
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._collecting: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone)

    @property
    def alive(self) -> bool:
        return not self._exit.done()

    async def wait(self) -> Exit:
        """How the process ended, once it has."""
        return await asyncio.shield(self._exit)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process; nothing happens when it is gone already."""
        if self.alive:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def forget(self) -> None:
        """Stop watching; the process itself is left alone."""
        if self.alive:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._exit.cancel()

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._collecting = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        # The fork server is the parent: it reaps the process and passes the code on a moment later.
        code = None
        if self._process is not None:
            deadline = asyncio.get_running_loop().time() + EXIT_CODE_PATIENCE
            while (code := self._process.exitcode) is None and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.01)
        os.close(self._pidfd)
        if not self._exit.done():
            self._exit.set_result(Exit(code))
