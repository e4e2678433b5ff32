"""Runs the application on uvicorn inside the supervisor's own event loop.

uvicorn's signal handlers stay out, the socket is ours (so that a port that is taken gives a clear error and port 0
works), and stopping is bounded however many event streams are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from relay_common.errors import ConfigError
from relay_supervisor.net import bind

_STOP_WITHIN: Final = 1.5


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the supervisor.
        yield


class HttpServer:
    """Serves `app` on `host` and `port` (0: any free one); `on_stop` is called before stopping, to end streams."""

    def __init__(self, app: Any, host: str, port: int, *, on_stop: Callable[[], None] = lambda: None) -> None:
        self._app, self._host, self._port, self._on_stop = app, host, port, on_stop
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it can be reached, for people."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> int:
        """Listen, and return the port once requests are served; raises ConfigError when it cannot."""
        sock = bind(self._host, self._port)
        self._port = int(sock.getsockname()[1])
        await self._serve(sock)
        return self._port

    async def _serve(self, sock: socket.socket) -> None:
        config = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="none",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            limit_concurrency=512,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve([sock]), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise ConfigError(f"[http] listen: the server at {self.url} exited immediately")
            await asyncio.sleep(0.01)

    async def _listen_instead(self, sock: socket.socket) -> None:
        """Take new connections from `sock`, and no more from where they came from so far; what is open goes on."""
        assert self._server is not None
        before = self._server.servers
        await self._server.startup(sockets=[sock])
        for listener in before:
            listener.close()

    async def stop(self) -> None:
        """Stop within two seconds; open streams are ended, requests under way get one second."""
        if self._server is None or self._task is None:
            return
        self._on_stop()
        self._server.should_exit = True
        done, _ = await asyncio.wait([self._task], timeout=_STOP_WITHIN)
        if not done:
            self._server.force_exit = True
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.3)
