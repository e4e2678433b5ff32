"""Datagrams of a peer on their way in: decrypted, and handed over in the same turn of the loop.

What is no media (STUN, DTLS) is passed on to ICE. Compiled code reads and decrypts a wake of media with one call; the
Python takes what that leaves, and everything where nothing is compiled.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import aioice.ice
import pylibsrtp
from pylibsrtp._binding import ffi, lib

from relay_worker import native

MAX_READS: Final = 64
"""Datagrams read per wake-up: the loop has other things to do."""
MAX_DATAGRAM: Final = 2048
PacketHandler = Callable[[bytes, bool, float], None]
"""Called with a decrypted packet, whether it is RTCP, and the monotonic time of arrival."""
FrameHandler = Callable[[bytes, float, bool], None]
"""Called with RTP packets that came in one wake, framed as `native.Datagrams.read` says, with their time of arrival,
and whether `on_wake` follows.
"""

_UNPROTECT: Final = "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"
"""The type of libsrtp's function that compiled code calls by its address; another is not called."""
_FRAME_HEADER: Final = 4


def framed_packets(frames: bytes) -> Iterator[bytes]:
    """The packets in frames, in order."""
    at = 0
    while at < len(frames):
        start = at + _FRAME_HEADER
        at = start + int.from_bytes(frames[at + 2 : start], "big")
        yield frames[start:at]


def sender_of(sockaddr: bytes) -> tuple[Any, ...]:
    """An address as `socket.recvfrom` gives it (sockaddr_in and sockaddr_in6, ip(7) and ipv6(7))."""
    port = int.from_bytes(sockaddr[2:4], "big")
    if int.from_bytes(sockaddr[:2], sys.byteorder) == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, sockaddr[4:8]), port
    host, scope = socket.inet_ntop(socket.AF_INET6, sockaddr[8:24]), int.from_bytes(sockaddr[24:28], sys.byteorder)
    if scope and host.startswith("fe80:"):
        host += f"%{socket.if_indextoname(scope)}"
    return host, port, int.from_bytes(sockaddr[4:8], "big"), scope


class Incoming:
    """What comes from one peer. With `on_wake` each wake reads all that has arrived (at most 64 packets), and `on_wake`
    is called after the last. With `on_frames` RTP packets may be given to that instead, as many as came together; where
    nothing else has come, it does by itself what `on_wake` would.
    """

    def __init__(
        self, on_packet: PacketHandler, on_wake: Callable[[float], None] | None, on_frames: FrameHandler | None
    ) -> None:
        self._on_packet, self._on_wake, self._on_frames = on_packet, on_wake, on_frames
        self._streams: list[tuple[int, int, int]] = []
        self._datagrams: native.Datagrams | None = None
        self.reading: socket.socket | None = None
        """What the packet that `on_packet` is given came from; None where that is not known."""
        self.heard = 0.0
        """When the last packet came that is surely the peer's (monotonic seconds)."""
        self.rejected = 0
        """Packets that libsrtp refused."""

    def know(self, streams: list[tuple[int, int, int]]) -> None:
        """Frames of these SSRCs and payload types are of these channels from now on."""
        self._streams = streams
        if self._datagrams is not None:
            self._datagrams.know(streams)

    def intercept(
        self, protocol: aioice.ice.StunProtocol, session: pylibsrtp.Session, incoming: socket.socket | None
    ) -> None:
        """Read media directly from the socket, and further packets from `incoming`; STUN and DTLS are passed on to ICE,
        without a queue and a task in between.

        Each socket is read: aioice nominates every pair that it checks (RFC 5245 §8.1.1.2), and a peer with as many
        addresses as we have, such as pion, sends by way of the one that it likes best, not of the one that we took.
        """
        others, on_frames, on_wake = protocol.datagram_received, self._on_frames, self._on_wake
        datagrams = self._prepare(session, incoming) if on_frames is not None and incoming is not None else None

        def take(data: bytes, address: tuple[Any, ...], now: float) -> None:
            if not data or not 128 <= data[0] <= 191:
                others(data, address)
                return
            is_rtcp = len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 §4
            self.reading = incoming
            try:
                plain = session.unprotect_rtcp(data) if is_rtcp else session.unprotect(data)
            except (pylibsrtp.Error, ValueError):
                self.rejected += 1
                return
            self.heard = now
            self._on_packet(plain, is_rtcp, now)

        def datagram_received(data: bytes, address: tuple[Any, ...]) -> None:
            now = time.monotonic()
            if datagrams is None or on_frames is None or (came := datagrams.read(data)) is None:
                take(data, address, now)
            elif isinstance(came, bytes):
                self.heard = now
                on_frames(came, now, False)
                return
            else:
                frames, refused, other, sender = came
                self.rejected += refused
                if frames:
                    self.heard = now
                    on_frames(frames, now, True)
                if sender:
                    take(other, sender_of(sender), now)
            if on_wake is None:
                return
            for _ in range(MAX_READS - 1 if incoming is not None else 0):
                assert incoming is not None
                try:
                    more, origin = incoming.recvfrom(MAX_DATAGRAM)
                except OSError:  # nothing more to read, or the socket is closed
                    break
                take(more, origin, now)
            on_wake(now)

        protocol.datagram_received = datagram_received  # type: ignore[method-assign,assignment]

    def _prepare(self, session: pylibsrtp.Session, incoming: socket.socket) -> native.Datagrams | None:
        """What reads `incoming` with one call a wake, where that is compiled."""
        compiled, function = native.compiled(), ffi.addressof(lib, "srtp_unprotect")
        if compiled is None or ffi.getctype(ffi.typeof(function)) != _UNPROTECT:
            return None
        unprotect, context = (int(ffi.cast("uintptr_t", pointer)) for pointer in (function, session._srtp[0]))
        self._datagrams = compiled.Datagrams(incoming, unprotect, context, session, MAX_READS)
        self._datagrams.know(self._streams)
        return self._datagrams
