"""The same HTTP interface on a Unix socket, for the command line: who may open the file may do everything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from relay_common.errors import ConfigError
from relay_supervisor.http.server import HttpServer

_BACKLOG: Final = 64


class UnixServer(HttpServer):
    """Serves `app` at `path`, mode 0600; a socket that an earlier process left there is replaced."""

    def __init__(self, app: Any, path: Path, *, on_stop: Callable[[], None] = lambda: None) -> None:
        super().__init__(app, "", 0, on_stop=on_stop)
        self._path = path

    @property
    def url(self) -> str:
        """The socket's path."""
        return str(self._path)

    async def start(self) -> int:
        """Listen; raises ConfigError when the directory cannot hold a socket. Returns 0: there is no port."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)  # the mode from the first moment on
        try:
            self._path.unlink(missing_ok=True)
            sock.bind(str(self._path))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise ConfigError(
                f"{self._path}: cannot listen there ({error.strerror})", hint="Set paths.runtime_dir"
            ) from error
        finally:
            os.umask(previous)
        await self._serve(sock)
        return 0

    async def stop(self) -> None:
        """Stop, and remove the socket."""
        await super().stop()
        self._path.unlink(missing_ok=True)
