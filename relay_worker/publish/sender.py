"""The media sender: RTP and RTCP out over one SRTP association, RTCP in.

Hot path: each payload is written with its header into a slot of the protector's buffer, encrypted there, and runs
leave with one call on the packet path. No clock, no timer: `now` (monotonic seconds) is passed in, and sender reports
ride on media. RFC 3550, RFC 4585 (NACK, PLI), RFC 4588 (RTX), RFC 5104 (FIR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from relay_worker.media.stream import PayloadRun
from relay_worker.publish.congestion import QUEUE_LIMIT
from relay_worker.publish.extensions import abs_send_time
from relay_worker.publish.feedback import Estimate, Feedback
from relay_worker.publish.history import SentHistory, SentPacket, SentRun
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import TransportFeedback
from relay_worker.webrtc.gso import PacketPath

REPORT_INTERVAL: Final = 1.0
KEYFRAME_INTERVAL: Final = 1.0
"""Keyframe requests reach the camera at most once in this many seconds."""
RESEND_INTERVAL: Final = (0.01, 0.6)
"""Bounds of the time during which a repeated NACK is ignored; between them it is about one round trip."""
UNKNOWN_RTT: Final = 0.1
RESEND_BURST: Final = 256 * 1024
RESEND_RATE: Final = 256 * 1024
"""Retransmission budget: burst in bytes, and bytes per second while the uplink is not the limit."""
MIN_REPORT_INTERVAL: Final = 0.1
"""Receiver reports closer together than this are not used to compute a rate."""
MAX_RTP_PAYLOAD: Final = 1400


class Protector(Protocol):
    """In-place SRTP: see `transport.SrtpProtector`."""

    buffer: memoryview
    slots: tuple[memoryview, ...]

    def protect(self, slot: int, length: int) -> int: ...
    def protect_rtcp(self, packet: bytes) -> bytes: ...


class MediaSender:
    """Sends the tracks of one publication and answers feedback about them.

    `on_keyframe_request` is called when the far end wants a keyframe (PLI or FIR), at most once a second.
    """

    def __init__(
        self,
        protector: Protector,
        path: PacketPath,
        tracks: Sequence[OutgoingTrack],
        *,
        cname: str,
        on_keyframe_request: Callable[[], None] = lambda: None,
    ) -> None:
        self._protector, self._path, self._cname = protector, path, cname
        self.tracks = tuple(tracks)
        self.on_keyframe_request = on_keyframe_request
        self.feedback = Feedback()
        self.resend_rate: float = RESEND_RATE
        """Bytes per second available for retransmission; the burst is one second's worth."""
        self.repairs_twice = self.tails_twice = False
        """Whether a first request gets two copies and a picture's last packet is sent twice; `uplink` decides."""
        self.malformed_rtcp = 0
        self.ignored_rtcp = 0
        self.unagreed_feedback = 0
        """Estimates, transport-wide feedback and NACKs that were not negotiated; they are ignored."""
        self._by_ssrc = {track.ssrc: track for track in tracks}
        self._remb = any(track.remb for track in tracks)
        self._transport_cc = any(track.extensions.transport_cc is not None for track in tracks)
        self._transport_sequence = 0
        self._slot_size = len(protector.slots[0])
        self._ready: list[memoryview] = []
        self.clock: tuple[float, float, float] | None = None
        """Media time, wall time and monotonic time of the same moment; see `set_clock`."""
        self._next_report = 0.0
        self._resend_budget, self._budget_at = float(RESEND_BURST), 0.0
        self._keyframe_wanted = False
        self._keyframe_asked = -KEYFRAME_INTERVAL
        self.last_sent = 0.0
        self.owed_since: float | None = None
        """When the first packet was sent after the last acknowledgement; None when all are acknowledged."""

    @property
    def estimate(self) -> Estimate:
        """Current estimate of the network path to the SFU."""
        return self.feedback.estimate

    def set_clock(self, media_time: float, wall: float, now: float) -> None:
        """State that at monotonic `now` it is `wall` (Unix seconds) and the media clock shows `media_time`.

        Sender reports of all tracks follow from this one mapping. None are sent before it is known.
        """
        self.clock = (media_time, wall, now)

    # --- RTP out

    def send(self, track: OutgoingTrack, payloads: PayloadRun, rtp_timestamp: int, now: float, step: int = 0) -> None:
        """Send payloads in order, at once; their timestamps are `step` RTP ticks apart (0: they share one)."""
        stats, first = track.stats, track.sequence
        size = 0
        kept: list[tuple[bytes, bool]] = []
        for payload, marker in payloads:
            if len(payload) > MAX_RTP_PAYLOAD:
                stats.oversized += 1
                continue
            # A memoryview may point into a buffer that its owner reuses; bytes() of bytes makes no copy.
            kept.append((bytes(payload), marker))
            size += len(payload)
        number = self._take_numbers(track, len(kept))
        self._put(track, track.ssrc, track.payload_type, first, rtp_timestamp, kept, number, now, now, step)
        if self._ready:
            self._flush()
        # libsrtp tolerates no jump (RFC 3711 §3.3.1): sequence numbers increase by exactly one.
        track.sequence = (first + len(kept)) & 0xFFFF
        stats.packets += len(kept)
        stats.bytes += size
        if track.history is not None and kept:
            track.history.append(SentRun(now, first, rtp_timestamp, step, kept, size, number))
            if self.tails_twice and kept[-1][1]:
                self._refill_budget(now)
                self._put_copies(track, [(track.sequence - 1) & 0xFFFF], now)
        self.last_sent = track.last_sent = now
        if track.owed_since is None:
            track.owed_since = now
        if self.owed_since is None:
            self.owed_since = now
        if self._keyframe_wanted or now >= self._next_report:
            self._say_what_is_due(now)

    def _take_numbers(self, track: OutgoingTrack, count: int) -> int:
        """The first of `count` transport-wide numbers for packets of `track`; 0 where it carries none."""
        if track.extensions.transport_cc is None:
            return 0
        first = (self._transport_sequence + 1) & 0xFFFF
        self._transport_sequence = (self._transport_sequence + count) & 0xFFFF
        return first

    def _put(
        self,
        track: OutgoingTrack,
        ssrc: int,
        payload_type: int,
        sequence: int,
        timestamp: int,
        payloads: Sequence[tuple[bytes, bool]],
        number: int,
        stamp: float,
        now: float,
        step: int = 0,
    ) -> None:
        """Write and encrypt packets into the next slots, and send what is ready whenever all slots are full.

        `sequence`, `timestamp` and the transport-wide `number` are the first packet's; `stamp` is the send time that
        they state.
        """
        ready, slot_size = self._ready, self._slot_size
        buffer, slots, protect = self._protector.buffer, self._protector.slots, self._protector.protect
        extensions = track.extensions
        header_size, write, numbered = extensions.header_size, extensions.write, extensions.transport_cc is not None
        send_time = abs_send_time(stamp)
        for payload, marker in payloads:
            slot = len(ready)
            start = slot * slot_size
            second_byte = payload_type | 0x80 if marker else payload_type
            write(buffer, start, second_byte, sequence, timestamp, ssrc, send_time, number)
            length = header_size + len(payload)
            buffer[start + header_size : start + length] = payload
            length = protect(slot, length)
            if length:
                ready.append(slots[slot][:length])
                if numbered:
                    self.feedback.packet_sent(number, length, now)
                if slot + 1 == len(slots):
                    self._flush()
            sequence = (sequence + 1) & 0xFFFF
            number = (number + 1) & 0xFFFF
            timestamp = (timestamp + step) & 0xFFFFFFFF

    def _flush(self) -> None:
        self._path.send(self._ready)
        self._ready.clear()

    def _say_what_is_due(self, now: float) -> None:
        if now >= self._next_report and self.clock is not None:
            self._next_report = now + REPORT_INTERVAL
            for track in self.tracks:
                if track.stats.packets:
                    self._send_rtcp(self._sender_report(track, now))
        if self._keyframe_wanted:
            self._ask_keyframe(now)

    # --- RTCP out

    def _sender_report(self, track: OutgoingTrack, now: float) -> bytes:
        assert self.clock is not None
        media_time, wall, at = self.clock
        ntp = rtcp.ntp_time(wall + now - at)
        self.feedback.sender_report_sent(ntp, now)
        stats = track.stats
        timestamp = track.rtp_time(media_time + now - at)
        return rtcp.pack_sender_report(track.ssrc, ntp, timestamp, stats.packets, stats.bytes) + rtcp.pack_sdes(
            track.ssrc, self._cname
        )

    def _send_rtcp(self, packet: bytes) -> None:
        self._path.send([memoryview(self._protector.protect_rtcp(packet))])

    def say_goodbye(self, now: float) -> None:
        """Send BYE for every track that has sent something (RFC 3550 §6.6)."""
        if self.clock is None:
            return
        for track in self.tracks:
            if track.stats.packets:
                ssrcs = [track.ssrc] if track.rtx_ssrc is None else [track.ssrc, track.rtx_ssrc]
                self._send_rtcp(self._sender_report(track, now) + rtcp.pack_bye(*ssrcs))

    # --- RTCP in

    def receive_rtcp(self, data: bytes, now: float) -> None:
        """Process a decrypted compound packet; malformed ones are counted and used as far as they can be parsed."""
        try:
            packets = rtcp.parse_compound(data)
        except rtcp.RtcpError as error:
            self.malformed_rtcp += 1
            packets = error.packets
        for packet in packets:
            self._handle(packet, now)

    def _handle(self, packet: rtcp.RtcpPacket, now: float) -> None:
        if isinstance(packet, rtcp.ReceiverReport | rtcp.SenderReport):
            for block in packet.reports:
                self._handle_report(block, now)
        elif isinstance(packet, rtcp.Nack):
            track = self._by_ssrc.get(packet.media_ssrc)
            if track is not None and track.history is not None:
                self._resend(track, packet.sequences, now)
            else:
                self.unagreed_feedback += 1
        elif isinstance(packet, rtcp.Pli):
            if (track := self._by_ssrc.get(packet.media_ssrc)) is not None:
                track.stats.plis += 1
                self._ask_keyframe(now)
        elif isinstance(packet, rtcp.Fir):
            for ssrc, _ in packet.requests:
                if (track := self._by_ssrc.get(ssrc)) is not None:
                    track.stats.firs += 1
                    self._ask_keyframe(now)
        elif isinstance(packet, rtcp.Remb):
            # Browsers send estimates that were not negotiated, too, computed without send times: they are worthless.
            if self._remb:
                self.feedback.remb(packet.bitrate, now)
            else:
                self.unagreed_feedback += 1
        elif isinstance(packet, TransportFeedback):
            if self._transport_cc:
                self.feedback.transport_feedback(packet, now)
            else:
                self.unagreed_feedback += 1
        else:
            self.ignored_rtcp += 1

    def _handle_report(self, block: rtcp.ReportBlock, now: float) -> None:
        track = self._by_ssrc.get(block.ssrc)
        if track is None:
            return
        self.feedback.report(block, now)
        # A first report of 0 acknowledges nothing; RFC 3550's extended number only grows.
        if block.highest_sequence > track.highest:
            track.highest, track.acknowledged = block.highest_sequence, True
            track.owed_since = self.owed_since = None
        stats = track.stats
        stats.fraction_lost, stats.lost = block.fraction_lost / 256, block.lost
        stats.jitter = block.jitter / track.clock_rate
        if track.history is not None:
            self._note_delivery(track, track.history, block, now)

    def _note_delivery(self, track: OutgoingTrack, history: SentHistory, block: rtcp.ReportBlock, now: float) -> None:
        """Bytes that arrived since the previous report."""
        before, highest = track.reported, block.highest_sequence & 0xFFFF
        track.reported = (now, highest, history.repaired, track.stats.probe_bytes)
        if before is None:
            return
        packets = (highest - before[1]) & 0xFFFF
        probes = track.stats.probe_bytes - before[3]
        if now - before[0] < MIN_REPORT_INTERVAL or packets >= 0x8000 or not packets + probes:
            return
        size = packets * (history.size_of(highest, packets) + track.extensions.header_size)
        track.stats.acknowledged_bytes += size * (1 - block.fraction_lost / 256)
        self.estimate.delivered_bitrate = 8 * (size + probes) * (1 - block.fraction_lost / 256) / (now - before[0])
        self.estimate.repair_share = min(1.0, (history.repaired - before[2]) / max(1, packets))

    def _ask_keyframe(self, now: float) -> None:
        # A request inside the interval is kept and passed on with the next media: its viewer may have missed the
        # keyframe that the one before it brings.
        self._keyframe_wanted = now - self._keyframe_asked < KEYFRAME_INTERVAL
        if not self._keyframe_wanted:
            self._keyframe_asked = now
            self.on_keyframe_request()

    def _resend(self, track: OutgoingTrack, sequences: Sequence[int], now: float) -> None:
        assert track.history is not None
        lowest, highest = RESEND_INTERVAL
        interval = min(highest, max(lowest, self._repeat_after()))
        self._refill_budget(now)
        stats = track.stats
        stats.nacks += len(sequences)
        fresh = []
        for sequence in sequences:
            packet, repaired = track.history.get(sequence), track.history.repaired
            if packet is None:
                stats.nacks_too_late += 1
            elif self._resend_budget < len(packet.payload):
                stats.nacks_over_budget += 1
            elif not track.history.resend(sequence, now, interval):
                stats.nacks_suppressed += 1
            else:
                self._resend_budget -= len(packet.payload)
                self._put_again(track, sequence, packet, now)
                if track.history.repaired > repaired:
                    fresh.append(sequence)
        if self.repairs_twice:
            self._put_copies(track, fresh, now)
        if self._ready:
            self._flush()

    def _refill_budget(self, now: float) -> None:
        elapsed, self._budget_at = now - self._budget_at, now
        burst = min(RESEND_BURST, self.resend_rate)
        self._resend_budget = min(burst, self._resend_budget + elapsed * self.resend_rate)

    def _put_copies(self, track: OutgoingTrack, sequences: Sequence[int], now: float) -> None:
        """Send a just-sent packet a second time; half of the budget is left for requested packets."""
        assert track.history is not None
        for sequence in sequences:
            packet = track.history.get(sequence)
            if packet is not None and self._resend_budget >= RESEND_BURST / 2 + len(packet.payload):
                self._resend_budget -= len(packet.payload)
                self._put_again(track, sequence, packet, now)
        if self._ready:
            self._flush()

    def _repeat_after(self) -> float:
        """Seconds after a retransmission from which another NACK for the packet means that the repeat was lost, too.

        Based on the minimum round trip: repeating what is still in flight costs a packet, waiting costs a viewer a
        freeze. But once a queue has built up, repeating feeds it.
        """
        estimate = self.estimate
        if estimate.lowest_rtt is None:
            return UNKNOWN_RTT
        if self.repairs_twice:  # whoever asks again so early gets a third, at another time than the two
            return 0.5 * estimate.lowest_rtt
        return 0.9 * estimate.lowest_rtt + (estimate.queue_delay if estimate.queue_delay > QUEUE_LIMIT else 0.0)

    def _put_again(self, track: OutgoingTrack, sequence: int, packet: SentPacket, now: float) -> None:
        track.stats.retransmitted += 1
        track.stats.retransmitted_bytes += len(packet.payload)
        if track.rtx_ssrc is None or track.rtx_payload_type is None:
            number, payload = packet.transport_sequence, (packet.payload, packet.marker)
            stamp = packet.sent
            self._put(track, track.ssrc, track.payload_type, sequence, packet.timestamp, [payload], number, stamp, now)
        else:
            self._put_rtx(track, track.rtx_ssrc, track.rtx_payload_type, sequence, packet, now)

    def _put_rtx(
        self, track: OutgoingTrack, ssrc: int, payload_type: int, sequence: int, packet: SentPacket, now: float
    ) -> None:
        # RFC 4588 §4: the original sequence number stands before the original payload.
        payload = (sequence.to_bytes(2, "big") + packet.payload, packet.marker)
        number = self._take_numbers(track, 1)
        self._put(track, ssrc, payload_type, track.rtx_sequence, packet.timestamp, [payload], number, now, now)
        track.rtx_sequence = (track.rtx_sequence + 1) & 0xFFFF

    def probe(self, track: OutgoingTrack, size: int, now: float) -> int:
        """Send the newest packets again by RTX, up to `size` bytes; returns the bytes sent.

        The receiver discards what it already has and gains what it lost, which makes this better padding than padded
        media, which not every receiver accepts. Nothing is sent where RTX was not negotiated.
        """
        if track.history is None or track.rtx_ssrc is None or track.rtx_payload_type is None:
            return 0
        sent = 0
        sequence = track.sequence
        while (packet := track.history.get(sequence := (sequence - 1) & 0xFFFF)) is not None:
            if sent + len(packet.payload) > size:
                break
            self._put_rtx(track, track.rtx_ssrc, track.rtx_payload_type, sequence, packet, now)
            sent += len(packet.payload)
            track.stats.probes += 1
        track.stats.probe_bytes += sent
        if self._ready:
            self._flush()
        return sent
