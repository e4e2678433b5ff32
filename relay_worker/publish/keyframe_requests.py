"""Keyframe requests that continue although complete keyframes are sent: a sign that nobody decodes the video.

Every receiver that cannot show a picture requests a keyframe (PLI or FIR), several times a second in browsers. One that
joins after a keyframe requests one, too; but then the next keyframe helps. So the keyframes count as ineffective only
when the requests continued over two complete IDR pictures that were sent after they began. Whether some other receiver
decodes the video is not visible from here: the supervisor learns it from the pages.

Judged once a second from totals, so it costs the media path nothing.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from relay_common.fsm import Machine, Table

SETTLE: Final = 1.5
"""Seconds after an IDR picture is sent until a request means that it did not help: earlier requests predate its
arrival.
"""
CALM: Final = 4.0
"""Seconds without a request after which requests count as over."""


class RequestState(enum.Enum):
    QUIET = "quiet"
    ASKING = "asking"
    ONE_SENT = "one_sent"
    """One complete IDR picture was sent since the requests began."""
    ONE_INEFFECTIVE = "one_ineffective"
    """The requests continued after it."""
    TWO_SENT = "two_sent"
    INEFFECTIVE = "ineffective"


class RequestEvent(enum.Enum):
    ASKED = "asked"
    KEYFRAME_SENT = "keyframe_sent"
    CALM = "calm"


_S, _E = RequestState, RequestEvent

REQUEST_TABLE: Final = Table(
    "keyframe requests",
    _S.QUIET,
    {
        (_S.QUIET, _E.ASKED): _S.ASKING,
        (_S.ASKING, _E.KEYFRAME_SENT): _S.ONE_SENT,
        (_S.ONE_SENT, _E.ASKED): _S.ONE_INEFFECTIVE,
        (_S.ONE_INEFFECTIVE, _E.KEYFRAME_SENT): _S.TWO_SENT,
        (_S.TWO_SENT, _E.ASKED): _S.INEFFECTIVE,
        **{(state, _E.CALM): _S.QUIET for state in _S if state is not _S.QUIET},
    },
)


class VideoTotals(NamedTuple):
    """Totals of one publication's video."""

    publication: str
    requests: int
    """PLIs and FIRs received."""
    keyframes: int
    """IDR pictures of the camera."""
    cut: int
    """Pictures and packets that should have been sent and were not."""


class KeyframeRequestMonitor:
    """Monitors the keyframe requests for one camera; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._machine: Machine[RequestState, RequestEvent] = Machine(REQUEST_TABLE)
        self._before: VideoTotals | None = None
        self._began = self._asked_at = self._left_at = 0.0
        self.judged = 0
        """How often keyframes were found to be ineffective."""

    @property
    def state(self) -> RequestState:
        return self._machine.state

    def ineffective_for(self, now: float) -> float:
        """Seconds for which viewers have requested keyframes that did not help; 0 while there is no such verdict."""
        return now - self._began if self.state is RequestState.INEFFECTIVE else 0.0

    def observe(self, sent: VideoTotals | None, now: float) -> None:
        """Process the totals, about once a second; None while the camera is not live."""
        before, self._before = self._before, sent
        if sent is None or before is None or sent.publication != before.publication:
            self._fire(RequestEvent.CALM)
            return
        fresh = False
        if sent.requests > before.requests:
            fresh = self.state is RequestState.QUIET
            self._asked_at = now
            if fresh:
                self._began = now
            # Requests made while the last keyframe was in flight prove nothing.
            if now - self._left_at >= SETTLE or self.state in (RequestState.QUIET, RequestState.ASKING):
                self._fire(RequestEvent.ASKED)
        elif now - self._asked_at > CALM:
            self._fire(RequestEvent.CALM)
        # A keyframe sent in the second in which the requests began may have begun before them; and one of which a part
        # was left out is not complete.
        if sent.keyframes > before.keyframes and sent.cut == before.cut and not fresh:
            self._fire(RequestEvent.KEYFRAME_SENT, now)

    def _fire(self, event: RequestEvent, now: float = 0.0) -> None:
        if self._machine.can(event):
            state = self._machine.fire(event)
            self.judged += state is RequestState.INEFFECTIVE
            if event is RequestEvent.KEYFRAME_SENT:
                self._left_at = now

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"in_vain": self.judged}
