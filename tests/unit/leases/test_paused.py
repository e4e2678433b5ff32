"""After a pause of the supervisor: what has life left is extended first, what has ended is generated in order."""

from __future__ import annotations

import random

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google import errors
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, Extension, LiveStream
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from
from tests.unit.leases.test_book import Desk, stream

LIVES = {"full": 300.0, "barely": 215.0, **{f"ended {n}": 120.0 for n in range(6)}, "watched": 120.0}
"""Lifetimes in seconds; "watched" is a camera on demand."""
PAUSE = 180.0


class Google:
    """Grants and extends every stream at once; `sent` are the commands with their moments."""

    def __init__(self) -> None:
        self.book, self.now = LeaseBook(limits_from(), rng=random.Random(7)), 1000.0
        self.sent: list[tuple[float, Command]] = []
        for camera in LIVES:
            device = Device(f"enterprises/p/devices/{camera}", camera, "CAMERA", camera, (Protocol.RTSP,))
            self.book.want(camera, device, self.now, on_demand=camera == "watched")

    def run(self, until: float) -> None:
        while self.now < until:
            while (command := self.book.poll(self.now)) is not None:
                self.sent.append((self.now, command))
                self.book.sent(command, self.now)
                life, secret = LIVES[command.camera], Secret("x")
                if command.verb is Verb.GENERATE:
                    url = Secret("rtsps://h/p?auth=t")
                    self.book.settle(command, LiveStream(Protocol.RTSP, secret, life, 0.0, url=url), self.now)
                else:
                    self.book.settle(command, Extension(secret, life, 0.0, secret), self.now)
                self.book.media_live(command.camera, self.book.leases[command.camera].generation, self.now)
            deadline = self.book.next_deadline(self.now)
            self.now = min(until, max(deadline or until, self.now + 1e-6))


def test_after_a_pause_streams_with_life_left_go_first_and_each_that_ended_costs_one_generate() -> None:
    google = Google()
    google.run(1010.0)
    assert [command.verb for _, command in google.sent] == [Verb.GENERATE] * len(LIVES)
    google.sent.clear()
    google.now += PAUSE
    google.run(google.now + 70.0)
    first = google.sent[: len(LIVES)]
    assert (first[0][1].verb, first[0][1].camera) == (Verb.EXTEND, "barely")
    generated = [command.camera for _, command in google.sent if command.verb is Verb.GENERATE]
    assert generated == [f"ended {n}" for n in range(6)] + ["watched"], "in order, and one each"
    assert max(at for at, command in google.sent if command.verb is Verb.GENERATE) < 1010.0 + PAUSE + 61.0
    within = [sum(at - 60.0 < other <= at for other, _ in google.sent) for at, _ in google.sent]
    assert max(within) <= 10, "Google's limit of a minute"
    assert {lease.state for lease in google.book.leases.values()} == {LeaseState.HELD}


@pytest.mark.parametrize(("paused", "left"), [(70.0, 30.0), (180.0, 0.0)])
def test_a_lock_out_of_googles_ends_while_the_supervisor_stands_still(paused: float, left: float) -> None:
    """What it kept back goes at once after a pause that outlasts it, and not a command more than is allowed."""
    desk = Desk()
    desk.want(*(f"camera {n}" for n in range(20)))
    desk.step(errors.RateLimited("429", bucket="ExecuteDeviceCommand", retry_after=100.0))
    desk.now += paused
    back, sent = desk.now, list[float]()
    while len(sent) < 20:
        assert desk.step(stream()).verb is Verb.GENERATE
        sent.append(desk.now)
    assert left <= sent[0] - back <= left + 2.0
    within = [sum(at - 60.0 < other <= at for other in sent) for at in sent]
    assert max(within) <= 10, "Google's limit of a minute"
