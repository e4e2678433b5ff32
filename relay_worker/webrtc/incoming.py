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
FrameHandler = Callable[[bytes, float, bool, Exception | None], None]
"""Called with RTP packets that came in one wake, framed as `native.Datagrams.read` says, with their time of arrival,
whether `on_wake` follows, and what was raised already while they were handled.
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
        self.on_packet, self.on_wake, self.on_frames = on_packet, on_wake, on_frames
        self._streams: list[tuple[int, int, int]] = []
        self._datagrams: native.Datagrams | None = None
        self._listeners: tuple[object, object, object] = (None, None, None)
        self.arrivals: native.Arrivals | None = None
        """What reads media by itself, where that is compiled: its `read` is to be called when the socket that
        `intercept` was given can be read. ICE reads it as well: what either of them finds goes the same way.
        """
        self.reading: socket.socket | None = None
        """What the packet that `on_packet` is given came from; None where that is not known."""
        self.heard = 0.0
        """When the last packet came that is surely the peer's (monotonic seconds), but for what `listen` is for."""
        self.rejected = 0
        """Packets that libsrtp refused."""

    def know(self, streams: list[tuple[int, int, int]]) -> None:
        """Frames of these SSRCs and payload types are of these channels from now on."""
        self._streams = streams
        if self._datagrams is not None:
            self._datagrams.know(streams)

    def listen(self, sink: object, session: object, source: object) -> None:
        """Who takes media where it is plain, from now on: see `native.Arrivals`."""
        self._listeners = (sink, session, source)
        if self.arrivals is not None:
            self.arrivals.listen(*self._listeners)

    def intercept(
        self, protocol: aioice.ice.StunProtocol, session: pylibsrtp.Session, incoming: socket.socket | None
    ) -> None:
        """Read media directly from the socket, and further packets from `incoming`; STUN and DTLS are passed on to ICE,
        without a queue and a task in between.

        Each socket is read: aioice nominates every pair that it checks (RFC 5245 §8.1.1.2), and a peer with as many
        addresses as we have, such as pion, sends by way of the one that it likes best, not of the one that we took.
        """
        way = _Way(self, protocol.datagram_received, session, incoming)
        if self.on_frames is not None and incoming is not None:
            way.datagrams = self._prepare(session, incoming)
        if way.datagrams is not None:
            compiled = native.compiled()
            assert compiled is not None
            self.arrivals = compiled.Arrivals(
                way.datagrams, native.ArrivalCalls(time.monotonic, way.came_alone, way.came)
            )
            self.arrivals.listen(*self._listeners)
        protocol.datagram_received = way.datagram_received  # type: ignore[method-assign,assignment]

    def _prepare(self, session: pylibsrtp.Session, incoming: socket.socket) -> native.Datagrams | None:
        """What reads `incoming` with one call a wake, where that is compiled."""
        compiled, function = native.compiled(), ffi.addressof(lib, "srtp_unprotect")
        if compiled is None or ffi.getctype(ffi.typeof(function)) != _UNPROTECT:
            return None
        unprotect, context = (int(ffi.cast("uintptr_t", pointer)) for pointer in (function, session._srtp[0]))
        self._datagrams = compiled.Datagrams(incoming, unprotect, context, session, MAX_READS)
        self._datagrams.know(self._streams)
        return self._datagrams


class _Way:
    """What comes by one of ICE's sockets; `others` takes what is no media."""

    def __init__(
        self,
        owner: Incoming,
        others: Callable[[bytes, tuple[Any, ...]], None],
        session: pylibsrtp.Session,
        incoming: socket.socket | None,
    ) -> None:
        self._owner, self._others, self._session, self._incoming = owner, others, session, incoming
        self.datagrams: native.Datagrams | None = None
        """What reads it with one call a wake, where that is compiled."""

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """ICE's socket was read."""
        now = time.monotonic()
        if self.datagrams is None or (found := self.datagrams.read(data)) is None:
            self._take(data, address, now)
            self._read_on(now)
        elif isinstance(found, bytes):
            self.came_alone(found, now)
        else:
            self.came(found, now)

    def came_alone(self, frames: bytes, now: float, error: Exception | None = None) -> None:
        """Compiled code has read these frames, and nothing else."""
        owner = self._owner
        assert owner.on_frames is not None
        owner.heard = now
        owner.on_frames(frames, now, False, error)

    def came(self, found: tuple[bytes, int, bytes, bytes], now: float) -> None:
        """Compiled code has read what `native.Datagrams.read` tells so."""
        frames, refused, other, sender = found
        owner = self._owner
        owner.rejected += refused
        if frames:
            assert owner.on_frames is not None
            owner.heard = now
            owner.on_frames(frames, now, True, None)
        if sender:
            self._take(other, sender_of(sender), now)
        self._read_on(now)

    def _take(self, data: bytes, address: tuple[Any, ...], now: float) -> None:
        if not data or not 128 <= data[0] <= 191:
            self._others(data, address)
            return
        owner = self._owner
        is_rtcp = len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 §4
        owner.reading = self._incoming
        try:
            plain = self._session.unprotect_rtcp(data) if is_rtcp else self._session.unprotect(data)
        except (pylibsrtp.Error, ValueError):
            owner.rejected += 1
            return
        owner.heard = now
        owner.on_packet(plain, is_rtcp, now)

    def _read_on(self, now: float) -> None:
        """Read what else has arrived, where who takes it waits for the end of the wake."""
        if (on_wake := self._owner.on_wake) is None:
            return
        for _ in range(MAX_READS - 1 if self._incoming is not None else 0):
            assert self._incoming is not None
            try:
                more, origin = self._incoming.recvfrom(MAX_DATAGRAM)
            except OSError:  # nothing more to read, or the socket is closed
                break
            self._take(more, origin, now)
        on_wake(now)
