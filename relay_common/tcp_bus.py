"""The bus over TCP, between machines: its endpoints, and how either end notices that the other one is gone."""

from __future__ import annotations

from typing import Any, Final

import zmq

BEAT: Final = 1.0
"""Seconds between the heartbeats of ZeroMQ on a connection."""
SILENCE: Final = 4.0
"""Seconds without any answer to one after which the connection is given up. A machine that is gone says no goodbye: its
kernel's peer goes on sending to it for a quarter of an hour, and what is queued meanwhile counts as sent."""
HANDSHAKE: Final = 10.0
"""Seconds for a connection to prove a key, in which it costs its peer a descriptor."""

_SCHEME: Final = "tcp://"


def over_tcp(endpoint: str) -> bool:
    """Whether a ZeroMQ endpoint is reached over TCP."""
    return endpoint.startswith(_SCHEME)


def tcp_port(endpoint: str) -> int:
    """The TCP port of an endpoint; 0 for one that is reached otherwise."""
    port = endpoint.rpartition(":")[2]
    return int(port) if over_tcp(endpoint) and port.isdecimal() else 0


def watch_over(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Have libzmq notice when the peer of a connection to or from `endpoint` is gone; only TCP needs that.

    To be called before the socket is bound or connected.
    """
    if not over_tcp(endpoint):
        return
    socket.setsockopt(zmq.HEARTBEAT_IVL, round(BEAT * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(SILENCE * 1000))
    socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE * 1000))
    if "[" in endpoint:
        socket.setsockopt(zmq.IPV6, 1)
