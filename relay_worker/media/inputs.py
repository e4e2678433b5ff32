"""One track's way from RTP packets to what can be sent: video and Opus pass through, other audio becomes Opus.

An input belongs to one source session; a reconnect creates new ones, so no state survives from the old stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from av.audio.frame import AudioFrame

from relay_common.counters import joined
from relay_common.worker_stats import TrackStats
from relay_worker import native
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.opus import FRAME_SECONDS, Codec, OpusTranscoder
from relay_worker.media.opus_input import OpusInput
from relay_worker.media.stream import Frame, Kind, Track
from relay_worker.media.track_input import TrackInput
from relay_worker.rtp.aac import AacDepacketizer, parse_fmtp
from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.latm import LatmDepacketizer, parse_latm_fmtp
from relay_worker.rtp.timeline import Timeline

log = logging.getLogger(__name__)

ARRIVAL_WEIGHT: Final = 0.1
"""Of a picture's interval in the mean of those that have arrived."""


class VideoInput(TrackInput):
    """H.264 passthrough: re-fragmented where necessary, never transcoded."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        super().__init__(track, timeline)
        self.passthrough = H264Passthrough(sprop_parameter_sets=track.parameters.get("sprop-parameter-sets", ""))
        self.keyframe_at = 0.0
        self.keyframe_interval = 0.0
        self._keyframes = 0
        self._arrived, self._arrived_at = 0, 0.0  # pictures so far, and when the last of them arrived

    def inherit(self, before: VideoInput) -> None:
        """Continue from `before`, which is being rebuilt: a camera may have sent its parameter sets only at the
        session's start.
        """
        if not self.passthrough.parameter_sets.complete:
            self.passthrough.parameter_sets = before.passthrough.parameter_sets

    def receive_packets(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        passthrough = self.passthrough
        # Everything of a frame that arrived in one wake-up is sent together, so that one system call suffices.
        for run in self._runs(packets, now):
            payloads = passthrough.receive_run(run.payloads, run.timestamp, run.lost)
            if payloads or passthrough.earlier:
                if run.ssrc != self._ssrc:
                    self._another_source(run.ssrc)
                if passthrough.earlier:
                    self._send_earlier(now, out)
                if payloads:
                    out(Frame(Kind.VIDEO, payloads, self._timeline.map(Kind.VIDEO, passthrough.timestamp, now)))
        if passthrough.frames != self._arrived:
            self._note_arrival(passthrough.frames, now)
        if passthrough.held is None:
            self.due = 0.0
        elif packets:
            self.due = now + passthrough.longest_wait
        if passthrough.keyframes != self._keyframes:
            self._keyframes = passthrough.keyframes
            if self.keyframe_at:
                self.keyframe_interval = now - self.keyframe_at
            self.keyframe_at = now

    def _note_arrival(self, frames: int, now: float) -> None:
        """Picture rate, smoothed: pictures may arrive in bursts."""
        if self._arrived_at:
            step = (now - self._arrived_at) / (frames - self._arrived)
            self.passthrough.arrival_interval += ARRIVAL_WEIGHT * (step - self.passthrough.arrival_interval)
        self._arrived, self._arrived_at = frames, now

    def _send_earlier(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send the remaining packets of access units that have ended."""
        ended, self.passthrough.earlier = self.passthrough.earlier, []
        for timestamp, payloads in ended:
            if payloads:
                out(Frame(Kind.VIDEO, payloads, self._timeline.map(Kind.VIDEO, timestamp, now)))

    def end_waiting(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send the held packet: nothing followed it in time, so it ends its picture."""
        self.due = 0.0
        self.passthrough.end_waiting()
        self._send_earlier(now, out)

    @property
    def made(self) -> tuple[int, int]:
        return self.passthrough.frames, self.passthrough.keyframes

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

    def counters(self) -> dict[str, int]:
        """Counters of its parts, as `part.name`."""
        return super().counters() | joined(passthrough=self.passthrough.counters())


class AudioInput(TrackInput):
    """AAC or G.711 to Opus. Raises PayloadError when the track's format cannot be served."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        encoding = track.format.encoding
        self._depacketizer: AacDepacketizer | LatmDepacketizer | None = None
        if encoding == "MPEG4-GENERIC":
            aac = parse_fmtp(track.parameters)
            self._depacketizer = AacDepacketizer(aac, track.clock_rate)
            self._transcoder = OpusTranscoder("aac", aac.config.data)
        elif encoding == "MP4A-LATM":
            latm = parse_latm_fmtp(track.parameters)
            self._depacketizer = LatmDepacketizer(latm, track.clock_rate)
            self._transcoder = OpusTranscoder("aac", latm.config.data)
        elif encoding in ("PCMU", "PCMA"):
            codec: Codec = "pcmu" if encoding == "PCMU" else "pcma"
            self._transcoder = OpusTranscoder(codec, rate=track.clock_rate, channels=track.format.channels)
        else:
            raise PayloadError(f"audio encoding {encoding} is not supported")
        super().__init__(track, timeline)
        self.frames = 0
        self._timestamp = -1
        self._missing = False

    def receive_packets(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        for run in self._runs(packets, now):
            lost = run.lost
            for payload, marker in run.payloads:
                if not payload:
                    continue
                if run.ssrc != self._ssrc:
                    self._another_source(run.ssrc)
                if self._depacketizer is None:
                    units = [(payload, run.timestamp)]
                else:
                    units = self._depacketizer.receive_payload(payload, marker, run.timestamp, lost)
                self._missing |= lost > 0
                for number, (unit, timestamp) in enumerate(units):
                    media_time = None
                    # Of several units in a packet only the first has a timestamp; one that stands still says nothing.
                    if number == 0 and (timestamp != self._timestamp or self._missing):
                        media_time = self._timeline.map(Kind.AUDIO, timestamp, now)
                        self._timestamp = timestamp
                    self.transcode(unit, media_time, now, out)
                lost = 0

    def transcode(self, unit: bytes, media_time: float | None, now: float, out: Callable[[Frame], None]) -> None:
        """Send what an access unit becomes; `media_time` is None where its timestamp says nothing."""
        frames = self._transcoder.transcode(unit, media_time, now, lost=self._missing)
        self._missing = False
        self._send(frames, out)

    def encode(
        self, frames: Sequence[AudioFrame], media_time: float, now: float, pause: bool, out: Callable[[Frame], None]
    ) -> None:
        """The rest of `transcode`, of what compiled code has decoded and may not encode."""
        self._send(self._transcoder.encode(frames, media_time, now, pause), out)

    def _send(self, frames: Sequence[tuple[bytes, float]], out: Callable[[Frame], None]) -> None:
        if frames:
            self.frames += len(frames)
            out(Frame(Kind.AUDIO, [(frame, False) for frame, _ in frames], frames[0][1], FRAME_SECONDS))

    def wake_parts(self) -> tuple[native.TranscodingParts | None, list[native.StillSo]]:
        """What compiled code needs to do as `transcode` does; see `OpusTranscoder.wake_parts`."""
        parts, guards = self._transcoder.wake_parts()
        return parts, [(self, "_transcoder", self._transcoder), *guards]

    @property
    def units(self) -> AacDepacketizer | None:
        """What finds the access units of AAC in packets that have headers for them; None for any other sound."""
        return self._depacketizer if isinstance(self._depacketizer, AacDepacketizer) else None

    @property
    def made(self) -> tuple[int, int]:
        return self.frames, 0

    def count(self, stats: TrackStats) -> None:
        super().count(stats)
        stats.frames += self.frames

    def counters(self) -> dict[str, int]:
        """Counters of its parts, as `part.name`."""
        units = self._depacketizer.counters() if self._depacketizer is not None else {}
        return super().counters() | joined(
            units=units, opus=self._transcoder.counters(), clock=self._transcoder.clock.counters()
        )

    def tolerated(self) -> list[tuple[str, int]]:
        stats, clock, depacketizer = self._transcoder.stats, self._transcoder.clock, self._depacketizer
        return [
            *super().tolerated(),
            ("sound_unit_malformed", depacketizer.malformed if depacketizer is not None else 0),
            ("sound_unit_incomplete", depacketizer.incomplete if depacketizer is not None else 0),
            ("sound_unit_undecodable", stats.faults),
            ("sound_gap_filled_ms", round(1000 * stats.filled)),
            ("sound_gap_jumped", stats.jumps),
            ("sound_overlap_ms", round(1000 * stats.overlapped)),
            ("sound_frame_inserted", clock.inserted),
            ("sound_frame_removed", clock.removed),
            ("sound_moved", clock.moved),
        ]


def make_input(track: Track, timeline: Timeline) -> TrackInput | None:
    """The input for a track; None (and a warning) for unsupported audio: video continues without it."""
    if track.kind is Kind.VIDEO:
        return VideoInput(track, timeline)
    if track.format.encoding == "OPUS":
        return OpusInput(track, timeline)
    try:
        return AudioInput(track, timeline)
    except PayloadError as error:
        log.warning("no sound: %s", error)
        return None
