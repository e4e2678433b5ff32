"""One operating-system process, watched through a pidfd so that it need not be our child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from relay_common.proc import seconds_queued, start_ticks

EXIT_CODE_TIMEOUT = 0.5
"""Seconds to wait for the fork server to report the exit code of a process that is already gone."""
_SERVER_GONE = 255
"""The exit code that multiprocessing reports when the fork server, which alone knows the real one, is gone."""


@dataclass(frozen=True)
class Exit:
    """How a process ended; `code` is None when only its parent knows it and we are not its parent."""

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
    """A running worker: its pid, its end, and signals that cannot hit a recycled pid.

    Raises ProcessLookupError when there is no such process, OSError when no descriptor is left to watch it with.
    """

    def __init__(self, pid: int, process: BaseProcess | None = None) -> None:
        self.pid = pid
        self._process = process
        self._pidfd = os.pidfd_open(pid)
        # Read after opening the descriptor, which pins this process: the pid can no longer be another one's.
        self.started = start_ticks(pid)
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._collecting: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone)

    @property
    def alive(self) -> bool:
        """Whether it runs and is watched."""
        return not self._exit.done()

    @property
    def queued(self) -> float:
        """Seconds since its start for which it waited for a processor (`relay_common.proc.seconds_queued`)."""
        return seconds_queued(self.pid)

    @property
    def exit(self) -> Exit | None:
        """How it ended, once it has."""
        return self._exit.result() if self._exit.done() and not self._exit.cancelled() else None

    async def wait(self) -> Exit:
        """How the process ended, once it has."""
        return await asyncio.shield(self._exit)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon after the process has ended."""
        self._exit.add_done_callback(lambda exit_: None if exit_.cancelled() else callback())

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process; nothing happens when it is gone already."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def forget(self) -> None:
        """Stop watching; the process itself is left alone."""
        self._release()
        if self._collecting is not None:
            self._collecting.cancel()
        self._exit.cancel()

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._collecting = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        # The fork server is the parent: it reaps the process and passes the code on a moment later.
        code = None
        try:
            if self._process is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_CODE_TIMEOUT):
                        while (code := self._process.exitcode) is None:
                            await asyncio.sleep(0.01)
        finally:
            self._release()
            if not self._exit.done():
                self._exit.set_result(Exit(None if code == _SERVER_GONE else code))

    def _release(self) -> None:
        """Close the pidfd, once: its number may be reused a moment later."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
