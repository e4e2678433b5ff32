"""The media sender: RTP and RTCP out over one SRTP association, RTCP in.

No clock, no timer: `now` (monotonic seconds) is passed in, and sender reports ride on media. RFC 3550, RFC 4585 (NACK,
PLI), RFC 5104 (FIR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from relay_worker import native
from relay_worker.media.stream import PayloadRun
from relay_worker.native.states import SenderState
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.feedback import Estimate, Feedback
from relay_worker.publish.history import SentHistory, SentRun
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.packet_writer import PacketWriter, Protector
from relay_worker.publish.retransmission import Retransmitter
from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import TransportFeedback
from relay_worker.webrtc.gso import PacketPath, UdpPath

REPORT_INTERVAL: Final = 1.0
KEYFRAME_INTERVAL: Final = 1.0
"""Keyframe requests reach the camera at most once in this many seconds."""
MIN_REPORT_INTERVAL: Final = 0.1
"""Receiver reports closer together than this are not used to compute a rate."""
MAX_RTP_PAYLOAD: Final = 1400


class MediaSender(SenderState):
    """Sends the tracks of one publication and answers feedback about them.

    `on_keyframe_request` is called when the far end wants a keyframe (PLI or FIR), at most once a second, and
    `on_small_request` when it wants one of the small layer.
    """

    def __init__(
        self,
        protector: Protector,
        path: PacketPath,
        tracks: Sequence[OutgoingTrack],
        *,
        cname: str,
        on_keyframe_request: Callable[[], None] = lambda: None,
        on_small_request: Callable[[], None] = lambda: None,
    ) -> None:
        self._described = {track.ssrc: rtcp.pack_sdes(track.ssrc, cname) for track in tracks}
        self.tracks = tuple(tracks)
        self._on_small_request = on_small_request
        self.on_keyframe_request = on_keyframe_request
        self.feedback = Feedback()
        self._writer = PacketWriter(protector, path, self.feedback.packet_sent)
        self.repair = Retransmitter(self._writer, self.feedback.estimate)
        self.malformed_rtcp = 0
        self.ignored_rtcp = 0
        self.unagreed_feedback = 0
        """Estimates, transport-wide feedback and NACKs that were not negotiated; they are ignored."""
        self._by_ssrc = {track.ssrc: track for track in tracks}
        self._remb = any(track.remb for track in tracks)
        self._transport_cc = any(track.extensions.transport_cc is not None for track in tracks)
        self.clock: tuple[float, float, float] | None = None
        """Media time, wall time and monotonic time of the same moment; see `set_clock`."""
        self._compiled = native.compiled()
        self._next_report = 0.0
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
        size = -1 if self._compiled is None else self._compiled.measure(payloads, MAX_RTP_PAYLOAD)
        kept: list[tuple[bytes, bool]] = []
        if size >= 0:
            kept += payloads  # type: ignore[arg-type]  # all of them are bytes
        else:
            size = 0
            for payload, marker in payloads:
                if len(payload) > MAX_RTP_PAYLOAD:
                    stats.oversized += 1
                    continue
                # A memoryview may point into a buffer that its owner reuses; bytes() of bytes makes no copy.
                kept.append((bytes(payload), marker))
                size += len(payload)
        writer = self._writer
        number = writer.take_numbers(track, len(kept))
        writer.put(track, track.ssrc, track.payload_type, first, rtp_timestamp, kept, number, now, now, step)
        writer.flush()
        # libsrtp tolerates no jump (RFC 3711 §3.3.1): sequence numbers increase by exactly one.
        track.sequence = (first + len(kept)) & 0xFFFF
        stats.packets += len(kept)
        stats.bytes += size
        if track.history is not None and kept:
            track.history.append(SentRun(now, first, rtp_timestamp, step, kept, size, number))
            if self.repair.tails_twice and kept[-1][1]:
                self.repair.copy(track, (track.sequence - 1) & 0xFFFF, now)
        self.last_sent = track.last_sent = now
        if track.owed_since is None:
            track.owed_since = now
        if self.owed_since is None:
            self.owed_since = now
        if self._keyframe_wanted or now >= self._next_report:
            self._say_what_is_due(now)

    def wake_parts(self, track: OutgoingTrack) -> dict[str, Any] | None:
        """Its fields of `native.OutputParts`, for packets of `track` with the extensions that they have now.

        None where compiled code cannot encrypt them, or write such extensions.
        """
        protector, path = self._writer.ends
        if protector.prepared is None or not isinstance(track.extensions, HeaderExtensions):
            return None
        sent_at, sent_size = self.feedback.sent
        time_id, number_id = track.extensions
        return {
            "sender": self,
            "stream": track,
            "stream_stats": track.stats,
            "writer": self._writer,
            "history": track.history,
            "repair": self.repair,
            "path": path if isinstance(path, UdpPath) else None,
            "protector": protector,
            "feedback": self.feedback,
            "prepared": protector.prepared,
            "slots": protector.prepared.slots,
            "sent_at": sent_at,
            "sent_size": sent_size,
            "time_id": time_id or 0,
            "number_id": number_id or 0,
        }

    def _say_what_is_due(self, now: float) -> None:
        if now >= self._next_report and self.clock is not None:
            self._next_report = now + REPORT_INTERVAL
            for track in self.tracks:
                if track.stats.packets:
                    self._writer.send_rtcp(self._sender_report(track, now))
        if self._keyframe_wanted:
            self._ask_keyframe(now)

    def put_off(self, seconds: float, now: float) -> None:
        """Do not count a pause of this process that ended at `now` as silence: acknowledgements are still unread."""
        self.feedback.put_off()
        if self.owed_since is not None:
            self.owed_since = min(now, self.owed_since + seconds)
        for track in self.tracks:
            if track.owed_since is not None:
                track.owed_since = min(now, track.owed_since + seconds)

    # --- RTCP out

    def _sender_report(self, track: OutgoingTrack, now: float) -> bytes:
        assert self.clock is not None
        media_time, wall, at = self.clock
        ntp = rtcp.ntp_time(wall + now - at)
        self.feedback.sender_report_sent(ntp, now)
        stats = track.stats
        timestamp = track.rtp_time(media_time + now - at)
        report = rtcp.pack_sender_report(track.ssrc, ntp, timestamp, stats.packets, stats.bytes)
        return report + self._described[track.ssrc]

    def say_goodbye(self, now: float) -> None:
        """Send BYE for every track that has sent something (RFC 3550 §6.6)."""
        if self.clock is None:
            return
        for track in self.tracks:
            if track.stats.packets:
                ssrcs = [track.ssrc] if track.rtx_ssrc is None else [track.ssrc, track.rtx_ssrc]
                self._writer.send_rtcp(self._sender_report(track, now) + rtcp.pack_bye(*ssrcs))

    # --- RTCP in

    def receive_rtcp(self, data: bytes, now: float, waited: float = 0.0) -> None:
        """Process a decrypted compound packet that arrived `waited` seconds ago.

        Malformed ones are counted and used as far as they can be parsed.
        """
        try:
            packets = rtcp.parse_compound(data)
        except rtcp.RtcpError as error:
            self.malformed_rtcp += 1
            packets = error.packets
        for packet in packets:
            self._handle(packet, now, waited)

    def _handle(self, packet: rtcp.RtcpPacket, now: float, waited: float) -> None:
        if isinstance(packet, rtcp.ReceiverReport | rtcp.SenderReport):
            for block in packet.reports:
                self._handle_report(block, now, waited)
        elif isinstance(packet, rtcp.Nack):
            track = self._by_ssrc.get(packet.media_ssrc)
            if track is not None and track.history is not None:
                self.repair.answer(track, packet.sequences, now)
            else:
                self.unagreed_feedback += 1
        elif isinstance(packet, rtcp.Pli):
            if (track := self._by_ssrc.get(packet.media_ssrc)) is not None:
                track.stats.plis += 1
                self._keyframe_requested(track, now)
        elif isinstance(packet, rtcp.Fir):
            for ssrc, _ in packet.requests:
                if (track := self._by_ssrc.get(ssrc)) is not None:
                    track.stats.firs += 1
                    self._keyframe_requested(track, now)
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

    def _handle_report(self, block: rtcp.ReportBlock, now: float, waited: float) -> None:
        track = self._by_ssrc.get(block.ssrc)
        if track is None:
            self._note_repairs(block.ssrc)
            return
        self.feedback.report(block, now, waited)
        # A first report of 0 acknowledges nothing; RFC 3550's extended number only grows.
        if block.highest_sequence > track.highest:
            track.highest, track.acknowledged = block.highest_sequence, True
            # Without RTX a repair is the very packet that was lost: another header under its number would use the key
            # stream of its encryption twice (RFC 7714 §8.4).
            if track.history is None or track.rtx_ssrc is not None:
                track.extensions = track.plain_extensions
            track.owed_since = self.owed_since = None
        stats = track.stats
        stats.fraction_lost, stats.lost = block.fraction_lost / 256, block.lost
        stats.jitter = block.jitter / track.clock_rate
        # The estimate is of the original, which has the uplink to itself where that is narrow.
        if track.history is not None and not track.is_small:
            self._note_delivery(track, track.history, block, now)

    def _note_repairs(self, ssrc: int) -> None:
        """A report on a retransmission stream: its layer is known."""
        for track in self.tracks:
            if track.rtx_ssrc == ssrc:
                track.rtx_extensions = track.plain_extensions

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

    def _keyframe_requested(self, track: OutgoingTrack, now: float) -> None:
        if track.is_small:
            self._on_small_request()
        else:
            self._ask_keyframe(now)

    def _ask_keyframe(self, now: float) -> None:
        # A request inside the interval is kept and passed on with the next media: its viewer may have missed the
        # keyframe that the one before it brings.
        self._keyframe_wanted = now - self._keyframe_asked < KEYFRAME_INTERVAL
        if not self._keyframe_wanted:
            self._keyframe_asked = now
            self.on_keyframe_request()

    def counters(self) -> dict[str, int]:
        """Totals since the publication began, by name."""
        oversized = suppressed = over_budget = too_late = probes = evicted = 0
        for track in self.tracks:
            stats = track.stats
            oversized += stats.oversized
            suppressed += stats.nacks_suppressed
            over_budget += stats.nacks_over_budget
            too_late += stats.nacks_too_late
            probes += stats.probes
            evicted += track.history.evicted_early if track.history is not None else 0
        return {
            "malformed_rtcp": self.malformed_rtcp,
            "ignored_rtcp": self.ignored_rtcp,
            "unagreed_feedback": self.unagreed_feedback,
            "oversized": oversized,
            "nacks_suppressed": suppressed,
            "nacks_over_budget": over_budget,
            "nacks_too_late": too_late,
            "probes": probes,
            "history_evicted": evicted,
        }
