"""What becomes of connections to a socket of the bus before they prove a key: failures, and how many there may be.

libzmq accepts whoever connects, and after `tcp_bus.HANDSHAKE` seconds ends connections that prove nothing; how many
there are meanwhile, each with a descriptor, it does not bound. It tells which it accepts and which end, but not which
one has proven a key: that is known by its messages, or by its age.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from relay_common.clock import Clock
from relay_common.tcp_bus import HANDSHAKE, tcp_port
from relay_supervisor.fleet.refusals import BusRefusal

MOST_UNPROVEN: Final = 128
"""Connections over TCP to one socket that have proven nothing; the oldest are ended for newer ones. A worker's is one
for milliseconds.
"""

_FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
"""What is not in it, a refusal by ZAP, the handler counts itself."""
_FOLLOWED: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


class Handshakes:
    """Follows connections to `to`, bound at `endpoint`; over TCP it bounds them. `crowded_out` counts its ends."""

    def __init__(self, to: zmq.asyncio.Socket, endpoint: str, clock: Clock) -> None:
        self._clock, self._port = clock, tcp_port(endpoint)
        self._monitor: zmq.asyncio.Socket = to.get_monitor_socket(_FAILED | (_FOLLOWED if self._port else 0))
        self._unproven: dict[int, tuple[float, Any]] = {}
        """When each was accepted, and its peer, by its descriptor; the oldest first."""
        self.crowded_out = 0

    async def failed(self) -> BusRefusal:
        """How the next connection failed that never got as far as proving a key."""
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())
            kind, value = event["event"], event["value"]
            if kind == zmq.EVENT_ACCEPTED:
                self._accepted(value, self._clock.now())
            elif kind == zmq.EVENT_DISCONNECTED:
                self._unproven.pop(value, None)
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                return BusRefusal.UNPROVEN
            else:
                mismatch = value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
                return BusRefusal.NO_KEY if mismatch else BusRefusal.BAD_HANDSHAKE

    def spoke(self, descriptor: int) -> None:
        """A message came by the connection with this descriptor: it has proven a key."""
        self._unproven.pop(descriptor, None)

    def _accepted(self, descriptor: int, now: float) -> None:
        self._unproven.pop(descriptor, None)
        self._unproven[descriptor] = now, _peer(descriptor)
        for oldest, (since, peer) in list(self._unproven.items()):
            if now - since > HANDSHAKE:
                del self._unproven[oldest]  # libzmq has let it be: it has proven a key
            elif len(self._unproven) <= MOST_UNPROVEN or not self._end(oldest, peer):
                return
            else:
                del self._unproven[oldest]
                self.crowded_out += 1

    def _end(self, descriptor: int, peer: Any) -> bool:
        """End a connection, for libzmq to notice; False where there is no descriptor to do it with, at present.

        It may have ended, and its number may be another file's by now.
        """
        try:
            copy = os.dup(descriptor)
        except OSError:
            return not _is_open(descriptor)
        try:
            with socket.socket(fileno=copy) as connection:
                if peer is not None and (connection.getsockname()[1], connection.getpeername()) == (self._port, peer):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # no socket, or not connected any more
        return True


def _peer(descriptor: int) -> Any:
    """Who is connected by it; None when nobody is any more."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return connection.getpeername()
    except OSError:
        return None
    finally:
        connection.detach()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
