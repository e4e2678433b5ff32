"""Packets that compiled code has written, encrypted and measured in the slots of a buffer, ready to be sent."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from relay_worker import native

_IPV4: Final = struct.Struct("=H2s4s8x")
_IPV6: Final = struct.Struct("=H2s4s16sI")


class PreparedPackets:
    """Compiled slots, and views of them for paths that are not compiled."""

    def __init__(self, slots: native.Slots, views: tuple[memoryview, ...]) -> None:
        self.slots = slots
        self._views = views

    def __len__(self) -> int:
        """How many packets can be prepared."""
        return len(self._views)

    def views(self, first: int, end: int) -> list[memoryview]:
        """The packets in the slots from `first` to `end`."""
        return [self._views[slot][: self.slots.packet(slot)[0]] for slot in range(first, end)]


def packed_address(family: int, address: Any) -> bytes | None:
    """The kernel's form of a numeric socket address; None for what is neither IPv4 nor IPv6."""
    try:
        if family == socket.AF_INET:
            host, port = address
            return _IPV4.pack(family, port.to_bytes(2, "big"), socket.inet_aton(host))
        if family == socket.AF_INET6:
            host, port, flow, scope = (*address, 0, 0)[:4]
            parts = port.to_bytes(2, "big"), flow.to_bytes(4, "big"), socket.inet_pton(socket.AF_INET6, host)
            return _IPV6.pack(family, *parts, scope)
    except (OSError, ValueError, TypeError, OverflowError):
        pass  # a name, or a scope that stands in the host
    return None
