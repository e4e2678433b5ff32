"""The SFU's one UDP port: reads all pending datagrams at each wake, finds their sessions, and runs the timers."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Final

from pylibsrtp._binding import ffi

from relay_common.simulation.sfu.downstream import header_size
from relay_common.simulation.sfu.ice import Address, local_ufrag
from relay_common.simulation.sfu.options import SfuFaults, SfuTimings, SfuVariant
from relay_common.simulation.sfu.peer import RTP_HEADER, Peer
from relay_common.simulation.sfu.publication import Publication

_BUFFER: Final = 65_536
_READS_PER_WAKE: Final = 256
_SOCKET_BUFFER: Final = 16 << 20
_SOL_UDP: Final = 17
_UDP_GRO: Final = 104
_SO_TIMESTAMPNS: Final = 35
_DELAYED: Final = 100_000
_FEEDBACK_INTERVAL: Final = 0.1
_PROBE_INTERVAL: Final = 0.02

Arrival = tuple[float, int, int, int, int, bool, int]
"""(monotonic seconds, SSRC, sequence number, timestamp, plain size, marker, CRC-32 of the payload)."""


class MediaPort:
    """All sessions' media on one socket, distinguished by ufrag and then by the address that passed a check."""

    def __init__(self, timings: SfuTimings, variant: SfuVariant, faults: SfuFaults) -> None:
        self._timings, self._variant, self._faults = timings, variant, faults
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._pointer = ffi.from_buffer(self._buffer)
        scratch = bytearray(4096)
        self.scratch = memoryview(scratch)
        self.scratch_pointer = ffi.from_buffer(scratch)
        self.length = ffi.new("int *")
        self.lossy: dict[Publication, None] = {}
        self.record: Callable[[float, memoryview], None] | None = None
        self.arrivals: deque[Arrival] = deque()
        self.only_from = ""
        """The only address that datagrams are taken from; empty: any."""
        self.received = self.wakes = self.unknown = self.unsent = 0
        self.on_tick: Callable[[float], None] = lambda now: None
        self.address: Address = ("", 0)
        self._by_ufrag: dict[str, Peer] = {}
        self._by_address: dict[Address, Peer] = {}
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._delayed: deque[tuple[float, Callable[[], None]]] = deque()
        self._arrived_at = self._wall_offset = 0.0
        self.clock = time.monotonic
        self._socket: socket.socket | None = None

    def open(self, host: str, port: int) -> None:
        """Bind and start reading in the running loop; raises OSError when the address is taken."""
        self._loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            for forced, plain in ((33, socket.SO_RCVBUF), (32, socket.SO_SNDBUF)):
                try:
                    # SO_RCVBUFFORCE and SO_SNDBUFFORCE exceed the system's limit; only root may use them.
                    sock.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER)
                except PermissionError:
                    sock.setsockopt(socket.SOL_SOCKET, plain, _SOCKET_BUFFER)
            # A run sent with UDP GSO arrives in one read.
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            sock.setblocking(False)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        self._socket, self.address = sock, sock.getsockname()
        self._loop.add_reader(sock, self._readable)
        self._every(self._timings.report_interval, self._tick)
        if self._variant.transport_cc:
            self._every(_FEEDBACK_INTERVAL, self._send_transport_feedback)
        if self._variant.viewer_estimate:
            self._every(_PROBE_INTERVAL, self._probe_lines)

    def close(self) -> None:
        """Close every peer and the socket."""
        for peer in list(self._by_ufrag.values()):
            self.remove(peer)
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def add(self, peer: Peer) -> None:
        """Accept checks for this peer's ufrag."""
        self._by_ufrag[peer.ice.ufrag] = peer

    def remove(self, peer: Peer) -> None:
        """Close a peer; later datagrams from it are unknown."""
        peer.close()
        self._by_ufrag.pop(peer.ice.ufrag, None)
        self._by_address = {a: p for a, p in self._by_address.items() if p is not peer}

    @property
    def peers(self) -> list[Peer]:
        """Every peer, connected or not."""
        return list(self._by_ufrag.values())

    # -- recording ----------------------------------------------------------------------------------------------

    def start_recording(self, limit: int) -> None:
        """Record the last `limit` arrivals of RTP packets, timestamped by the kernel."""
        assert self._socket is not None
        self.arrivals = deque(maxlen=limit)
        self._arrived_at = 0.0
        # The kernel stamps with the wall clock; the smallest of several differences is the most accurate.
        self._wall_offset = min(time.monotonic() - time.time() for _ in range(10))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.record = self._record

    def stop_recording(self) -> None:
        """Stop recording; the packets stay in `arrivals`."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 0)
        self.record = None

    def _record(self, now: float, packet: memoryview) -> None:
        _, second, sequence, timestamp, ssrc = RTP_HEADER.unpack_from(packet)
        crc = zlib.crc32(packet[header_size(packet) :])
        self.arrivals.append((self._arrived_at or now, ssrc, sequence, timestamp, len(packet), second > 127, crc))

    # -- in -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        assert self._socket is not None
        self.wakes += 1
        now = time.monotonic()
        receive, buffers = self._socket.recvmsg_into, [self._view]
        for _ in range(_READS_PER_WAKE):
            try:
                size, ancillary, _, source = receive(buffers, 64)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for something sent earlier.
                continue
            if not size or (self.only_from and source[0] != self.only_from):
                continue
            segment = self._ancillary(ancillary, size) if ancillary else size
            if self._faults.delay > 0 or self._delayed:
                self._hold_arrivals(size, segment, source)
                continue
            for start in range(0, size, segment):
                self._datagram(start, min(start + segment, size), source, now)
        if self.lossy:
            self._repair()

    def _ancillary(self, ancillary: list[tuple[int, int, bytes]], size: int) -> int:
        segment = size
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment = struct.unpack("=i" if len(data) >= 4 else "=H", data[:4])[0] or size
            elif level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("=qq", data)
                self._arrived_at = seconds + nanoseconds / 1e9 + self._wall_offset
        return segment

    def _datagram(self, start: int, end: int, source: Address, now: float) -> None:
        self.received += 1
        first = self._buffer[start]
        if first > 127:
            peer = self._by_address.get(source)
            if peer is None or first > 191:
                self.unknown += 1
                return
            peer.last_datagram = now
            loss = self._faults.upstream_loss if peer.upstream_loss is None else peer.upstream_loss
            if loss and self._faults.rng.random() < loss and not 192 <= self._buffer[start + 1] <= 223:
                peer.dropped_by_fault += 1
                return
            peer.receive_media(self._view[start:end], self._pointer + start, now)
        elif first < 4:
            self._check(bytes(self._view[start:end]), source, now)
        elif 19 < first < 64 and (peer := self._by_address.get(source)) is not None:
            peer.last_datagram = now
            peer.receive_dtls(bytes(self._view[start:end]))
            self._await_dtls(peer)
        else:
            self.unknown += 1

    def _check(self, datagram: bytes, source: Address, now: float) -> None:
        peer = self._by_ufrag.get(local_ufrag(datagram) or "")
        if peer is None:
            self.unknown += 1
            return
        if peer.first_check is None:
            peer.first_check = now
        if peer.mute_checks or now - peer.first_check < self._faults.ice_delay:
            return
        before = peer.ice.answered
        peer.receive_check(datagram, source)
        if peer.ice.answered > before:
            peer.last_datagram = now
            self._by_address[source] = peer

    def _hold_arrivals(self, size: int, segment: int, source: Address) -> None:
        for start in range(0, size, segment):
            datagram = bytes(self._view[start : min(start + segment, size)])
            self._hold(lambda datagram=datagram: self.receive(datagram, source))  # type: ignore[misc]

    def receive(self, datagram: bytes, source: Address) -> None:
        """Process a delayed or injected datagram."""
        if not datagram:
            return
        self._view[: len(datagram)] = datagram
        self._datagram(0, len(datagram), source, time.monotonic())
        if self.lossy:
            self._repair()

    # -- out ----------------------------------------------------------------------------------------------------

    @property
    def downstream_rate(self) -> float:
        """Bits a second of the line to each viewer, 0 for no limit."""
        return self._faults.downstream_rate

    def send(self, datagram: bytes | memoryview, address: Address, waits: float = 0.0) -> None:
        """Send one datagram, after `waits` seconds; if the socket does not accept it then, it is lost and counted."""
        if waits > 0:
            self._loop.call_later(waits, self._send, bytes(datagram), address)
        elif self._faults.delay > 0 or self._delayed:
            copy = bytes(datagram)
            self._hold(lambda: self._send(copy, address))
        else:
            self._send(datagram, address)

    def _send(self, datagram: bytes | memoryview, address: Address) -> None:
        try:
            self._socket.sendto(datagram, address)  # type: ignore[union-attr]
        except (OSError, AttributeError):
            self.unsent += 1

    def lose_downstream(self) -> bool:
        """Whether the downstream loss fault drops the current packet."""
        loss = self._faults.downstream_loss
        return loss > 0 and self._faults.rng.random() < loss

    def _hold(self, action: Callable[[], None]) -> None:
        if len(self._delayed) >= _DELAYED:
            self.unsent += 1
            return
        self._delayed.append((time.monotonic() + self._faults.delay, action))
        if len(self._delayed) == 1:
            self._after(self._faults.delay, self._release)

    def _release(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self._delayed.popleft()[1]()
        if self._delayed:
            self._after(self._delayed[0][0] - now, self._release)

    # -- timers -------------------------------------------------------------------------------------------------

    def _after(self, delay: float, action: Callable[[], None]) -> None:
        if (timer := self._timers.pop(action, None)) is not None:
            timer.cancel()
        self._timers[action] = self._loop.call_later(max(0.0, delay), action)

    def _every(self, interval: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            if self._socket is not None:
                self._after(interval, again)

        self._after(interval, again)

    def _repair(self) -> None:
        now = time.monotonic()
        for publication in list(self.lossy):
            if not publication.repair(now):
                del self.lossy[publication]
        if self.lossy and self._repair_again not in self._timers:
            self._after(self._timings.nack_retry, self._repair_again)

    def _repair_again(self) -> None:
        self._timers.pop(self._repair_again, None)
        self._repair()

    def _await_dtls(self, peer: Peer) -> None:
        delay = peer.dtls.next_deadline()
        if delay is not None:
            self._loop.call_later(delay + 0.001, self._retransmit_dtls, peer)

    def _retransmit_dtls(self, peer: Peer) -> None:
        if self._socket is None or peer.closed:
            return
        delay = peer.dtls.next_deadline()
        if delay is not None and delay <= 0.001:
            peer.dtls.poll()
            peer.flush_dtls()
            self._await_dtls(peer)

    def _tick(self) -> None:
        now = time.monotonic()
        remb = self._variant.remb_bitrate if self._variant.remb else None
        for peer in list(self._by_ufrag.values()):
            peer.send_reports(now, remb, probe=self._variant.padding_probes)
        self.on_tick(now)

    def _probe_lines(self) -> None:
        now = time.monotonic()
        for peer in self._by_ufrag.values():
            peer.probe_line(now)

    def _send_transport_feedback(self) -> None:
        for peer in self._by_ufrag.values():
            media = next((p.upstream.ssrc for p in peer.publications if p.upstream.ssrc is not None), None)
            if peer.feedback is not None and media is not None:
                report = peer.feedback.report(peer.ssrc, media)
                if report is not None:
                    peer.send_rtcp(report)
