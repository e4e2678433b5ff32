"""One track's way from RTP packets to what can be sent: video and Opus pass through, other audio becomes Opus.

An input belongs to one source session: a reconnect makes new ones, so no state of the old stream is left over.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.worker_stats import TrackStats
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.opus import FRAME_SECONDS, Codec, OpusTranscoder
from relay_worker.media.stream import Frame, Kind, Track
from relay_worker.rtp import rtcp
from relay_worker.rtp.aac import AacDepacketizer, parse_fmtp
from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.latm import LatmDepacketizer, parse_latm_fmtp
from relay_worker.rtp.packet import RtpRun, RtpView, join_runs
from relay_worker.rtp.receiver import MAX_MISORDER_REPAIRED, RtpReceiver
from relay_worker.rtp.reorder import ReorderBuffer
from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtp.timeline import Timeline

log = logging.getLogger(__name__)

REORDER: Final = {Kind.VIDEO: (MAX_MISORDER_REPAIRED, 0.25), Kind.AUDIO: (4, 0.06)}
"""Packets and seconds to wait for a missing packet where packets come out of order: video has it sent again."""


class TrackInput(abc.ABC):
    """What both kinds of input do: receive, tell the timeline, count."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        self.track = track
        payload_type = track.format.payload_type if track.ordered else None
        self.receiver = RtpReceiver(track.clock_rate, payload_type, in_order=track.ordered)
        self._reorder = ReorderBuffer(*REORDER[track.kind])
        self._runs = self.receiver.receive_all if track.ordered else self._reordered
        self._timeline = timeline
        self._ssrc: int | None = None
        self.malformed_rtcp = 0
        self.due = 0.0
        """When `end_waiting` is to be called (monotonic seconds); 0 when nothing waits."""
        timeline.add_track(track.kind, track.clock_rate)

    @abc.abstractmethod
    def receive(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        """Take the packets of one wake, in order."""

    def end_waiting(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send what waits until `due`."""
        self.due = 0.0

    def _reordered(self, packets: Sequence[bytes], now: float) -> list[RtpRun]:
        """The packets put in order, without those that are of no use; an empty list gives up on what is overdue."""
        receiver, reorder = self.receiver, self._reorder
        ready: list[RtpView] = []
        for packet in packets:
            restarts = receiver.restarts
            views = receiver.receive(packet, now)
            if receiver.restarts != restarts:
                reorder.restart()
            for view in views:
                ready += reorder.receive(view, now)
        return join_runs(ready + reorder.poll(now))

    def receive_rtcp(self, packet: bytes, now: float) -> None:
        """Take a compound RTCP packet of the source: its sender reports place the track on the timeline."""
        try:
            parsed = rtcp.parse_compound(packet)
        except rtcp.RtcpError as error:
            self.malformed_rtcp += 1
            parsed = error.packets
        for item in parsed:
            # Before the first RTP packet there is no SSRC to compare with: the timeline keeps such a report.
            if isinstance(item, rtcp.SenderReport) and self.receiver.ssrc in (None, item.ssrc):
                self._timeline.sender_report(self.track.kind, item.ntp, item.rtp)
                self.receiver.sender_report(item.ntp, now)
                log.debug(
                    "sender report of %s: NTP %016x is RTP %d; %d packets, %d lost, jitter %.1f ms so far",
                    *(self.track.format.encoding, item.ntp, item.rtp, self.receiver.packets, self.receiver.lost),
                    self.receiver.jitter * 1e3,
                )

    def receiver_report(self, now: float) -> ReportBlock | None:
        """The report block to send back to the source."""
        return self.receiver.receiver_report(now)

    def _another_source(self, ssrc: int) -> None:
        if self._ssrc is not None:
            self._timeline.discontinuity(self.track.kind)
        log.debug("%s comes from SSRC %08x", self.track.format.encoding, ssrc)
        self._ssrc = ssrc

    def count(self, stats: TrackStats) -> None:
        """Add this session's totals to `stats`."""
        receiver = self.receiver
        stats.packets_in += receiver.packets
        stats.bytes_in += receiver.bytes
        stats.lost_in += receiver.lost
        stats.jitter_in = receiver.jitter
        stats.codec = self.track.format.encoding
        for name, number in self.tolerated():
            if number:
                stats.tolerated[name] = stats.tolerated.get(name, 0) + number

    def tolerated(self) -> list[tuple[str, int]]:
        """What was put right, by the names of docs/quirks.md."""
        receiver = self.receiver
        return [
            ("malformed_packet", receiver.malformed),
            ("unexpected_packet", receiver.unexpected),
            ("duplicate_packet", receiver.duplicates),
            ("restarted_sequence", receiver.restarts),
        ]

    @property
    def malformed(self) -> int:
        """Packets of this track that could not be used for what they hold."""
        return self.receiver.malformed + self.malformed_rtcp


class VideoInput(TrackInput):
    """H.264 as it came: re-fragmented where it must be, never transcoded."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        super().__init__(track, timeline)
        self.passthrough = H264Passthrough(sprop_parameter_sets=track.parameters.get("sprop-parameter-sets", ""))
        self.keyframe_at = 0.0
        self.keyframe_interval = 0.0
        self._keyframes = 0

    def receive(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        passthrough = self.passthrough
        # All that one wake brought of a frame goes out together, so that it can leave in one system call.
        for run in self._runs(packets, now):
            payloads = passthrough.receive_run(run.payloads, run.timestamp, run.lost)
            if payloads or passthrough.earlier:
                if run.ssrc != self._ssrc:
                    self._another_source(run.ssrc)
                if passthrough.earlier:
                    self._send_earlier(now, out)
                if payloads:
                    out(Frame(Kind.VIDEO, payloads, self._timeline.map(Kind.VIDEO, passthrough.timestamp, now)))
        if passthrough.held is None:
            self.due = 0.0
        elif packets:
            self.due = now + passthrough.patience
        if passthrough.keyframes != self._keyframes:
            self._keyframes = passthrough.keyframes
            if self.keyframe_at:
                self.keyframe_interval = now - self.keyframe_at
            self.keyframe_at = now

    def _send_earlier(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send the ends of access units that are over."""
        ended, self.passthrough.earlier = self.passthrough.earlier, []
        for timestamp, payloads in ended:
            if payloads:
                out(Frame(Kind.VIDEO, payloads, self._timeline.map(Kind.VIDEO, timestamp, now)))

    def end_waiting(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send the packet that waits at `due`: none came behind it, so that it is the last of its picture."""
        self.due = 0.0
        self.passthrough.end_waiting()
        self._send_earlier(now, out)

    def count(self, stats: TrackStats) -> None:
        super().count(stats)
        passthrough = self.passthrough
        stats.frames += passthrough.frames
        stats.keyframes += passthrough.keyframes
        stats.dropped += passthrough.dropped
        stats.b_frames = passthrough.b_frames > 0
        stats.keyframe_interval = self.keyframe_interval or stats.keyframe_interval
        if (sps := passthrough.sps) is not None:
            stats.width, stats.height, stats.profile = sps.width, sps.height, sps.profile_level_id

    def tolerated(self) -> list[tuple[str, int]]:
        passthrough = self.passthrough
        return [
            *super().tolerated(),
            ("marker_missing", passthrough.unmarked),
            ("marker_misplaced", passthrough.misplaced),
            ("picture_split", passthrough.split),
            ("annex_b", passthrough.annex_b),
            ("stap_padding", passthrough.padded),
            ("empty_payload", passthrough.empty),
            ("unknown_payload", passthrough.ignored),
            ("broken_stream", passthrough.losses),
            ("malformed_parameter_set", passthrough.parameter_sets.malformed),
            ("changed_parameter_set", passthrough.parameter_sets.changes),
        ]

    @property
    def malformed(self) -> int:
        return super().malformed + self.passthrough.malformed


class AudioInput(TrackInput):
    """AAC or G.711 to Opus. Raises PayloadError when the track's format cannot be served."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        encoding = track.format.encoding
        self._depacketizer: AacDepacketizer | LatmDepacketizer | None = None
        if encoding == "MPEG4-GENERIC":
            aac = parse_fmtp(track.parameters)
            self._depacketizer = AacDepacketizer(aac)
            self._transcoder = OpusTranscoder("aac", aac.config.data)
        elif encoding == "MP4A-LATM":
            latm = parse_latm_fmtp(track.parameters)
            self._depacketizer = LatmDepacketizer(latm)
            self._transcoder = OpusTranscoder("aac", latm.config.data)
        elif encoding in ("PCMU", "PCMA"):
            codec: Codec = "pcmu" if encoding == "PCMU" else "pcma"
            self._transcoder = OpusTranscoder(codec, rate=track.clock_rate, channels=track.format.channels)
        else:
            raise PayloadError(f"audio encoding {encoding} is not supported")
        super().__init__(track, timeline)
        self.frames = 0

    def receive(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        for run in self._runs(packets, now):
            lost = run.lost
            for payload, marker in run.payloads:
                if self._depacketizer is None:
                    units = [(payload, run.timestamp)]
                else:
                    units = self._depacketizer.receive(payload, marker, run.timestamp, lost)
                for unit, timestamp in units:
                    if run.ssrc != self._ssrc:
                        self._another_source(run.ssrc)
                    media_time = self._timeline.map(Kind.AUDIO, timestamp, now)
                    if frames := self._transcoder.transcode(unit, media_time):
                        self.frames += len(frames)
                        out(Frame(Kind.AUDIO, [(frame, False) for frame, _ in frames], frames[0][1], FRAME_SECONDS))
                lost = 0

    def count(self, stats: TrackStats) -> None:
        super().count(stats)
        stats.frames += self.frames


class OpusInput(TrackInput):
    """Opus as it came: one packet is one frame (RFC 7587 §4.2)."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        super().__init__(track, timeline)
        self.frames = 0

    def receive(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        for run in self._runs(packets, now):
            for payload, _ in run.payloads:
                if not payload:
                    continue
                if run.ssrc != self._ssrc:
                    self._another_source(run.ssrc)
                self.frames += 1
                out(Frame(Kind.AUDIO, [(payload, False)], self._timeline.map(Kind.AUDIO, run.timestamp, now)))

    def count(self, stats: TrackStats) -> None:
        super().count(stats)
        stats.frames += self.frames


def make_input(track: Track, timeline: Timeline) -> TrackInput | None:
    """The input for a track; None, and logged, for audio that cannot be served: video goes on without it."""
    if track.kind is Kind.VIDEO:
        return VideoInput(track, timeline)
    if track.format.encoding == "OPUS":
        return OpusInput(track, timeline)
    try:
        return AudioInput(track, timeline)
    except PayloadError as error:
        log.warning("no sound: %s", error)
        return None
