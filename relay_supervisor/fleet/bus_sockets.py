"""A ROUTER for control and a SUB for stats whose peers are authenticated, and what libzmq tells about each message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq
import zmq.asyncio

from relay_common import wire
from relay_common.clock import Clock
from relay_common.secrets import Secret
from relay_common.tcp_bus import over_tcp, watch_over
from relay_supervisor.fleet.handshakes import Handshakes
from relay_supervisor.fleet.zap import DOMAIN, ENDPOINT, ZapHandler

STATS_QUEUE = 4
"""Reports of one worker that wait to be read: what came while this process was suspended would otherwise be in memory
at once, 60 of each worker after a minute. The rest waits in the kernel, and a worker drops its own when that is full.
"""
CONTROL_QUEUE = 1000
_LARGEST_MESSAGE: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Letter:
    """One message as it arrived."""

    credential: str
    """What its connection was authenticated with; "" when libzmq does not say."""
    peer: str
    """The address of the connection, in libzmq's words."""
    frames: list[bytes]


class Doorkeeper:
    """What libzmq asks whether a connection is accepted, in one context: bound with the object, answering in `run`."""

    def __init__(self, context: zmq.asyncio.Context, handler: ZapHandler) -> None:
        self._handler, self._asked = handler, context.socket(zmq.ROUTER)
        self._asked.bind(ENDPOINT)

    async def run(self) -> None:
        """Answer until cancelled: meanwhile connections wait, and so they do afterwards."""
        while True:
            if (answer := self._handler.answer(await self._asked.recv_multipart())) is not None:
                await self._asked.send_multipart(answer)


class BusSockets:
    """Both, bound at `ipc://` or `tcp://` addresses.

    With a secret key peers need CURVE keys; without one they have none.
    """

    def __init__(self, name: str, control: str, stats: str) -> None:
        self.name = name
        """What the loops that serve them are called."""
        self.control_endpoint, self.stats_endpoint = control, stats
        self._control: zmq.asyncio.Socket
        self._stats: zmq.asyncio.Socket
        self.whence = "over TCP" if over_tcp(control) else ""
        """What the log says of peers that cannot be told apart."""
        self.handshakes: list[Handshakes] = []
        """Of connections to control and to statistics, once open."""

    def open(self, context: zmq.asyncio.Context, secret: Secret | None, clock: Clock) -> None:
        """Bind both; raises zmq.ZMQError when that fails."""
        self._control = self._socket(context, zmq.ROUTER, self.control_endpoint, CONTROL_QUEUE, secret)
        # Without it a message to an unknown peer vanishes; with handover a peer that reconnects keeps its address.
        self._control.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._control.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._stats = self._socket(context, zmq.SUB, self.stats_endpoint, STATS_QUEUE, secret)
        self._stats.setsockopt(zmq.SUBSCRIBE, b"")
        both = zip((self._control, self._stats), self.endpoints, strict=True)
        self.handshakes = [Handshakes(socket, endpoint, clock) for socket, endpoint in both]
        for endpoint in self.endpoints:
            self.bind(endpoint)

    def _socket(
        self, context: zmq.asyncio.Context, kind: int, endpoint: str, queue: int, secret: Secret | None
    ) -> zmq.asyncio.Socket:
        socket = context.socket(kind)
        watch_over(socket, endpoint)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.setsockopt(zmq.SNDHWM, queue)
        socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if secret is not None:
            socket.curve_server = 1
            socket.curve_secretkey = secret.reveal().encode()
        return socket

    @property
    def endpoints(self) -> tuple[str, str]:
        return self.control_endpoint, self.stats_endpoint

    def bind(self, endpoint: str) -> None:
        """Bind one of them, again if its file was deleted: unbinding would disconnect the workers."""
        socket = self._control if endpoint == self.control_endpoint else self._stats
        socket.bind(endpoint)
        if (file := socket_file(endpoint)) is not None:
            file.chmod(0o600)  # until then the directory, 0700, keeps others out

    async def receive_control(self) -> Letter:
        """The next control message: the peer's routing id, then the message."""
        return await _received(self._control, self.handshakes[0])

    async def receive_stats(self) -> Letter:
        """The next stats report."""
        return await _received(self._stats, self.handshakes[1])

    def send(self, address: bytes, body: bytes) -> bool:
        """Queue a control message for the peer at `address`; False when it is not connected or its queue is full."""
        return wire.delivered(self._control.send_multipart([address, body], flags=zmq.DONTWAIT))


def socket_file(endpoint: str) -> Path | None:
    """The file of the Unix socket at an endpoint; None for one that is reached over TCP."""
    return None if over_tcp(endpoint) else Path(endpoint.removeprefix("ipc://"))


async def _received(socket: zmq.asyncio.Socket, handshakes: Handshakes) -> Letter:
    frames = await socket.recv_multipart(copy=False)
    last = frames[-1]
    handshakes.spoke(last.get(zmq.SRCFD))
    return Letter(_property(last, "User-Id"), _property(last, "Peer-Address"), [frame.bytes for frame in frames])


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
