"""Whether a camera's picture can be decoded, from what pages report receiving and what its worker saw.

A page that gets bytes and shows no frame over two complete IDR pictures is *blind*. If another page decodes, the fault
is its own and shown only on its tile; if none does, it is the camera's. Requests for keyframes that go on over two
complete IDR pictures are the camera's fault, too, unless some page is known to decode.

Pure: `now` (monotonic seconds) is passed in.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from relay_common.fsm import Machine, Table
from relay_common.worker_stats import NOT_DECODABLE, WorkerStats, describe_requests, stage_of

FRESH: Final = 20.0
"""Seconds for which a page's report is valid; visible pages report every five."""
BLIND_AFTER: Final = 6.0
"""Shortest time in seconds with bytes but no frames before a page counts as blind."""
WHOLE_KEYFRAMES: Final = 3
"""Fewest keyframes in that time: the first may already have been on its way, so that two were complete."""
HEAR_OUT: Final = 7.0
"""Seconds in which pages may report that they decode, before futile requests count against the camera."""
HOLDS: Final = 10.0
"""Seconds for which a worker's report is valid."""
BROWSERS_FAULT: Final = "Others see this camera: this browser gets its bytes and decodes no picture"


class Decodable(enum.Enum):
    """The verdict on a camera."""

    UNKNOWN = "unknown"
    """Nobody watches, or no page reports what it decodes."""
    YES = "yes"
    NO = "no"


class PageState(enum.Enum):
    """What a page shows of a camera."""

    UNKNOWN = "unknown"
    DECODING = "decoding"
    WAITING = "waiting"
    """It gets bytes, but has shown no frame since."""
    BLIND = "blind"


class PageEvent(enum.Enum):
    FRAMES = "frames"
    BYTES = "bytes"
    """Without frames."""
    NOTHING = "nothing"
    KEYFRAMES_PASSED = "keyframes_passed"
    """Complete IDR pictures were sent while it waited."""


_S, _E = PageState, PageEvent

PAGE_TABLE: Final = Table(
    "sight of a page",
    _S.UNKNOWN,
    {
        **{(state, _E.FRAMES): _S.DECODING for state in _S},
        (_S.UNKNOWN, _E.BYTES): _S.WAITING,
        (_S.DECODING, _E.BYTES): _S.WAITING,
        (_S.WAITING, _E.KEYFRAMES_PASSED): _S.BLIND,
        **{(state, _E.NOTHING): _S.UNKNOWN for state in _S},
    },
)


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A page's `getStats()` totals for one camera's video; they restart with each track."""

    camera: str
    bytes: int = 0
    frames: int = 0
    """Frames decoded."""


class DecodingVerdict(NamedTuple):
    """Whether any page decodes one camera's video; `stage` and `reason` are empty unless none does."""

    decodable: Decodable = Decodable.UNKNOWN
    stage: str = ""
    reason: str = ""


@dataclass
class _Viewer:
    machine: Machine[PageState, PageEvent]
    received: Received
    moved_at: float
    """When bytes last arrived."""
    heard_at: float
    waits_since: float = 0.0
    keyframes: int = 0
    """The camera's keyframes when it began to wait."""


