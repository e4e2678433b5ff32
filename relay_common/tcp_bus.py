"""The bus over TCP, between machines: its endpoints, and how either end notices that the other one is gone.

The kernel notices, by probes (TCP keepalive) and by what is not acknowledged. ZeroMQ's own heartbeats are not used: a
peer that closes its connection while messages of it wait for a busy reader has libzmq 4.3.5 abort the whole process at
the next one ("Assertion failed: !_io_error"). Nor is a process that stands still for a while a lost connection: on one
machine it loses nothing either.
"""

from __future__ import annotations

from typing import Any, Final

import zmq

PROBE: Final = 1
"""Seconds without traffic after which the kernel probes the other end, and between probes."""
GONE: Final = 4.0
"""Seconds without an acknowledgement after which a connection is given up. Otherwise a machine that is gone without a
word would be sent to for a quarter of an hour, and what is queued meanwhile would count as sent."""
CONNECT: Final = 2.0
"""Seconds for a connection to be made before it is tried anew: the kernel's own tries come ever later."""
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
    """Have the kernel notice when the machine at the other end of a connection is gone; only TCP needs that.

    To be called before the socket is bound or connected.
    """
    if not over_tcp(endpoint):
        return
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, PROBE)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, PROBE)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, round(GONE / PROBE))
    socket.setsockopt(zmq.TCP_MAXRT, round(GONE * 1000))
    socket.setsockopt(zmq.CONNECT_TIMEOUT, round(CONNECT * 1000))
    socket.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE * 1000))
    if "[" in endpoint:
        socket.setsockopt(zmq.IPV6, 1)
