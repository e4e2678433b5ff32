"""What the supervisor that commands takes from those that stand by: their clients' requests (`passing.py`)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from relay_common.clock import Clock
from relay_common.errors import ConfigError
from relay_common.tasks import Tasks
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.hosting import Hosting
from relay_supervisor.http.passing import CLIENT, OF_THE_WAY, OPERATOR, THROUGH
from relay_supervisor.http.replies import error_reply
from relay_supervisor.http.server import HttpServer
from relay_supervisor.net import bind, given_up_after
from relay_supervisor.status.model import SeatStatus
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)

MOST_GREETED: Final = 32
"""Connections at once that have not shown yet that they know the relay's key."""
GREETED_WITHIN: Final = 5.0
_GIVEN_UP: Final = given_up_after(30)
"""Behind a supervisor are clients that may read slowly: that many seconds are theirs at any address."""
_AGAIN: Final = 5.0
"""Seconds until an address that could not be listened on is tried again."""
_ANYWHERE: Final = ("0.0.0.0/0", "::/0")


class PeerListen(NamedTuple):
    """Where other supervisors pass requests on to, and how they show who they are."""

    host: str
    port: int
    context: ssl.SSLContext


class AmongReplicas(NamedTuple):
    """A supervisor's place among several of a relay."""

    seat: Callable[[], SeatStatus] = SeatStatus
    """Which of them commands."""
    peers: PeerListen | None = None
    """Where the others pass requests on to; None: nowhere."""
    key: str = ""
    """The relay's secret key on the bus, which all of them have; "" of one that is alone."""
    overrides: bytes = b""
    """What people have switched on and off, as the others know it; b"" when they know nothing of it."""
    hosting: Hosting | None = None
    """Where it is served beside other accounts of this process; None: at its own addresses."""

    def commands(self) -> bool:
        """Whether this one commands at present."""
        return self.seat().commands


ALONE: Final = AmongReplicas()


class PassedOn:
    """Has `guarded` answer as if the client had come here itself, and `local` what came over a Unix socket there.

    Who passes it on has shown the relay's key, and is believed.
    """

    def __init__(self, guarded: ASGIApp, local: ASGIApp) -> None:
        self._guarded, self._local = guarded, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"])
        if THROUGH not in given:
            refused = error_reply(400, "not_passed_on", "Supervisors pass requests on here, and nobody else asks", "")
            await refused(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in OF_THE_WAY]
        client = (given[CLIENT].decode("latin-1"), 0) if given.get(CLIENT) else None
        scope = {**scope, "headers": headers, "client": client, "scheme": "http"}
        await (self._local if OPERATOR in given else self._guarded)(scope, receive, send)


class PeerServer(HttpServer):
    """Serves `app` to other supervisors at `at`, by `run`.

    A connection is the server's when its TLS handshake is done; before that there are few of them, and not for long. An
    address that cannot be listened on is before and tried again: cameras do not depend on it.
    """

    def __init__(self, app: ASGIApp, at: PeerListen, clock: Clock, *, on_stop: Callable[[], None]) -> None:
        # Behind another supervisor are many clients; it bounds them, and so does the application, by their addresses.
        super().__init__(app, at.host, at.port, on_stop=on_stop, proxies=TrustedProxies(_ANYWHERE))
        self._at, self._clock = at, clock
        self._accepting: asyncio.Task[None] | None = None
        self._greetings = Tasks(log, "a connection of another supervisor could not be accepted")
        self.crowded = self.strangers = 0
        """Connections that were closed: because too many were greeted already; because they did not show the key."""

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return super().counters() | {"crowded": self.crowded, "strangers": self.strangers}

    def begin(self, loops: Loops) -> None:
        """Serve, as one of `loops`."""
        self._accepting = loops.start("requests passed on", self.run)

    async def stop(self) -> None:
        """Stop within two seconds."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        await self._greetings.aclose()
        await super().stop()

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._server is None:
            await self._serve()
        sock = await self._bound()
        try:
            while True:
                await self._accept(sock)
        finally:
            sock.close()

    async def _bound(self) -> socket.socket:
        before = ""
        while True:
            try:
                return bind(self._at.host, self._at.port, "peer_listen", "cluster")
            except ConfigError as error:
                if str(error) != before:
                    log.warning("others cannot pass requests on to this supervisor: %s", error)
                before = str(error)
                await self._clock.sleep(_AGAIN)

    async def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        except OSError:  # too many files are open
            await self._clock.sleep(0.1)
            return
        if len(self._greetings) >= MOST_GREETED:
            self.crowded += 1
            connection.close()
            return
        self._greetings.spawn(self._greet(connection))

    async def _greet(self, connection: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._at.context
        connection.setblocking(False)
        try:
            for option in _GIVEN_UP:
                connection.setsockopt(*option)
            await loop.connect_accepted_socket(
                self._connection, connection, ssl=context, ssl_handshake_timeout=GREETED_WITHIN
            )
        except OSError:  # of TLS as well
            self.strangers += 1
            connection.close()
