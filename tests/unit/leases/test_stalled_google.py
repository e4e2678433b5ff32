"""A Google that stands still for a while reads calls that were given up long before: they count all the same.

What an hour of twenty cameras showed when its simulated Google was short of a processor: calls of a stream of a minute
are given up after 10 s, 5 s and less, and tried again; all of them were read and counted at once when Google went on.
That was the eleventh command of a minute and the sixth Extend of one camera, hence a 429, which holds every command for
a minute: the stream ended, and its successor waited for the extensions of nineteen others.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from relay_common.simulation.google.quota import Accounting, Limits
from relay_supervisor.google.errors import NestTimeout
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Extension, LiveStream
from relay_supervisor.google.quota.budget import UNANSWERED
from relay_supervisor.google.quota.command import Command, Verb
from tests.unit.leases.test_book import Desk, extension, stream

TAKES = 0.1


class StallingGoogle:
    """Answers at once, but from time to time reads nothing for some seconds."""

    def __init__(self, desk: Desk, lives: dict[str, float], stalls: list[tuple[float, float]]) -> None:
        self.desk, self.lives, self.stalls = desk, lives, stalls
        self.counted = Accounting(Limits())
        self.commands = 0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = itertools.count()

    def run(self, until: float) -> None:
        desk = self.desk
        while desk.now < until:
            while (command := desk.book.poll(desk.now)) is not None:
                self._sent(command)
            due = desk.book.next_deadline(desk.now) or until
            if self._events and self._events[0][0] <= due:
                desk.now, _, happen = heapq.heappop(self._events)
                happen()
            else:
                desk.now = max(due, desk.now + 1e-6)

    def _sent(self, command: Command) -> None:
        desk, sent = self.desk, self.desk.now
        desk.book.sent(command, sent)
        read = next((end for begin, end in self.stalls if begin <= sent < end), sent) + TAKES / 2
        assert read < sent + UNANSWERED
        self._at(read, lambda: self._count(command))
        late = read - sent + TAKES > command.timeout
        result = NestTimeout("no complete answer") if late else self._answer(command)
        self._at(sent + command.timeout if late else read + TAKES / 2, lambda: self._settle(command, result))

    def _settle(self, command: Command, result: Any) -> None:
        self.desk.book.settle(command, result, self.desk.now)

    def _answer(self, command: Command) -> LiveStream | Extension:
        if command.verb is Verb.GENERATE:
            return stream(life=self.lives[command.camera])
        return extension(life=self.lives[command.camera])

    def _count(self, command: Command) -> None:
        self.commands += 1
        self.counted.execute(command.device, "CAMERA", command.call.command, self.desk.now)

    def _at(self, when: float, happen: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happen))


@pytest.mark.parametrize("phase", range(3))
def test_no_limit_is_exceeded_however_late_calls_are_read(phase: int) -> None:
    desk = Desk()
    lives = {"short": 60.0} | {f"cam{n}": 300.0 for n in range(19)}
    desk.want(*lives)
    began = desk.now
    stalls = [(began + at, began + at + 24.0) for at in range(150 + 7 * phase, 1500, 110)]
    google = StallingGoogle(desk, lives, stalls)
    google.run(began + 1500.0)
    assert google.commands > 100
    assert not google.counted.refused


def test_a_stream_of_a_minute_ends_if_google_stands_still_for_its_second_half() -> None:
    """As in the row of the clock jump: no extension can succeed in time, but a new stream does at once."""
    desk = Desk()
    desk.want("short")
    google = StallingGoogle(
        desk, {"short": 60.0}, [(desk.now + 20.0, desk.now + 49.0), (desk.now + 49.0, desk.now + 70.0)]
    )
    google.run(desk.now + 100.0)
    lease = desk.book.leases["short"]
    assert (lease.state, lease.generates, lease.extends) == (LeaseState.HELD, 2, 0)
    assert not google.counted.refused
