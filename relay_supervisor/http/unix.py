"""The same HTTP interface on a Unix socket, for the command line: whoever may open the file has full access."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from relay_common.errors import ConfigError
from relay_supervisor.http.server import HttpServer

log = logging.getLogger(__name__)

FILE_CHECK: Final = 2.0
"""Seconds between checks that the socket's file still exists."""
_BACKLOG: Final = 64


class UnixServer(HttpServer):
    """Serves `app` at `path`, mode 0600; a socket that an earlier process left there is replaced.

    A file that is deleted while it serves (by a cleaner of /tmp) is re-created; `rebound` counts how often.
    """

    def __init__(
        self, app: Any, path: Path, *, on_stop: Callable[[], None] = lambda: None, check: float = FILE_CHECK
    ) -> None:
        super().__init__(app, "", 0, on_stop=on_stop)
        self._path, self._check = path, check
        self._keeper: asyncio.Task[None] | None = None
        self.rebound = 0

    @property
    def url(self) -> str:
        """The socket's path."""
        return str(self._path)

    async def start(self) -> int:
        """Listen; raises ConfigError when the directory cannot hold a socket. Returns 0: there is no port."""
        try:
            sock = _bind(self._path)
        except OSError as error:
            raise ConfigError(
                f"{self._path}: cannot listen there ({error.strerror})", hint="Set paths.runtime_dir"
            ) from error
        await self._serve(sock)
        self._keeper = asyncio.get_running_loop().create_task(self._keep_bound(), name="http socket file")
        return 0

    async def stop(self) -> None:
        """Stop, and remove the socket."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await super().stop()
        self._path.unlink(missing_ok=True)

    async def _keep_bound(self) -> None:
        problem = ""
        while True:
            await asyncio.sleep(self._check)
            if self._path.exists():
                continue
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                await self._listen_instead(_bind(self._path))
            except OSError as error:
                if str(error) != problem:
                    problem = str(error)
                    log.error("%s was deleted and cannot be re-created: %s", self._path, error)
            else:
                problem = ""
                self.rebound += 1
                log.warning("%s was deleted: re-created", self._path)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return super().counters() | {"rebound": self.rebound}


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)  # the mode from the first moment on
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(previous)
    return sock
