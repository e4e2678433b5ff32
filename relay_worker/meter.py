"""Turns counters into the stats report, with rates since the previous report."""

from __future__ import annotations

from collections.abc import Mapping

from relay_common.protocol import WorkerState
from relay_common.worker_stats import TrackStats, WorkerStats
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.keeper import add_sent

SHORTEST: float = 0.2
"""Shortest interval in seconds for which rates are computed: over less they would be noise."""


class Meter:
    """Measures one camera; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._before: dict[Kind, TrackStats] = {}
        self._at = 0.0

    def measure(self, pipeline: Pipeline, sent: Mapping[Kind, TrackStats], now: float) -> WorkerStats:
        """A report of everything measured of the tracks, of which `sent` was sent; the caller fills in the rest."""
        tracks = {kind: pipeline.track_stats(kind) for kind in Kind}
        elapsed = now - self._at
        for kind, track in tracks.items():
            add_sent(track, sent[kind])
            before = self._before.get(kind)
            if before is not None:
                _rates(track, before, elapsed)
        if elapsed >= SHORTEST:
            self._before, self._at = tracks, now
        return WorkerStats(
            instance="",
            camera="",
            sequence=0,
            at=0.0,
            uptime=0.0,
            state=WorkerState.STARTING,
            video=tracks[Kind.VIDEO],
            audio=tracks[Kind.AUDIO],
            skew=pipeline.skew,
            malformed=pipeline.malformed,
        )


def _rates(track: TrackStats, before: TrackStats, elapsed: float) -> None:
    if elapsed < SHORTEST:
        track.fps, track.bitrate_in, track.bitrate_out = before.fps, before.bitrate_in, before.bitrate_out
        return
    track.fps = (track.frames - before.frames) / elapsed
    track.bitrate_in = (track.bytes_in - before.bytes_in) * 8 / elapsed
    track.bitrate_out = (track.bytes_out - before.bytes_out) * 8 / elapsed
