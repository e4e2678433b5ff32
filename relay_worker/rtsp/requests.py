"""Pending requests: numbered, matched with their answers (RFC 2326 §12.17) and timed out."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from relay_worker.media.stream import Track

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pending:
    """A pending request."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    track: Track | None = None
    retried: bool = False
    keepalive: bool = False
    until: float = math.inf
    """When its answer is overdue (monotonic seconds)."""


class PendingRequests:
    """The requests of one session; no request waits longer than `timeout` seconds.

    `unmatched` counts answers to nothing that waits, `misnumbered` those that were taken although their number is not
    the request's, `unanswered` keep-alives that were given up: no fault while media flows.
    """

    def __init__(self, timeout: float) -> None:
        self.unmatched = self.misnumbered = self.unanswered = 0
        self._timeout = timeout
        self._number = 0
        self._waiting: dict[int, Pending] = {}
        self._given_up = 0  # number of the last keep-alive that was

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pending: Pending, now: float) -> int:
        """The next CSeq."""
        self._number += 1
        pending.until = now + self._timeout
        self._waiting[self._number] = pending
        return self._number

    def answered(self, number: int | None) -> Pending | None:
        """The request that an answer with this number is for, which waits no longer; None where there is none."""
        waiting = self._waiting
        if number is None:
            # Some servers omit CSeq: they answer in order.
            pending = waiting.pop(min(waiting, default=0), None)
        else:
            pending = waiting.pop(number, None)
            if pending is None and len(waiting) == 1 and not 0 < number <= self._given_up:
                # Others send 0, or always the same number: it can only be this request's answer.
                (expected,) = waiting
                pending = waiting.pop(expected)
                self._misnumbered(number, expected)
        if pending is None:
            self.unmatched += 1
        return pending

    def _misnumbered(self, number: int, expected: int) -> None:
        self.misnumbered += 1
        if self.misnumbered == 1:
            log.info("the camera answers request %d with CSeq %d: taken as its answer", expected, number)

    def waiting(self) -> str:
        """Methods of the requests that have no answer so far, keep-alives included."""
        return ", ".join(waits.method for waits in self._waiting.values())

    def overdue(self, now: float) -> list[str]:
        """Methods of the requests whose answer should have come by now and must."""
        return [waits.method for waits in self._waiting.values() if now >= waits.until and not waits.keepalive]

    def deadline(self) -> float | None:
        """When the first answer that must come is overdue; None when none must."""
        return min((pending.until for pending in self._waiting.values() if not pending.keepalive), default=None)

    def give_up_keepalives(self) -> None:
        """The next one is due: earlier unanswered ones never will be answered."""
        for number in [number for number, pending in self._waiting.items() if pending.keepalive]:
            del self._waiting[number]
            self.unanswered += 1
            self._given_up = number
