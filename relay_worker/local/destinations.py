"""To which of our addresses a datagram came that a socket on all of them took, and a socket for that address alone.

What a socket on all addresses sends leaves from the one that the route prefers. A viewer that sent to another, on a
machine that has several, takes nothing from there: its firewall or its socket drops it, and ICE would (RFC 8445
§7.2.5.2.1). A socket that is bound to the address sends from it, and gets what comes to it from then on; the media path
need not know of either.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from typing import Any, Final, NamedTuple

from relay_worker.webrtc.incoming import MAX_DATAGRAM

RECEIVE_BUFFER: Final = 256 * 1024

# linux/in.h; the socket module has no name for it.
_IP_PKTINFO: Final = 8
_INFO: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO, struct.Struct("=I4s4s")),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, socket.IPV6_PKTINFO, struct.Struct("=16sI")),
}
"""Of each family: the level, the option, the kind of the message, and its structure (ip(7), ipv6(7))."""


class Destination(NamedTuple):
    """One of our addresses."""

    host: str
    scope: int
    """The interface of a link-local address of IPv6, else 0."""


def udp_socket(family: int) -> socket.socket:
    """A socket that is not yet bound."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


def tell_destinations(sock: socket.socket) -> None:
    """Have the kernel say of each datagram to which of our addresses it came."""
    level, option, _, _ = _INFO[socket.AddressFamily(sock.family)]
    sock.setsockopt(level, option, 1)


def receive_from(sock: socket.socket) -> tuple[bytes, Destination | None, Any]:
    """The next datagram, to which of our addresses it came, and from where. Raises OSError as `recvfrom` does."""
    level, _, kind, structure = _INFO[socket.AddressFamily(sock.family)]
    data, ancillary, _, source = sock.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(structure.size))
    info = next((value for at, what, value in ancillary if (at, what) == (level, kind)), b"")
    if len(info) != structure.size:
        return data, None, source
    if sock.family == socket.AF_INET:
        return data, Destination(socket.inet_ntoa(structure.unpack(info)[1]), 0), source
    packed, interface = structure.unpack(info)
    address = ipaddress.IPv6Address(packed)
    return data, Destination(str(address), interface if address.is_link_local else 0), source


def open_beside(wildcard: socket.socket, at: Destination) -> socket.socket | None:
    """A socket on the same port of this address alone; None where there can be none.

    The kernel permits it where both sockets agree. They do only meanwhile, so that no other program can take the port.
    """
    sock = udp_socket(wildcard.family)
    port = wildcard.getsockname()[1]
    try:
        for one in (wildcard, sock):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((at.host, port) if sock.family == socket.AF_INET else (at.host, port, 0, at.scope))
    except OSError:
        sock.close()
        return None
    finally:
        for one in (wildcard, sock):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return sock
