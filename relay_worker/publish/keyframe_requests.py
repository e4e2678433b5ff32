"""Keyframes asked for again and again although whole ones leave: a sign that nobody decodes what is sent.

Every receiver that cannot show a picture asks for a keyframe (PLI or FIR), several times a second in browsers. One that
comes too late for a keyframe asks, too, and so does each newcomer; but then the next keyframe helps. So requests count
as in vain only when they went on over two whole IDR pictures that left after they began. Whether some other receiver
decodes all the same is not seen from here: the supervisor hears it from the pages.

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
    ONE_LEFT = "one_left"
    """One complete IDR picture was sent since the requests began."""
    ONE_IN_VAIN = "one_in_vain"
    """… and they went on."""
    TWO_LEFT = "two_left"
    IN_VAIN = "in_vain"


class RequestEvent(enum.Enum):
    ASKED = "asked"
    KEYFRAME_LEFT = "keyframe_left"
    CALM = "calm"


_S, _E = RequestState, RequestEvent

REQUEST_TABLE: Final = Table(
    "keyframe requests",
    _S.QUIET,
    {
        (_S.QUIET, _E.ASKED): _S.ASKING,
        (_S.ASKING, _E.KEYFRAME_LEFT): _S.ONE_LEFT,
        (_S.ONE_LEFT, _E.ASKED): _S.ONE_IN_VAIN,
        (_S.ONE_IN_VAIN, _E.KEYFRAME_LEFT): _S.TWO_LEFT,
        (_S.TWO_LEFT, _E.ASKED): _S.IN_VAIN,
        **{(state, _E.CALM): _S.QUIET for state in _S if state is not _S.QUIET},
    },
)


class Sent(NamedTuple):
    """Totals of one publication's video."""

    publication: str
    requests: int
    """PLIs and FIRs received."""
    keyframes: int
    """IDR pictures of the camera."""
    cut: int
    """Pictures and packets that should have been sent and were not."""


class KeyframeRequests:
    """Monitors the keyframe requests for one camera; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._machine: Machine[RequestState, RequestEvent] = Machine(REQUEST_TABLE)
        self._before: Sent | None = None
        self._began = self._asked_at = self._left_at = 0.0
        self.judged = 0
        """How often requests were found to be in vain."""

    @property
    def state(self) -> RequestState:
        return self._machine.state

    def in_vain(self, now: float) -> float:
        """Seconds for which viewers have asked in vain; 0 while they do not, or it is not certain yet."""
        return now - self._began if self.state is RequestState.IN_VAIN else 0.0

    def observe(self, sent: Sent | None, now: float) -> None:
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
        # One that came in the second in which the requests began may have begun before them; and one of which a part
        # was left out is not whole.
        if sent.keyframes > before.keyframes and sent.cut == before.cut and not fresh:
            self._fire(RequestEvent.KEYFRAME_LEFT, now)

    def _fire(self, event: RequestEvent, now: float = 0.0) -> None:
        if self._machine.can(event):
            state = self._machine.fire(event)
            self.judged += state is RequestState.IN_VAIN
            if event is RequestEvent.KEYFRAME_LEFT:
                self._left_at = now

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"in_vain": self.judged}
