"""The kernel's word that nobody listens at the peer's port any more (ICMP port unreachable).

A socket without a fixed peer hears of it only by its error queue (ip(7) and ipv6(7), `IP_RECVERR`). Once that is in
use, the error of one packet fails the next call on the socket, whatever that is, and the queue has to be emptied each
time: epoll reports a socket whose queue holds something at every turn of the loop.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

_RECVERR: Final = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""Level and option (linux/in.h, linux/in6.h); the socket module has no names for them."""
_FROM_ICMP: Final = (2, 3)
"""`ee_origin` of ICMP and ICMPv6 (linux/errqueue.h)."""
_ERROR: Final = struct.Struct("=IB")
"""`ee_errno` and `ee_origin`, with which it begins."""
_MOST_ERRORS: Final = 256
"""Errors read at once; each is shorter than the packet that it is about, and the kernel bounds them by the receive
buffer.
"""


class ErrorQueue:
    """The error queue of `sock`. `on_refused` is called, once for each `take`, when it held a refusal of `address`."""

    def __init__(self, sock: socket.socket, address: tuple[Any, ...], on_refused: Callable[[], None]) -> None:
        self._sock, self._address, self._on_refused = sock, tuple(address[:2]), on_refused
        self.unreachable = 0
        if (option := _RECVERR.get(socket.AddressFamily(sock.family))) is not None:
            with contextlib.suppress(OSError):  # what the kernel does not tell is found out by silence
                sock.setsockopt(*option, 1)

    def take(self) -> bool:
        """Empty the queue; True when it held anything: the call that failed did so for an earlier packet."""
        found = refused = False
        for _ in range(_MOST_ERRORS):
            try:
                _, control, _, about = self._sock.recvmsg(0, 256, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:  # empty, or the socket is closed
                break
            found = True
            if tuple(about[:2]) == self._address and any(_is_refusal(data) for _, _, data in control):
                self.unreachable += 1
                refused = True
        if refused:
            self._on_refused()
        return found


def _is_refusal(error: bytes) -> bool:
    """Whether this `sock_extended_err` is a port unreachable."""
    if len(error) < _ERROR.size:
        return False
    number, origin = _ERROR.unpack_from(error)
    return number == errno.ECONNREFUSED and origin in _FROM_ICMP
