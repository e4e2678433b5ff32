"""Holds a publication while its camera is away: a slate and silence, so that viewers keep their subscription.

The SFU collects a track after 30 s without packets, and a viewer of a collected track sees a frozen picture for ever.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from relay_worker.inputs import Frame
from relay_worker.media.filler import Filler
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.tracks import Kind

PATIENCE: Final = 2.0
"""Seconds without a live frame after which filler begins."""


class GapFiller:
    """Feeds the pipeline's output while the source gives nothing; the pipeline ends it with the first live frame."""

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self._name, self._pipeline = name, pipeline
        self._filler: Filler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.gaps = 0

    def check(self, now: float) -> None:
        """Begin to fill when it is time; called about once a second."""
        pipeline = self._pipeline
        last = pipeline.last_frame.get(Kind.VIDEO)
        if pipeline.filling or pipeline.output is None or last is None or now - last < PATIENCE:
            return
        self.gaps += 1
        # What comes back must begin with a keyframe: the viewer's decoder has the slate as its reference.
        pipeline.resync()
        pipeline.filling = True
        video = pipeline.track_stats(Kind.VIDEO)
        size = (video.width, video.height) if video.width and video.height else (640, 360)
        self._filler = Filler(self._name, audio=Kind.AUDIO in pipeline.last_frame, width=size[0], height=size[1])
        self._filler.begin(now)
        self._fill()

    def close(self) -> None:
        """Stop filling."""
        self._pipeline.filling = False
        if self._timer is not None:
            self._timer.cancel()

    def _fill(self) -> None:
        pipeline, filler = self._pipeline, self._filler
        if not pipeline.filling or filler is None:
            return
        # The pipeline's media clock is the monotonic clock.
        now = time.monotonic()
        for kind, payloads, media_time in filler.poll(now):
            live_audio = now - pipeline.last_frame.get(Kind.AUDIO, 0.0) < PATIENCE
            if pipeline.output is not None and not (kind == "audio" and live_audio):
                pipeline.output.send(Frame(Kind(kind), payloads, media_time), now)
                pipeline.timeline.filled(Kind(kind), media_time)
        self._timer = asyncio.get_running_loop().call_at(filler.next_time(), self._fill)
