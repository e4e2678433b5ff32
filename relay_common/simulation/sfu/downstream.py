"""One published stream on its way to one viewer: header rewriting, retransmission and sender reports."""

from __future__ import annotations

import struct
from typing import Any, Protocol

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.upstream import HISTORY, Upstream
from relay_common.simulation.sfu.viewer_stats import ViewerStats

_TAIL = struct.Struct("!BHII")
"""RTP header from its second byte: marker and payload type, sequence number, timestamp, SSRC."""
_REPEATED = 16
"""Of how many of the last packets probes are made."""
_PADDING = 200
"""Bytes of padding in a probe (at most 255, RFC 3550 5.1)."""


class Outlet(Protocol):
    """Where packets are sent: fill `scratch` from its start, then `send_rtp(size)` protects and sends it."""

    scratch: memoryview

    def send_rtp(self, size: int) -> None: ...

    def send_rtcp(self, compound: bytes) -> None: ...


class Downstream:
    """Forwards packets of an `Upstream` under this viewer's SSRC and payload types.

    Sequence numbers keep the source's gaps and order. When the source changes (`follow`), sequence number and timestamp
    continue from the last ones sent, so that the viewer sees one stream. Between layers of one track, timestamps keep
    their place on the publisher's clock, by the sender reports of both.
    """

    def __init__(
        self,
        outlet: Outlet,
        source: Upstream,
        *,
        ssrc: int,
        rtx_ssrc: int,
        payload_types: dict[int, int],
        rtx_types: dict[int, int],
        first_sequence: int,
        cname: str,
    ) -> None:
        self.outlet, self.source = outlet, source
        self.ssrc, self.rtx_ssrc, self.cname = ssrc, rtx_ssrc, cname
        self.active = False
        self.packets = self.bytes = self.retransmitted = self.unanswered = self.plis = self.firs = 0
        self.reported_lost = 0
        self.received = ViewerStats() if source.kind == "video" else None
        self._rtx_types = rtx_types
        self._rtx_sequence = first_sequence
        self._last_out = first_sequence - 1
        self._last_timestamp: int | None = None
        self._last_at = 0.0
        self._sequence_offset = self._timestamp_offset = 0
        self._floor = 0
        self._aligned = False
        self._left: Upstream | None = None
        """The layer that was left for another of the same track."""
        self._pushed = 0
        """Timestamp units by which pictures are later than on the publisher's clock: time must not run backwards."""
        self.switches = 0
        self.translate(payload_types)

    @property
    def waits(self) -> bool:
        """It is sent what comes."""
        return False

    def translate(self, payload_types: dict[int, int]) -> None:
        """Use these payload types (source → viewer); others are not forwarded."""
        self._second_byte = [-1] * 256
        for theirs, ours in payload_types.items():
            self._second_byte[theirs], self._second_byte[theirs | 0x80] = ours, ours | 0x80

    def follow(self, source: Upstream, *, same_clock: bool = False) -> None:
        """Continue with another source (or a restarted one); `same_clock`: with another layer of the same track."""
        self._left = self.source if same_clock and self._aligned else None
        self.switches += source is not self.source
        self.source = source
        self._aligned = False

    def forward(self, packet: memoryview, extended: int, timestamp: int, now: float) -> None:
        """Send a source packet, given as decrypted RTP; `extended` is its extended sequence number."""
        second = self._second_byte[packet[1]]
        if second < 0:
            return
        if not self._aligned:
            self._align(extended, timestamp, now)
        elif extended < self._floor:
            return
        size = len(packet)
        scratch = self.outlet.scratch
        scratch[:size] = packet
        sequence = extended + self._sequence_offset
        timestamp = (timestamp + self._timestamp_offset) & 0xFFFFFFFF
        if sequence > self._last_out:
            self._last_out, self._last_timestamp, self._last_at = sequence, timestamp, now
        _TAIL.pack_into(scratch, 1, second, sequence & 0xFFFF, timestamp, self.ssrc)
        self.packets += 1
        self.bytes += size
        if self.received is not None:
            head = 12 if packet[0] == 0x80 else header_size(packet)
            self.received.receive(sequence, packet[1] >= 0x80, packet[head:])
        self.outlet.send_rtp(size)

    def _align(self, extended: int, timestamp: int, now: float) -> None:
        self._sequence_offset = self._last_out + 1 - extended
        self._floor = extended
        if self._last_timestamp is not None:
            shift = _between(self._left, self.source)
            if shift is None:
                elapsed = max(1, round((now - self._last_at) * self.source.clock_rate))
                self._timestamp_offset, self._pushed = self._last_timestamp + elapsed - timestamp, 0
            else:
                offset = self._timestamp_offset - self._pushed + shift
                ahead = (timestamp + offset - self._last_timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
                self._pushed = max(0, self.source.clock_rate // 1000 - ahead)
                self._timestamp_offset = offset + self._pushed
        self._left = None
        self._aligned = True

    def retransmit(self, sequences: list[int]) -> None:
        """Answer a viewer's NACK from the source's history, by RTX where it was negotiated (RFC 4588)."""
        for sequence in sequences:
            full = self._last_out - ((self._last_out - sequence) & 0xFFFF)
            packet = self._kept(full)
            if packet is None:
                self.unanswered += 1
                continue
            self._repeat(packet, sequence, self._timestamp_offset)
            self.retransmitted += 1

    def _kept(self, sequence: int) -> bytes | None:
        """The source's packet behind this extended sequence number of the viewer's, if it is still kept.

        Of a layer that was left nothing is repeated: decoding goes on at the keyframe of the other, and repairs would
        take the place of it on a line that is full.
        """
        extended = sequence - self._sequence_offset
        if not self._aligned or extended < self._floor:
            return None
        packet = self.source.history[extended % HISTORY]
        return packet if packet is not None and struct.unpack_from("!H", packet, 2)[0] == extended & 0xFFFF else None

    def _repeat(self, packet: bytes, sequence: int, offset: int) -> None:
        second = self._second_byte[packet[1]]
        if second < 0:
            return
        (timestamp,) = struct.unpack_from("!I", packet, 4)
        timestamp = (timestamp + offset) & 0xFFFFFFFF
        scratch, size = self.outlet.scratch, len(packet)
        rtx_type = self._rtx_types.get(second & 127)
        if rtx_type is None:
            scratch[:size] = packet
            _TAIL.pack_into(scratch, 1, second, sequence, timestamp, self.ssrc)
        else:
            head = header_size(packet)
            scratch[:head] = packet[:head]
            scratch[head : head + 2] = sequence.to_bytes(2, "big")
            scratch[head + 2 : size + 2] = packet[head:]
            size += 2
            _TAIL.pack_into(scratch, 1, second & 0x80 | rtx_type, self._rtx_sequence & 0xFFFF, timestamp, self.rtx_ssrc)
            self._rtx_sequence += 1
        self.outlet.send_rtp(size)

    def repeat_for_probe(self, index: int) -> int:
        """Send one of the last packets again by RTX, which browsers count and drop; its size, 0 if there is none."""
        if not self._aligned or not self._rtx_types:
            return 0
        sequence = self._last_out - index % _REPEATED
        if (packet := self._kept(sequence)) is None:
            return 0
        self._repeat(packet, sequence & 0xFFFF, self._timestamp_offset)
        return len(packet)

    def probe(self) -> None:
        """Send a padding-only packet, as the real SFU may: on RTX, whose sequence numbers are assigned here."""
        if not self._aligned or not self._rtx_types or self._last_timestamp is None:
            return
        kind = next(iter(self._rtx_types.values()))
        scratch = self.outlet.scratch
        scratch[0] = 0xA0
        _TAIL.pack_into(scratch, 1, kind, self._rtx_sequence & 0xFFFF, self._last_timestamp, self.rtx_ssrc)
        scratch[12 : 12 + _PADDING] = bytes(_PADDING - 1) + bytes([_PADDING])
        self._rtx_sequence += 1
        self.outlet.send_rtp(12 + _PADDING)

    def report(self, now: float) -> bytes | None:
        """SR and SDES on the publisher's clock, which preserves its lip-sync; None before that clock is known."""
        known = self.source.sender_report
        if known is None or not self._aligned:
            return None
        ntp, rtp, arrival = known
        elapsed = now - arrival
        rtp += int(elapsed * self.source.clock_rate) + self._timestamp_offset
        ntp += int(elapsed * (1 << 32))
        return sfu_rtcp.sender_report(
            self.ssrc, ntp, rtp, self.packets, self.bytes - 12 * self.packets
        ) + sfu_rtcp.source_description(self.ssrc, self.cname)

    def snapshot(self) -> dict[str, Any]:
        """The subscription as shown by `GET /control/sessions`."""
        return {
            "ssrc": self.ssrc,
            "packets": self.packets,
            "bytes": self.bytes,
            "retransmitted": self.retransmitted,
            "unanswered_nacks": self.unanswered,
            "switches": self.switches,
            "plis": self.plis,
            "firs": self.firs,
            "reported_lost": self.reported_lost,
            "stats": self._stats(),
        }

    def _stats(self) -> dict[str, Any]:
        """What the viewer's `getStats()` would report for the track."""
        common = {
            "packetsReceived": self.packets,
            "bytesReceived": self.bytes,
            "packetsLost": self.reported_lost,
            "pliCount": self.plis,
            "firCount": self.firs,
        }
        return common | (self.received.snapshot() if self.received is not None else {})


def _between(left: Upstream | None, joined: Upstream) -> int | None:
    """What to add to the joined layer's timestamps so that they mean the same time; None while a clock is unknown."""
    if left is None or left.sender_report is None or joined.sender_report is None:
        return None
    if left.clock_rate != joined.clock_rate:
        return None
    (ntp_left, rtp_left, _), (ntp_joined, rtp_joined, _) = left.sender_report, joined.sender_report
    elapsed = round((ntp_joined - ntp_left) * left.clock_rate / (1 << 32))
    return rtp_left + elapsed - rtp_joined


def header_size(packet: bytes | memoryview) -> int:
    """Length of the RTP header with CSRCs and extension (RFC 3550 5.1); may exceed a malformed packet."""
    first = packet[0]
    size = 12 + 4 * (first & 15)
    if first & 0x10 and size + 4 <= len(packet):
        size += 4 + 4 * (packet[size + 2] << 8 | packet[size + 3])
    return size
