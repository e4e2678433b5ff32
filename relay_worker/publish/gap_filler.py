"""Keeps a publication alive while its camera is away: a slate and silence, so that viewers keep their subscription.

The SFU collects a track after 30 s without packets, and a viewer of a collected track sees a frozen picture
permanently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay_common.clock import CallAt, Timer
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.filler import SILENCE_100MS, Filler

FILL_AFTER: Final = 2.0
"""Seconds without a live frame after which filler begins."""
KEEPALIVE: Final = 10.0
"""Seconds between packets of silence where the camera's session has no sound: they keep the track at the SFU, which the
next session may need.
"""


class GapFiller:
    """Feeds whatever the pipeline feeds while the source delivers nothing; the first live frame ends it.

    Without video both tracks are filled; without sound alone, only silence is sent. `gaps` counts the former,
    `silences` the latter. `now` tells the time on the media clock (monotonic), `call_at` sets
    timers on it.
    """

    def __init__(self, name: str, pipeline: Pipeline, now: Callable[[], float], call_at: CallAt) -> None:
        self._name, self._pipeline, self._clock_now, self._call_at = name, pipeline, now, call_at
        self._filler: Filler | None = None
        self._timer: Timer | None = None
        self.gaps = self.silences = 0

    def check(self, now: float, *, watched: bool = False) -> None:
        """Start filling when a track has been missing long enough; called about once a second.

        Where it is `watched` already, by a viewer of the worker's own, it does not take a first frame to be missed.
        """
        pipeline = self._pipeline
        never = Kind.VIDEO not in pipeline.last_frame
        if pipeline.filling or (pipeline.output is None and not watched) or (never and not watched):
            return
        if never or self._missing(Kind.VIDEO, now):
            self.gaps += 1
            # What comes back must begin with a keyframe: the viewer's decoder has the slate as its reference.
            pipeline.resync()
            pipeline.filling = True
            video = pipeline.track_stats(Kind.VIDEO)
            size = (video.width, video.height) if video.width and video.height else (640, 360)
            audio = Kind.AUDIO in pipeline.last_frame
            self._begin(Filler(self._name, audio=audio, width=size[0], height=size[1]), now)
        elif Kind.AUDIO not in pipeline.inputs:
            self._keep_sound_alive(now)
        elif self._missing(Kind.AUDIO, now) and self._filler is None:
            self.silences += 1
            self._begin(Filler(self._name, audio=True, video=False), now)

    def close(self) -> None:
        """Stop filling."""
        self._pipeline.filling = False
        self._end()

    def _missing(self, kind: Kind, now: float) -> bool:
        last = self._pipeline.last_frame.get(kind)
        return last is not None and now - last >= FILL_AFTER

    def _keep_sound_alive(self, now: float) -> None:
        pipeline = self._pipeline
        if now - pipeline.last_frame.get(Kind.AUDIO, now) >= KEEPALIVE and pipeline.output is not None:
            pipeline.last_frame[Kind.AUDIO] = now
            pipeline.deliver(Frame(Kind.AUDIO, [(SILENCE_100MS, False)], now), now)
            pipeline.timeline.filled(Kind.AUDIO, now)

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
        now = self._clock_now()
        silent = self._missing(Kind.AUDIO, now) and (pipeline.filling or Kind.AUDIO in pipeline.inputs)
        if filler is None or not (pipeline.filling or silent):
            self._end()
            return
        for kind, payloads, media_time in filler.poll(now):
            if silent if kind == "audio" else pipeline.filling:
                pipeline.deliver(Frame(Kind(kind), payloads, media_time), now)
                pipeline.timeline.filled(Kind(kind), media_time)
        self._timer = self._call_at(filler.next_time(), self._fill)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"gaps": self.gaps, "silences": self.silences}
