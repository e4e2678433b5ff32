"""The network goes away and comes back: what never reached Google says nothing about a camera, and costs nothing."""

from __future__ import annotations

import random

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.errors import (
    AuthorizationRevoked,
    ClientRefused,
    NestError,
    NotExtendable,
    NotReached,
    TokenUnavailable,
)
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.command import Result, Verb
from relay_supervisor.google.quota.limits import limits_from

UNREACHED = NotReached("ConnectError: Temporary failure in name resolution")


class World:
    """A book, the time, and a Google that is gone from `gone` until `back`."""

    def __init__(self, *cameras: str, error: NestError = UNREACHED) -> None:
        self.book = LeaseBook(limits_from(), rng=random.Random(7))
        self.now, self.gone, self.back, self.error = 1000.0, 0.0, 0.0, error
        self.tried: list[float] = []
        for camera in cameras:
            device = Device(f"enterprises/p/devices/{camera}", camera, "CAMERA", camera, (Protocol.RTSP,))
            self.book.want(camera, device, self.now)

    def run(self, until: float) -> None:
        while self.now < until:
            while (command := self.book.poll(self.now)) is not None:
                self.book.sent(command, self.now)
                if self.gone <= self.now < self.back:
                    self.tried.append(self.now)
                    self.book.settle(command, self.error, self.now)
                else:
                    self.book.settle(command, self._granted(command.verb), self.now)
                if command.camera:
                    self.book.media_live(command.camera, self.book.leases[command.camera].generation, self.now)
            deadline = self.book.next_deadline(self.now)
            self.now = min(until, max(deadline or until, self.now + 1e-6))

    @staticmethod
    def _granted(verb: Verb) -> Result:
        match verb:
            case Verb.GENERATE:
                return LiveStream(Protocol.RTSP, Secret("x"), 300.0, 0.0, url=Secret("rtsps://h/p?auth=t"))
            case Verb.EXTEND:
                return Extension(Secret("x"), 300.0, 0.0, Secret("t"))
            case Verb.LIST:
                return Listing([])
            case _:
                return None


def test_cameras_that_start_while_names_cannot_be_resolved_are_neither_failing_nor_late() -> None:
    world = World("door", "yard")
    world.gone, world.back = 1000.0, 1055.0
    world.run(1055.0)
    assert len(world.tried) >= 5, "it looks again every few seconds"
    assert world.book.budget.api.used(world.now) == 0, "nothing arrived, nothing is counted"
    assert world.book.queue.recent(world.now) == [], "and the status says so"
    for lease in world.book.leases.values():
        assert (lease.state, lease.failures, lease.degraded) == (LeaseState.WANTED, 0, False)
    assert "name resolution" in world.book.account_error
    world.run(1055.0 + 12.0)
    assert [lease.state for lease in world.book.leases.values()] == [LeaseState.HELD] * 2
    assert world.book.account_error == ""


def test_streams_live_through_a_minute_without_a_network() -> None:
    world = World("door")
    world.run(1140.0)
    world.gone, world.back = 1140.0, 1200.0
    world.run(1320.0)
    lease = world.book.leases["door"]
    assert world.tried
    assert (lease.generates, lease.failures) == (1, 0)
    assert lease.extends >= 1


@pytest.mark.parametrize("error", [AuthorizationRevoked("invalid_grant"), ClientRefused("invalid_client")])
def test_streams_live_through_a_refused_token_that_works_again(error: NestError) -> None:
    """The hour's row of a token revoked for 45 s cost twenty streams: nothing was sent for five minutes."""
    world = World("door", "yard", error=error)
    world.run(1140.0)
    world.gone, world.back = 1140.0, 1230.0
    world.run(1320.0)
    assert 2 <= len(world.tried) <= 4
    for lease in world.book.leases.values():
        assert (lease.state, lease.generates, lease.failures) == (LeaseState.HELD, 1, 0)


@pytest.mark.parametrize(("left", "most"), [(30.0, 10.0), (280.0, 30.0), (1.5, 1.0)])
def test_an_extension_may_take_a_third_of_what_is_left(left: float, most: float) -> None:
    world = World("door")
    world.run(1001.0)
    world.now = world.book.leases["door"].expires - left
    command = world.book.poll(world.now)
    while command is None:
        world.now = world.book.next_deadline(world.now) or world.now
        left = world.book.leases["door"].expires - world.now
        most = min(30.0, left / 3)
        command = world.book.poll(world.now)
    assert command.verb is Verb.EXTEND
    assert command.timeout == pytest.approx(most)


def test_the_first_success_of_any_call_ends_the_wait() -> None:
    world = World("door", error=TokenUnavailable("down"))
    world.gone, world.back = 1000.0, 1200.0
    world.run(1200.0)
    wait = world.book.queue.held_until - world.now
    assert wait > 1.0
    world.book.list_devices(world.now)
    world.run(world.now + 0.5)
    assert world.book.leases["door"].state is LeaseState.HELD


@pytest.mark.parametrize("error", [UNREACHED, TokenUnavailable("down")])
def test_a_stop_that_was_never_sent_leaves_the_stream_as_it_is(error: NestError) -> None:
    world = World("door")
    world.run(1001.0)
    lease = world.book.leases["door"]
    while (command := world.book.poll(world.now)) is None:
        world.now = world.book.next_deadline(world.now) or world.now
    world.book.settle(command, NotExtendable("no"), world.now)
    while (command := world.book.poll(world.now)) is None:
        world.now = world.book.next_deadline(world.now) or world.now
    assert command.verb is Verb.STOP
    generation = lease.generation
    world.book.settle(command, error, world.now)
    assert (lease.state, lease.generation) == (LeaseState.HELD, generation)
    world.run(world.now + 60.0)
    assert (lease.state, lease.generates) == (LeaseState.HELD, 2)
