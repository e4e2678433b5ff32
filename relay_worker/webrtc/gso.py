"""Sends datagrams: runs of equal-sized packets in one system call where the kernel can (UDP GSO, `UDP_SEGMENT`).

Sending never blocks and never raises: what the socket does not accept now is dropped and counted, as a network would.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from relay_worker.native.states import PathState
from relay_worker.webrtc.prepared import PreparedPackets, packed_address

UDP_SEGMENT: Final = 103  # linux/udp.h; the socket module has no name for it
MAX_RUN_BYTES: Final = 65000
"""A run is one IP packet to the kernel until it is segmented, so it is limited to 64 KiB less headers."""
MAX_RUN_PACKETS: Final = 64

TRY_AGAIN_AFTER: Final = 4096
"""Packets sent one by one after a segment did not fit the route, before segmentation is tried again; doubled with each
further refusal, up to `TRY_AGAIN_AT_MOST`: routes change, and so do their MTUs.
"""
TRY_AGAIN_AT_MOST: Final = 64 * TRY_AGAIN_AFTER

# What kernels and drivers answer when they cannot segment at all: old kernel, no checksum offload.
_NO_GSO: Final = frozenset({errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})

_SIZE: Final = struct.Struct("=H")


class PacketPath(Protocol):
    """Destination of protected packets."""

    drops: int
    """Packets that it did not take."""

    def send(self, packets: Sequence[memoryview]) -> None:
        """Send each packet, in order, now or never."""
        ...


class UdpPath(PathState):
    """A non-blocking UDP socket to one address. `gso` tells whether segmentation offload is in use.

    Offload ends permanently where the kernel lacks it, and for a while where a segment does not fit the route's MTU:
    plain packets are fragmented there (`gso_refusals` counts both). `drops` counts packets that the socket did not
    accept. `was_earlier` tells whether the socket's error was of an earlier packet, so that this one is sent once more.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: Any,
        *,
        gso: bool = True,
        was_earlier: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sock, self._address, self._was_earlier = sock, address, was_earlier
        self.gso = gso
        self.drops = self.gso_refusals = 0
        self._pause = TRY_AGAIN_AFTER
        self._plain_left = 0  # packets to send one by one until segmentation is tried again; 0: it is not
        self._control: dict[int, list[tuple[int, int, bytes]]] = {}
        self._packed: bytes | None = None

    def send(self, packets: Sequence[memoryview]) -> None:
        if not self.gso or len(packets) == 1:
            for packet in packets:
                self._send_one(packet)
            if self._plain_left:
                self._plain_left = max(0, self._plain_left - len(packets))
                self.gso = not self._plain_left
            return
        start, count = 0, len(packets)
        while start < count:
            size = len(packets[start])
            limit = min(count, start + MAX_RUN_PACKETS, start + max(1, MAX_RUN_BYTES // size))
            end = start + 1
            while end < limit:
                length = len(packets[end])
                if length > size:
                    break
                end += 1
                if length < size:  # only the last segment may be shorter
                    break
            self._send_run(packets[start:end], size)
            start = end

    def _send_run(self, run: Sequence[memoryview], size: int) -> None:
        if len(run) == 1 or not self.gso:
            for packet in run:
                self._send_one(packet)
            return
        control = self._control.get(size)
        if control is None:
            control = self._control[size] = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(size))]
        try:
            self._sock.sendmsg(run, control, 0, self._address)
        except OSError as error:
            self._refused(run, error.errno)

    def _refused(self, run: Sequence[memoryview], error: int | None) -> None:
        """The kernel did not take a run of several packets."""
        if self._was_earlier():
            for packet in run:
                self._send_one(packet)
        elif error in _NO_GSO or error == errno.EMSGSIZE:
            self.gso = False
            self.gso_refusals += 1
            if error == errno.EMSGSIZE:
                self._plain_left, self._pause = self._pause, min(2 * self._pause, TRY_AGAIN_AT_MOST)
            for packet in run:
                self._send_one(packet)
        else:
            self.drops += len(run)

    def send_prepared(self, packets: PreparedPackets, count: int, first: int = 0) -> None:
        """Send those of `packets` from `first` to `count`, as `send` would, with one call from here."""
        if self._packed is None:
            self._packed = packed_address(self._sock.family, self._address)
        if not self.gso or self._packed is None:
            self.send(packets.views(first, count))
            return
        while first < count and self.gso:
            first, behind, _, error = packets.slots.send(self._sock.fileno(), self._packed, first, count)
            if error:
                first = self._refused_prepared(packets, first, behind, error)
        for packet in packets.views(first, count):  # segmentation was refused just now
            self._send_one(packet)

    def _refused_prepared(self, packets: PreparedPackets, first: int, behind: int, error: int) -> int:
        if behind - first > 1:
            self._refused(packets.views(first, behind), error)
        else:
            self._refused_one(packets.views(first, behind)[0])
        return behind

    def after_refusal(self, packets: PreparedPackets, where: tuple[int, int, int, int]) -> None:
        """Go on where compiled code got an error: `where` is the first packet of that call, the one behind its last,
        how many there are in all, and the errno.
        """
        first, behind, count, error = where
        first = self._refused_prepared(packets, first, behind, error)
        if self.gso:
            self.send_prepared(packets, count, first)
        else:
            for packet in packets.views(first, count):
                self._send_one(packet)

    def _send_one(self, packet: memoryview) -> None:
        try:
            self._sock.sendto(packet, self._address)
        except OSError:
            self._refused_one(packet)

    def _refused_one(self, packet: memoryview) -> None:
        if self._was_earlier():
            self._send_last(packet)
        else:
            self.drops += 1

    def _send_last(self, packet: memoryview) -> None:
        try:
            self._sock.sendto(packet, self._address)
        except OSError:
            self.drops += 1

    def redirect(self, sock: socket.socket, address: Any) -> None:
        """Send by this socket to this address from now on."""
        self._sock, self._address, self._packed = sock, address, None

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"gso_refusals": self.gso_refusals}

    def close(self) -> None:
        """Close the socket (ours, a duplicate of ICE's)."""
        self._sock.close()


class RelayPath:
    """Packets through a TURN relay: one call each, in the relay client's own framing."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self.drops = 0

    def send(self, packets: Sequence[memoryview]) -> None:
        for packet in packets:
            self._send(bytes(packet))
