"""The same HTTP interface on a Unix socket, for the command line: whoever may open the file has full access."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from relay_common.errors import ConfigError
from relay_supervisor.http.server import HttpServer
from relay_supervisor.socket_file import FILE_CHECK, SocketFile
from relay_supervisor.supervise import Loops

_BACKLOG: Final = 64


class UnixServer(HttpServer):
    """Serves `app` at `path`, mode 0600; a socket that an earlier process left there is replaced.

    A file that is deleted while it serves is re-created.
    """

    def __init__(
        self,
        app: Any,
        path: Path,
        loops: Loops,
        *,
        on_stop: Callable[[], None] = lambda: None,
        check: float = FILE_CHECK,
    ) -> None:
        super().__init__(app, "", 0, on_stop=on_stop)
        self._path, self._loops = path, loops
        self._file = SocketFile(path, self._bind_again, every=check)
        self._keeper: asyncio.Task[None] | None = None

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
        self._keeper = self._loops.start("http socket file", self._file.keep)
        return 0

    async def stop(self) -> None:
        """Stop, and remove the socket."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await super().stop()
        self._path.unlink(missing_ok=True)

    async def _bind_again(self) -> None:
        await self._listen_instead(_bind(self._path))

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return super().counters() | {"rebound": self._file.rebound}


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        path.chmod(0o600)  # nobody can connect before it listens
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
