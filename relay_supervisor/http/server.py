"""Runs the application on uvicorn inside the supervisor's own event loop.

uvicorn's signal handlers are disabled, the socket is ours (so that a taken port gives a clear error and port 0 works),
connections are bounded (admission.py), and stopping takes bounded time however many event streams are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from relay_common.errors import ConfigError
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.admission import Admission, most_connections
from relay_supervisor.http.connection import BoundedConnection, ClientTimeouts
from relay_supervisor.net import BACKLOG, bind

_STOP_WITHIN: Final = 1.5
_TURNS: Final = 32
"""Turns of the event loop that as many connections as there may be are accepted over.

A new connection's request is read three turns later. Were as many accepted meanwhile as may be open, those would
displace it first, however early its request had arrived.
"""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the supervisor.
        yield


class HttpServer:
    """Serves `app` on `host` and `port` (0: any free one); `on_stop` is called before stopping, to end streams.

    At most `most` connections are open at once; those of `proxies` are not bounded by address. `key` is the key of the
    address in [http], for errors.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        on_stop: Callable[[], None] = lambda: None,
        most: int | None = None,
        proxies: TrustedProxies | None = None,
        key: str = "listen",
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        self._app, self._host, self._port, self._on_stop, self._key = app, host, port, on_stop, key
        most = most_connections() if most is None else most
        self._bounds: Admission[BoundedConnection] = Admission(most)
        self._at_once = max(1, most // _TURNS)
        self._proxies, self._timeouts = proxies or TrustedProxies(), timeouts or ClientTimeouts()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The URL to show to people."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def counters(self) -> dict[str, int]:
        """Connections that were turned away or ended, counted since it began, by cause."""
        return self._bounds.counters()

    async def start(self) -> int:
        """Listen, and return the port once requests are served; raises ConfigError when it cannot."""
        sock = bind(self._host, self._port, self._key)
        self._port = int(sock.getsockname()[1])
        await self._serve(sock)
        return self._port

    async def _serve(self, *socks: socket.socket) -> None:
        config = uvicorn.Config(
            self._app,
            log_config=None,
            # Client errors are only counted: a line for each would let any client fill the disk.
            log_level="error",
            access_log=False,
            lifespan="off",
            loop="none",
            http=functools.partial(  # type: ignore[arg-type]
                BoundedConnection, bounds=self._bounds, proxies=self._proxies, timeouts=self._timeouts
            ),
            ws="none",
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            backlog=self._at_once,  # asyncio accepts that many a turn
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(list(socks)), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise ConfigError(f"[http] {self._key}: the server at {self.url} exited immediately")
            await asyncio.sleep(0.01)
        for sock in socks:
            sock.listen(BACKLOG)

    def _connection(self) -> asyncio.Protocol:
        """What serves a connection that was accepted elsewhere."""
        assert self._server is not None
        config, state = self._server.config, self._server.server_state
        return config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]

    async def _listen_instead(self, sock: socket.socket) -> None:
        """Accept new connections on `sock` instead of the previous sockets; open connections continue."""
        assert self._server is not None
        before = self._server.servers
        await self._server.startup(sockets=[sock])
        sock.listen(BACKLOG)
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
