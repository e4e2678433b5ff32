"""A sliding log that allows at most N calls in any span, whenever Google counts them.

Google counts a call at some moment between our request and its answer; we cannot know when. So a call occupies a place
from when it is sent until `span + guard` after it is *answered* (or abandoned): wherever the server's moments fall in
those intervals, no span of its clock holds more than N of them. A fixed window is covered too, because it is one of the
spans.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Final

TICK: Final = 0.001
"""Seconds after its release before a place may be reused: spans are closed at both ends."""
HOLD: Final = 60.0
"""Shortest pause in seconds after a refusal."""
_LONGEST_HOLD: Final = 300.0
_TOLERATED: Final = 5
"""Consecutive refusals from which the hold grows."""
_LOWERED: Final = 0.7
_LOWEST: Final = 0.3
_RAISE_EVERY: Final = 60.0


class Place:
    """One call in a log: when it was sent, and when its place is released (infinity while it is under way)."""

    __slots__ = ("release", "sent")

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.release = math.inf


class SlidingLog:
    """At most `limit` calls in any `span` seconds.

    `ceiling` is the number allowed at present: a refusal lowers it to seven tenths of the limit, further ones by one
    down to three tenths, and every quiet minute raises it by one. `held_until` is when calls are allowed again after a
    refusal, `refusals` the number in a row. Times are monotonic seconds.
    """

    def __init__(self, limit: int, span: float, guard: float = 0.0) -> None:
        if limit < 1 or span <= 0 or guard < 0:
            raise ValueError(f"sliding log out of range: {limit=} {span=} {guard=}")
        self.limit, self.span, self.guard = limit, span, guard
        self.ceiling = limit
        self.held_until = -math.inf
        self.refusals = 0
        self._lowered = max(1, math.ceil(limit * _LOWERED))
        self._lowest = max(1, math.ceil(limit * _LOWEST))
        self._raise_at = math.inf
        self._under_way = 0
        self._releases: list[float] = []  # of answered calls, sorted

    def used(self, now: float) -> int:
        """Places taken at `now`."""
        self._prune(now)
        return self._under_way + len(self._releases)

    def empty(self, now: float) -> bool:
        """Whether the log holds nothing that still matters."""
        return not self.used(now) and now >= self.held_until and self.ceiling == self.limit

    def releases(self, now: float) -> list[float]:
        """Release times of the taken places, earliest first; a call still under way counts as answered now."""
        self._prune(now)
        return self._releases + [now + self.span + self.guard] * self._under_way

    def ready_at(self, now: float, spare: int = 0) -> float:
        """When a call may be sent that leaves `spare` places free: `now` or earlier means at once.

        Infinity when that depends on a call still under way.
        """
        releases = self._releases
        if releases and releases[0] < now:
            self._prune(now)
        if now >= self._raise_at:
            self._recover(now)
        allowed = self.ceiling - spare
        if allowed < 1:
            return math.inf
        excess = self._under_way + len(releases) - allowed + 1
        if excess <= 0:
            return self.held_until
        if excess > len(releases):
            return math.inf
        return max(self.held_until, releases[excess - 1] + TICK)

    def take(self, now: float) -> Place:
        """Count a call sent at `now`."""
        self._under_way += 1
        return Place(now)

    def answered(self, place: Place, now: float) -> None:
        """Record that the call was answered, or abandoned, at `now`."""
        self._under_way -= 1
        place.release = now + self.span + self.guard
        insort(self._releases, place.release)

    def assume_answered(self, now: float) -> None:
        """Take every call that is under way for answered at `now`. Their places must not be used afterwards."""
        for _ in range(self._under_way):
            insort(self._releases, now + self.span + self.guard)
        self._under_way = 0

    def give_back(self, place: Place) -> None:
        """Return the place of a call that was never sent."""
        self._under_way -= 1

    def restore(self, answered: float) -> None:
        """Restore a call of an earlier process, answered or abandoned at `answered`."""
        insort(self._releases, answered + self.span + self.guard)

    def accepted(self) -> None:
        """Record that a call was not refused."""
        self.refusals = 0

    def refused(self, sent: float, now: float, retry_after: float | None = None) -> None:
        """Record that a call sent at `sent` was answered at `now` with a 429 for this log.

        Every refusal holds the log. Only a call sent after the last hold ended says something new about the ceiling:
        the others were already under way.
        """
        if sent >= self.held_until:
            if self.ceiling > self._lowered:
                self.ceiling = self._lowered
            elif not self.refusals:  # calls succeeded at this ceiling: other clients use more than we left them
                self.ceiling = max(self._lowest, self.ceiling - 1)
            self.refusals += 1
        hold = HOLD * 2 ** max(0, min(self.refusals - _TOLERATED, 8))
        self.held_until = max(self.held_until, now + self.guard + max(min(hold, _LONGEST_HOLD), retry_after or 0.0))
        self._raise_at = self.held_until + _RAISE_EVERY

    def _recover(self, now: float) -> None:
        while self.ceiling < self.limit and now >= self._raise_at:
            self.ceiling += 1
            self._raise_at += _RAISE_EVERY

    def _prune(self, now: float) -> None:
        if self._releases and self._releases[0] < now:
            del self._releases[: bisect_left(self._releases, now)]
