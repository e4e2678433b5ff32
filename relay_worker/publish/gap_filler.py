"""Holds a publication while its camera is away: a slate and silence, so that viewers keep their subscription.

The SFU collects a track after 30 s without packets, and a viewer of a collected track sees a frozen picture for ever.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.filler import Filler

PATIENCE: Final = 2.0
"""Seconds without a live frame after which filler begins."""


class GapFiller:
    """Feeds the pipeline's output while the source gives nothing; the first live frame ends it.

    Both tracks are filled while the picture is away; while only the sound is, silence stands in for it. `gaps` counts
    the former, `silences` the latter.
    """

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self._name, self._pipeline = name, pipeline
        self._filler: Filler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.gaps = self.silences = 0

    def check(self, now: float) -> None:
        """Begin to fill when it is time; called about once a second."""
        pipeline = self._pipeline
        if pipeline.filling or pipeline.output is None or Kind.VIDEO not in pipeline.last_frame:
            return
        if self._missing(Kind.VIDEO, now):
            self.gaps += 1
            # What comes back must begin with a keyframe: the viewer's decoder has the slate as its reference.
            pipeline.resync()
            pipeline.filling = True
            video = pipeline.track_stats(Kind.VIDEO)
            size = (video.width, video.height) if video.width and video.height else (640, 360)
            audio = Kind.AUDIO in pipeline.last_frame
            self._begin(Filler(self._name, audio=audio, width=size[0], height=size[1]), now)
        elif self._missing(Kind.AUDIO, now) and self._filler is None:
            self.silences += 1
            self._begin(Filler(self._name, audio=True, video=False), now)

    def close(self) -> None:
        """Stop filling."""
        self._pipeline.filling = False
        self._end()

    def _missing(self, kind: Kind, now: float) -> bool:
        last = self._pipeline.last_frame.get(kind)
        return last is not None and now - last >= PATIENCE

    def _begin(self, filler: Filler, now: float) -> None:
        self._end()
        self._filler = filler
        filler.begin(now)
        self._fill()

    def _end(self) -> None:
        self._filler = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fill(self) -> None:
        pipeline, filler = self._pipeline, self._filler
        # The pipeline's media clock is the monotonic clock.
        now = time.monotonic()
        silent = self._missing(Kind.AUDIO, now)
        if filler is None or not (pipeline.filling or silent):
            self._end()
            return
        for kind, payloads, media_time in filler.poll(now):
            if pipeline.output is not None and (silent if kind == "audio" else pipeline.filling):
                pipeline.output.send(Frame(Kind(kind), payloads, media_time), now)
                pipeline.timeline.filled(Kind(kind), media_time)
        self._timer = asyncio.get_running_loop().call_at(filler.next_time(), self._fill)

    def counters(self) -> dict[str, int]:
        """Counted since it began, by name."""
        return {"gaps": self.gaps, "silences": self.silences}
