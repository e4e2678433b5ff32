"""Stands for a session of RTSP's before what takes whole wakes, where media comes as datagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from relay_worker import native
from relay_worker.camera.webrtc_ingest import Ingest
from relay_worker.media.stream import Batch, Feed, Kind, MediaSink, Track, WakeSink
from relay_worker.native.states import SessionState
from relay_worker.rtsp.parser import RtspParser

SOUND_CHANNEL: Final = 2
_CHANNELS: Final = {Kind.VIDEO: (0, 1), Kind.AUDIO: (SOUND_CHANNEL, 3)}
"""Of the frames that RTP, and RTCP, would come in."""


class IngestSink(MediaSink, Protocol):
    """What takes the camera's media: a `MediaSink` that also tells of keyframes (`pipeline.Pipeline`)."""

    @property
    def waits_for_keyframe(self) -> bool: ...

    @property
    def keyframe_at(self) -> float: ...

    @property
    def video_number(self) -> int | None: ...

    def flush(self, now: float) -> None: ...


class DatagramFeed(SessionState):
    """The frames of one session's `tracks`, video first, on their way to `sink`, which is `wakes` as well. `state` is
    `"playing"` until `end`.
    """

    def __init__(self, tracks: Sequence[Track], sink: IngestSink, wakes: WakeSink) -> None:
        self._sink, self._wakes = sink, wakes
        self._last_data = 0.0
        self.in_step = False
        """Whether the ingest knows of all video that the sink has received, and misses none of it."""
        self.state: str = "playing"
        self._parser = RtspParser()
        self._tracks = {track: _CHANNELS[track.kind] for track in tracks}
        for rtp, control in self._tracks.values():
            self._parser.packets |= {rtp: [], control: []}
        video = next(track for track in tracks if track.kind is Kind.VIDEO)
        sound = any(track.kind is Kind.AUDIO for track in tracks)
        heard = _CHANNELS[Kind.AUDIO] if sound else None
        self.feed = Feed(video, self, self._parser, self.state, *_CHANNELS[Kind.VIDEO], heard)
        """Where the video comes from, for `WakeSink.take_wake`."""

    def end(self) -> None:
        """Nothing comes any more: what was made of this session takes no more wakes."""
        self.state = "ended"

    def hear(self, frames: bytes, now: float) -> bool:
        """Whether the frames were sound alone, and the sink has taken it and wants nothing of the camera; else nothing
        has happened.
        """
        return frames[1] == SOUND_CHANNEL and not self._sink.waits_for_keyframe and self._wakes.hear_wake(frames, now)

    def take(self, ingest: Ingest, frames: bytes, now: float) -> Kind | None:
        """What the sink has taken of the frames: video, whether or not with sound, or sound alone. None: nothing has
        happened.
        """
        if not (self.in_step or self._comes_into_step(ingest)):
            return None
        before = self._sink.video_number
        done = self._wakes.take_wake(self.feed, frames, now)
        if done == native.OTHERS_LEFT:
            self._wakes.take_left(self.feed, now)
        elif done != native.DONE:
            return None
        number = self._sink.video_number
        if number == before:
            return Kind.AUDIO
        if number is not None:
            ingest.received(number)
        return Kind.VIDEO

    def _comes_into_step(self, ingest: Ingest) -> bool:
        number = self._sink.video_number
        self.in_step = number is not None and ingest.follows(number)
        return self.in_step

    def take_batches(self) -> list[Batch]:
        """The packets of other tracks that came with the video."""
        batches, packets = list[Batch](), self._parser.packets
        for track, (rtp, _) in self._tracks.items():
            if packets[rtp]:
                batches.append(Batch(track, packets[rtp], []))
                packets[rtp] = []
        return batches


def channels_of(streams: Mapping[tuple[int, int], Kind]) -> list[tuple[int, int, int]]:
    """Streams (`Ingest.streams`) as `Incoming.know` takes them."""
    return [(ssrc, payload_type, _CHANNELS[kind][0]) for (ssrc, payload_type), kind in streams.items()]