class Decoding:
    """All cameras and the pages that watch them. Bounded by the bounds on views and local viewers, whose names those of
    views and of local viewers' sessions are.
    """

    def __init__(self) -> None:
        self._viewers: dict[str, dict[str, _Viewer]] = {}  # camera → view → …
        self._workers: dict[str, tuple[WorkerStats, float]] = {}
        self._ineffective_since: dict[str, float] = {}

    def worker(self, camera: str, stats: WorkerStats | None, now: float) -> None:
        """Record a live camera's statistics; None while it is not live."""
        if stats is None or not stats.requests_in_vain:
            self._ineffective_since.pop(camera, None)
        else:
            self._ineffective_since.setdefault(camera, now)
        if stats is None:
            self._workers.pop(camera, None)
        elif camera not in self._workers or self._workers[camera][0] is not stats:
            self._workers[camera] = (stats, now)

    def reports(self, view: str, received: Sequence[Received], now: float) -> dict[str, str]:
        """Record what a visible page receives; returns, by camera, what is wrong with this page alone."""
        for entry in received:
            self.report(view, entry, now)
        faults = {entry.camera: self.fault(view, entry.camera, now) for entry in received}
        return {camera: fault for camera, fault in faults.items() if fault}

    def report(self, view: str, received: Received, now: float) -> None:
        """Record what a visible page receives of one camera."""
        viewers = self._viewers.setdefault(received.camera, {})
        viewer = viewers.get(view)
        if viewer is None or now - viewer.heard_at > FRESH:
            nothing = Received(camera=received.camera)
            viewer = viewers[view] = _Viewer(Machine(PAGE_TABLE), nothing, now, now)
        before, viewer.received, viewer.heard_at = viewer.received, received, now
        if received.bytes < before.bytes or received.frames < before.frames:
            before = Received(camera=received.camera)
        if received.bytes > before.bytes:
            viewer.moved_at = now
        if received.frames > before.frames:
            viewer.machine.fire(PageEvent.FRAMES)
        elif received.bytes > before.bytes:
            self._waits(received.camera, viewer, now)
        elif now - viewer.moved_at > FRESH / 2:
            viewer.machine.fire(PageEvent.NOTHING)

    def _waits(self, camera: str, viewer: _Viewer, now: float) -> None:
        """Bytes came without frames: for how long, and over how many keyframes?"""
        stats = self._stats(camera, now)
        keyframes = stats.video.keyframes if stats is not None else 0
        if viewer.machine.can(PageEvent.BYTES):
            viewer.machine.fire(PageEvent.BYTES)
            viewer.waits_since, viewer.keyframes = now, keyframes
        if stats is None or keyframes < viewer.keyframes:
            # Not live, or its worker was replaced: this wait means nothing.
            viewer.waits_since, viewer.keyframes = now, keyframes
        passed = keyframes - viewer.keyframes >= WHOLE_KEYFRAMES and now - viewer.waits_since >= BLIND_AFTER
        if passed and viewer.machine.can(PageEvent.KEYFRAMES_PASSED):
            viewer.machine.fire(PageEvent.KEYFRAMES_PASSED)

    def forget(self, view: str) -> None:
        """Forget a view that has ended."""
        for camera in [camera for camera, viewers in self._viewers.items() if viewers.pop(view, None) and not viewers]:
            del self._viewers[camera]

    def page_state(self, view: str, camera: str, now: float) -> PageState:
        """What a page sees of a camera."""
        viewer = self._viewers.get(camera, {}).get(view)
        if viewer is None or now - viewer.heard_at > FRESH:
            return PageState.UNKNOWN
        return viewer.machine.state

    def verdict(self, camera: str, now: float) -> DecodingVerdict:
        """The verdict on a camera."""
        stats = self._stats(camera, now)
        if stats is None:
            return DecodingVerdict()
        seen = {self.page_state(view, camera, now) for view in self._viewers.get(camera, {})}
        if PageState.DECODING in seen:
            return DecodingVerdict(Decodable.YES)
        heard_out = now - self._ineffective_since.get(camera, now) >= HEAR_OUT
        words = [describe_requests(stats)] if heard_out else []
        if PageState.BLIND in seen:
            words.insert(0, "browsers get its bytes, and decode no picture of them")
        if not words:
            return DecodingVerdict()
        if stats.reason:
            words.append(stats.reason)  # what the worker knows of it: B-frames, for one
        return DecodingVerdict(Decodable.NO, stage_of(stats).value, f"{NOT_DECODABLE}: {'; '.join(words)}")

    def fault(self, view: str, camera: str, now: float) -> str:
        """Message for a page's own tile when it is blind while others see; empty otherwise."""
        blind = self.page_state(view, camera, now) is PageState.BLIND
        return BROWSERS_FAULT if blind and self.verdict(camera, now).decodable is Decodable.YES else ""

    def _stats(self, camera: str, now: float) -> WorkerStats | None:
        stats, at = self._workers.get(camera, (None, 0.0))
        return stats if now - at <= HOLDS else None
