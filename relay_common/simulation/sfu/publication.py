"""A published track in the media plane: its reception, its viewers, and feedback to its publisher."""

from __future__ import annotations

from typing import Protocol

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.downstream import header_size
from relay_common.simulation.sfu.options import SfuTimings
from relay_common.simulation.sfu.sdp import Section
from relay_common.simulation.sfu.upstream import HISTORY, Upstream


class Publisher(Protocol):
    """The publisher's side of the transport, for feedback."""

    ssrc: int

    def send_rtcp(self, compound: bytes) -> None: ...


class Subscriber(Protocol):
    """Who gets a publication's packets: a viewer, or one that is about to be switched to it."""

    @property
    def active(self) -> bool: ...

    @property
    def waits(self) -> bool: ...

    def follow(self, source: Upstream) -> None: ...

    def forward(self, packet: memoryview, extended: int, timestamp: int, now: float) -> None: ...


class Publication:
    """Media of one published m-section, or of its simulcast layer `rid`, forwarded to its subscribers."""

    def __init__(self, publisher: Publisher, section: Section, timings: SfuTimings, rid: str = "") -> None:
        self.publisher = publisher
        self.section = section
        self.rid = rid
        primary = section.codecs[0]
        self.upstream = Upstream(
            section.kind, primary.clock_rate, nack_retry=timings.nack_retry, nack_give_up=timings.nack_give_up
        )
        self.subscribers: list[Subscriber] = []
        self._clock_rates = {codec.payload_type: codec.clock_rate for codec in section.codecs if codec.apt is None}
        self._names = {codec.payload_type: codec.name for codec in section.codecs if codec.apt is None}
        self._apt = {codec.payload_type: codec.apt for codec in section.codecs if codec.apt is not None}
        self._h264 = {number for number, name in self._names.items() if name.upper() == "H264"}
        self._nack = any("nack" in codec.feedback for codec in section.codecs)
        self._fir = any("ccm fir" in codec.feedback for codec in section.codecs)
        self._coalesce = timings.keyframe_coalesce
        self._asked_at = float("-inf")
        self._fir_number = 0

    @property
    def payload_types(self) -> list[int]:
        """Every payload type of the section, RTX included."""
        return [*self._names, *self._apt]

    @property
    def viewers(self) -> int:
        """How many viewers its packets reach; those that wait for its keyframe do not count."""
        return sum(not subscriber.waits for subscriber in self.subscribers)

    def receive(self, packet: memoryview, sequence: int, timestamp: int, ssrc: int, now: float) -> None:
        """Process a decrypted media packet and forward it."""
        upstream = self.upstream
        if ssrc != upstream.ssrc:
            self._begin(ssrc, packet[1] & 127)
        restarts = upstream.restarts
        extended = upstream.receive(sequence, timestamp, len(packet), now)
        if extended < 0:
            return
        head = 12 if packet[0] == 0x80 else header_size(packet)
        if head >= len(packet):
            upstream.empty += 1
        elif packet[1] & 127 in self._h264:
            kind = packet[head] & 31
            # Inspect only packets that can begin an IDR slice: most are FU-A fragments of other frames.
            if kind in (5, 24) or (kind == 28 and len(packet) > head + 1 and packet[head + 1] & 0x80):
                upstream.see_h264(packet[head:], timestamp)
        if self.subscribers:
            if upstream.restarts != restarts:
                self._realign()
            upstream.history[extended % HISTORY] = bytes(packet)
            for subscriber in self.subscribers:
                if subscriber.active:
                    subscriber.forward(packet, extended, timestamp, now)

    def receive_rtx(self, packet: memoryview, timestamp: int, now: float) -> None:
        """Unwrap a retransmission (RFC 4588 section 4) and process the original packet."""
        upstream = self.upstream
        upstream.retransmissions += 1
        head = header_size(packet)
        apt = self._apt.get(packet[1] & 127)
        # Without the two bytes of the original sequence number it is a bandwidth probe.
        if upstream.ssrc is None or apt is None or len(packet) < head + 2:
            upstream.empty += 1
            return
        original = bytearray(packet[:head]) + packet[head + 2 :]
        original[1] = packet[1] & 0x80 | apt
        original[2:4] = packet[head : head + 2]
        original[8:12] = upstream.ssrc.to_bytes(4, "big")
        sequence = original[2] << 8 | original[3]
        self.receive(memoryview(original), sequence, timestamp, upstream.ssrc, now)

    def _begin(self, ssrc: int, payload_type: int) -> None:
        self.upstream.restart(ssrc)
        self.upstream.codec = self._names.get(payload_type, "")
        self.upstream.clock_rate = self._clock_rates.get(payload_type, self.upstream.clock_rate)
        self._realign()

    def _realign(self) -> None:
        for subscriber in self.subscribers:
            subscriber.follow(self.upstream)

    def request_keyframe(self, now: float, *, intra: bool = False) -> None:
        """Pass a viewer's PLI (or FIR, `intra`) on to the publisher, coalesced."""
        media = self.upstream.ssrc
        if media is None or now - self._asked_at < self._coalesce:
            return
        self._asked_at = now
        self.upstream.plis_forwarded += 1
        if intra and self._fir:
            self._fir_number += 1
            self.publisher.send_rtcp(sfu_rtcp.full_intra_request(self.publisher.ssrc, media, self._fir_number))
        else:
            self.publisher.send_rtcp(sfu_rtcp.picture_loss(self.publisher.ssrc, media))

    def repair(self, now: float) -> bool:
        """Send a NACK if one is due; returns whether anything is still missing."""
        upstream = self.upstream
        wanted = upstream.nacks(now)
        if wanted and self._nack and upstream.ssrc is not None:
            upstream.nacks_sent += 1
            self.publisher.send_rtcp(sfu_rtcp.nack(self.publisher.ssrc, upstream.ssrc, wanted))
        return bool(upstream.missing)
