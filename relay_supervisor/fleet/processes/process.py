"""One operating-system process, watched through a pidfd so that it need not be our child."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from relay_common.proc import process_ref, seconds_queued, start_ticks
from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.watched_end import WatchedEnd

log = logging.getLogger(__name__)

EXIT_CODE_TIMEOUT: Final = 0.5
"""Seconds to wait for the fork server to report the exit code of a process that is already gone."""
_SERVER_GONE: Final = 255
"""The exit code that multiprocessing reports when the fork server, which alone knows the real one, is gone."""
_LONGEST_DUMP: Final = 8000
"""Bytes of its stacks that are of interest: the end, with the threads that were dumped last."""


class WorkerProcess(WatchedEnd):
    """A running worker (`Handle`): its pid, its end, and signals that cannot hit a recycled pid.

    `stacks` is the file that it writes its threads' stacks to; it is removed when the process has ended. Raises
    ProcessLookupError when there is no such process, OSError when no descriptor is left to watch it with.
    """

    where = reason = ""

    def __init__(self, pid: int, process: BaseProcess | None = None, stacks: Path | None = None) -> None:
        super().__init__()
        self.pid = pid
        self._process, self._stacks = process, stacks
        self._pidfd = os.pidfd_open(pid)
        # Read after opening the descriptor, which pins this process: the pid can no longer be another one's.
        self.started = start_ticks(pid)
        self._asked = False
        self._collecting: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone)

    @property
    def ref(self) -> str:
        return process_ref(self.pid, self.started)

    @property
    def number(self) -> int:
        return self.pid

    @property
    def phase(self) -> EnginePhase:
        if self._over:
            return EnginePhase.GONE
        return EnginePhase.ENDING if self._asked else EnginePhase.RUNNING

    @property
    def starved(self) -> float:
        return seconds_queued(self.pid)

    def ask_to_end(self, within: float) -> None:
        """Send SIGTERM; that it ends `within` seconds is for the caller to see."""
        self._asked = True
        self._signal(signal.SIGTERM)

    def end_now(self) -> None:
        """Send SIGKILL."""
        self._asked = True
        self._signal(signal.SIGKILL)

    def dump(self) -> None:
        """Send SIGUSR1, at which it writes its threads' stacks."""
        self._signal(signal.SIGUSR1)

    def dumped(self) -> str:
        """The end of what it has written; raises OSError when none was, or no descriptor is left to read it with."""
        if self._stacks is None:
            return ""
        with self._stacks.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST_DUMP))
            return file.read().decode("utf-8", "replace")

    def forget(self) -> None:
        """Stop watching; the process itself is left alone."""
        self._release()
        if self._collecting is not None:
            self._collecting.cancel()
        self._unwatched()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the process; nothing happens when it is gone already."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

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
            self._remove_stacks()
            self._ended(Exit(None if code == _SERVER_GONE else code))

    def _release(self) -> None:
        """Close the pidfd, once: its number may be reused a moment later."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _remove_stacks(self) -> None:
        if self._stacks is not None:
            try:
                self._stacks.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", self._stacks, error.strerror)
