"""Finds a wedge: one end of a stage alive, the other frozen, and says what the smallest thing to rebuild is.

Fed once a second with counters, so it costs the media path nothing. A source that falls silent and an SFU that
acknowledges nothing are found where they are known: `SourceKeeper.check` and `Publisher.check`, in seven seconds each.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple

from relay_common.liveness import Liveness
from relay_common.pauses import PauseDetector
from relay_common.protocol import Stage
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.keeper import PublicationKeeper
from relay_worker.publish.publications import Publications

STALL_TIMEOUT: Final = 8.0
"""Seconds a stage may receive input without producing output: longer than a camera's keyframe interval."""
MAX_STALL_TIMEOUT: Final = 120.0
"""Upper limit of that timeout while rebuilding does not help: a camera without usable video must not be reconnected
over and over.
"""
ALIVE: Final = 2.0
"""Seconds since its last progress within which an input counts as alive."""


class Rebuild(enum.Enum):
    """What to rebuild."""

    INPUT = "input"
    """The track's depacketizer and transcoder."""
    SOURCE = "source"
    """The session with the camera."""
    PUBLICATION = "publication"


class TrackTotals(NamedTuple):
    """Totals of one track since the worker started."""

    packets_in: int
    frames: int
    packets_out: int
    published: bool
    """Whether a connected publication carries the track."""


class Verdict(NamedTuple):
    """A stalled stage."""

    kind: Kind
    stage: Stage
    rebuild: Rebuild
    reason: str


_AS_AT_FIRST: Final = {"frames": STALL_TIMEOUT, "out": STALL_TIMEOUT}
_GIVES: Final = {"in": "packets_in", "frames": "frames", "out": "packets_out"}


class _TrackWatch:
    def __init__(self) -> None:
        self.totals: TrackTotals | None = None
        self.liveness = Liveness()
        self.moved = dict.fromkeys(_GIVES, 0.0)
        """When each total last changed; deadlines in `liveness` are also put off while nothing can be expected."""
        self.timeout = _AS_AT_FIRST.copy()
        self.pauses = PauseDetector(1.0)
        self.all_moved = 0.0
        """When all totals last changed, or counted as changed, where that is not noted for each of them yet; else 0."""

    def note_all_moved(self) -> None:
        """Note for each of them what `all_moved` says."""
        if self.all_moved:
            for name in _GIVES:
                self.moved[name] = self.all_moved
                self.liveness.progress(name, self.all_moved)
            self.all_moved = 0.0


class Watchdog:
    """Watches both tracks of one camera on their way to one sink; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._tracks = {kind: _TrackWatch() for kind in Kind}

    def observe(self, kind: Kind, totals: TrackTotals, now: float) -> Verdict | None:
        """Take a track's totals, about once a second; a verdict when it is wedged, the same one again much later."""
        watch = self._tracks[kind]
        before, watch.totals = watch.totals, totals
        if before is None:
            watch.pauses.observe(now)
            for name in _GIVES:
                watch.moved[name] = now
                watch.liveness.watch(name, STALL_TIMEOUT, now)
            return None
        if watch.pauses.observe(now) or (_all_differ(totals, before) and watch.timeout == _AS_AT_FIRST):
            # Nearly always all have moved, and there is nothing to judge. Where this process itself was paused, input
            # from that time has not passed through the stages yet.
            watch.all_moved = now
            return None
        watch.note_all_moved()
        for name, field in _GIVES.items():
            if getattr(totals, field) != getattr(before, field):
                watch.moved[name] = now
                watch.liveness.progress(name, now)
                if watch.timeout.get(name, STALL_TIMEOUT) != STALL_TIMEOUT:
                    self._expect(watch, name, STALL_TIMEOUT, now)
        if not totals.published or not before.published:
            watch.liveness.progress("out", now)
        return self._judge(kind, watch, now)

    def _judge(self, kind: Kind, watch: _TrackWatch, now: float) -> Verdict | None:
        alive = {name for name in _GIVES if now - watch.moved[name] < ALIVE}
        if "in" not in alive:
            # Nothing can come out of it; others judge that nothing comes in.
            watch.liveness.progress("frames", now)
        if "frames" not in alive:
            watch.liveness.progress("out", now)
        for name in watch.liveness.overdue(now):
            if name == "in":
                continue
            self._expect(watch, name, min(MAX_STALL_TIMEOUT, 2 * watch.timeout[name]), now)
            if name == "out":
                reason = f"{kind.value} frames are ready, and none was sent"
                return Verdict(kind, Stage.SENDING, Rebuild.PUBLICATION, reason)
            reason = f"{kind.value} packets come, and no frame came of them"
            rebuild = Rebuild.SOURCE if kind is Kind.VIDEO else Rebuild.INPUT
            return Verdict(kind, Stage.DECODE, rebuild, reason)
        return None

    @staticmethod
    def _expect(watch: _TrackWatch, name: str, timeout: float, now: float) -> None:
        watch.timeout[name] = timeout
        watch.liveness.watch(name, timeout, now)


def _all_differ(now: TrackTotals, before: TrackTotals) -> bool:
    # Totals may fall when a session's counters restart: that is progress, too.
    return now.packets_in != before.packets_in and now.frames != before.frames and now.packets_out != before.packets_out


class SinkWatchdogs:
    """A watchdog for each sink: a wedge before the publications is found by the first, one in a publication by its
    own.
    """

    def __init__(self) -> None:
        self._watchdogs: dict[str, Watchdog] = {}
        self.wedges = 0

    def observe(
        self, kind: Kind, pipeline: Pipeline, publications: Publications, now: float
    ) -> Iterator[tuple[PublicationKeeper, Verdict]]:
        """Take the totals of a kind, about once a second; what is wedged, with the keeper whose watchdog saw it."""
        first = publications.first
        packets, frames, _ = pipeline.totals(kind)
        for keeper in [*publications.keepers.values()] or [first]:
            to = keeper.publisher
            carried = to is not None and to.connected and (kind is Kind.VIDEO or to.audio_accepted)
            seen = TrackTotals(packets, frames, keeper.totals(kind)[0], carried)
            watchdog = self._watchdogs.get(keeper.sink.name)
            if watchdog is None:
                watchdog = self._watchdogs[keeper.sink.name] = Watchdog()
            verdict = watchdog.observe(kind, seen, now)
            if verdict is not None and (keeper is first or verdict.rebuild is Rebuild.PUBLICATION):
                self.wedges += 1
                yield keeper, verdict

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"wedges": self.wedges}
