"""Re-creates a file, such as a listening Unix socket's, after somebody deleted it: no new client could connect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import zmq

from relay_common.disk import DiskWork

log = logging.getLogger(__name__)

FILE_CHECK: Final = 2.0
"""Seconds between checks that the file still exists."""


class SocketFile:
    """The file of a socket that listens at `path`; `bind` creates it again, `rebound` counts how often.

    Existing connections are not affected by the loss of the file, and `bind` must leave them alone. It may raise
    OSError or zmq.ZMQError.
    """

    def __init__(self, path: Path, bind: Callable[[], Awaitable[None]], *, every: float = FILE_CHECK) -> None:
        self.path, self._bind, self._every = path, bind, every
        self._disk = DiskWork(f"file {path.name}")
        self._problem = ""
        self.rebound = 0

    async def keep(self) -> None:
        """Check every few seconds; runs until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            with contextlib.suppress(OSError, RuntimeError):  # a disk that does not answer cannot be asked
                if not await self._disk.do(self.path.exists):
                    await self._make_again()

    async def _make_again(self) -> None:
        try:
            await self._disk.do(lambda: self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
            await self._bind()
        except (OSError, zmq.ZMQError) as error:
            # Not str(error): it may name a temporary file, another one each time.
            problem = (error.strerror if isinstance(error, OSError) else "") or str(error)
            if problem != self._problem:
                self._problem = problem
                log.error("%s was deleted and cannot be re-created: %s", self.path, problem)
        else:
            self._problem = ""
            self.rebound += 1
            log.warning("%s was deleted: re-created", self.path)
