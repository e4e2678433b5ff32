"""How long a datagram lay in its socket before it was read: what we are late for is no delay of the path's."""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from typing import Final

_SIOCGSTAMPNS: Final = 0x8907
"""Asks the kernel when the datagram that was read last from a socket had arrived (socket(7)). It notes that from
the first time on that it is asked.
"""
_TIMESPEC: Final = struct.Struct("ll")
_LONGEST: Final = 3.0
"""Seconds from which a loop is known to have been paused otherwise, and the clock rather to have been set."""


def waited(sock: socket.socket | None) -> float:
    """Seconds since the last datagram read from `sock` had arrived; 0 without a socket, or where that is not known."""
    if sock is None:
        return 0.0
    try:
        seconds, nanoseconds = _TIMESPEC.unpack(fcntl.ioctl(sock, _SIOCGSTAMPNS, bytes(_TIMESPEC.size)))
    except (OSError, ValueError):  # nothing was read yet, or the socket is closed
        return 0.0
    late = time.time() - seconds - nanoseconds / 1e9
    return late if 0.0 < late < _LONGEST else 0.0
