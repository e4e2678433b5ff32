"""Supervisors that are alone, whose workers are Pods: of two with one identity the second touches nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.config_cluster import ClusterConfig
from relay_supervisor.cluster.election import DURATION, MOST_AWAY, STOP_AFTER
from relay_supervisor.cluster.lone import ASKS, LoneSeat, LoneState
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.cluster.seat import Seat
from relay_supervisor.fleet.pods.api import ApiRefused, Object, ResourceKind
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects

CONFIG = ClusterConfig(namespace="cameras", identity="relay")


class Machines:
    """Several, and a cluster, on one manual clock."""

    def __init__(self, directory: Path) -> None:
        self.objects, self.clock, self.directory = ClusterObjects(), ManualClock(wall=1_700_000_000.0), directory
        self.running: list[LoneSeat] = []

    async def lone(self, key: bytes, *, namesake: bool = False) -> tuple[LoneSeat, LoneState]:
        """One that has been started, and what it knew within `ASKS` seconds."""
        own = OwnLog(self.state(key))
        seat = LoneSeat(self.connection(), CONFIG, key, self.clock, own, namesake=namesake)
        self.running.append(seat)
        settling = asyncio.ensure_future(seat.settled())
        await self.passes(ASKS + 0.5)
        state = await settling
        if state is not LoneState.WAITS:
            seat.watch()
        return seat, state

    def connection(self) -> ClusterConnection:
        return self.objects.connection()

    def state(self, key: bytes) -> Path:
        """The state directory of the one with that key."""
        return self.directory / key.decode()

    async def crashes(self, seat: LoneSeat) -> None:
        self.running.remove(seat)
        await seat._loops.aclose()

    async def passes(self, seconds: float) -> None:
        step = 0.25 if seconds < MOST_AWAY else 10.0
        for _ in range(int(seconds / step)):
            await self.clock.advance(step)
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    made = Machines(tmp_path)
    yield made
    for seat in made.running:
        await seat._loops.aclose()


def connection_of(seat: LoneSeat) -> ClusterConnection:
    found = seat._seat._objects
    assert isinstance(found, ClusterConnection)
    return found


async def test_the_second_says_who_commands_and_takes_over_when_that_one_ends(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    one, state = await machines.lone(b"one")
    assert (state, one.may_change, one.problem) == (LoneState.COMMANDS, True, "")
    two, state = await machines.lone(b"two")
    assert (state, two.may_change) == (LoneState.WAITS, False)
    assert one.name in two.problem
    assert "commands the workers of the identity relay in the namespace cameras" in two.problem
    assert two.problem in caplog.text
    assert "another cluster.identity" in two.advice
    await machines.passes(30.0)
    assert (two.status().commands, two.status().holder, one.over.is_set()) == (False, one.name, False)
    leaving = asyncio.ensure_future(one.leave())
    await machines.passes(3.0)
    await leaving
    assert (two.state, two.may_change) == (LoneState.COMMANDS, True)


@pytest.mark.parametrize("waited", [True, False])
async def test_one_that_has_ended_without_a_word_is_followed_within_seconds(machines: Machines, waited: bool) -> None:
    """Whether it knew of the other or not."""
    one, _ = await machines.lone(b"one")
    if not waited:
        await machines.crashes(one)
    two, state = await machines.lone(b"two")
    assert state is LoneState.WAITS
    if waited:
        await machines.passes(10.0)
        await machines.crashes(one)
    await machines.passes(DURATION + 3.0)
    assert two.state is LoneState.COMMANDS


async def test_one_that_is_started_again_with_its_state_goes_on_at_once(machines: Machines) -> None:
    one, _ = await machines.lone(b"one")
    await machines.lone(b"two")
    await machines.passes(5.0)
    await machines.crashes(one)
    _, state = await machines.lone(b"one")
    assert state is LoneState.COMMANDS


async def test_who_has_stopped_waiting_keeps_nobody_from_going_on_without_the_api_server(machines: Machines) -> None:
    one, _ = await machines.lone(b"one")
    two, _ = await machines.lone(b"two")
    await machines.passes(5.0)
    assert list(one._seat.others) == [two.name]
    await two.leave()
    await machines.passes(3.0)
    assert not one._seat.others
    machines.objects.away = True
    await machines.passes(STOP_AFTER + 30.0)
    assert not one.over.is_set(), "there is nobody who could take over"


async def test_who_gives_the_lease_up_is_none_that_stands_by_for_the_next(machines: Machines) -> None:
    one, _ = await machines.lone(b"one")
    two, _ = await machines.lone(b"two")
    await machines.passes(5.0)
    await one.leave()
    await machines.passes(3.0)
    assert two.state is LoneState.COMMANDS
    three, _ = await machines.lone(b"three")
    await two.leave()
    await machines.passes(3.0)
    assert three.state is LoneState.COMMANDS
    assert not three._seat.others


async def test_without_the_api_server_it_runs_and_changes_nothing(machines: Machines) -> None:
    machines.objects.away = True
    one, state = await machines.lone(b"one")
    assert (state, one.may_change) == (LoneState.UNKNOWN, False)
    await machines.passes(30.0)
    assert not one.over.is_set()
    machines.objects.away = False
    await machines.passes(2.0)
    assert one.may_change
    machines.objects.away = True
    await machines.passes(STOP_AFTER + 1.0)
    assert not one.may_change
    await machines.passes(MOST_AWAY + 30.0)
    assert not one.over.is_set(), "there is nobody else"
    machines.objects.away = False
    await machines.passes(2.0)
    assert one.may_change


async def test_one_that_hears_of_another_later_ends(machines: Machines, caplog: pytest.LogCaptureFixture) -> None:
    await machines.lone(b"one")
    cut = machines.objects.connection()
    cut.away = True
    machines.connection = lambda: cut  # type: ignore[method-assign]
    two, state = await machines.lone(b"two")
    assert state is LoneState.UNKNOWN
    cut.away = False
    await machines.passes(2.0)
    assert two.over.is_set()
    assert not two.may_change
    assert "leaves its workers alone" in caplog.text


async def test_one_that_is_cut_off_ends_before_one_that_waits_takes_over(machines: Machines) -> None:
    one, _ = await machines.lone(b"one")
    two, _ = await machines.lone(b"two")
    await machines.passes(5.0)
    connection_of(one).away = True
    await machines.passes(STOP_AFTER + 2.5)
    assert (one.over.is_set(), two.state) == (True, LoneState.WAITS)
    await machines.passes(DURATION)
    assert two.state is LoneState.COMMANDS


async def test_without_the_right_to_leases_it_only_warns(machines: Machines, caplog: pytest.LogCaptureFixture) -> None:
    connection = machines.objects.connection()

    async def forbidden(*_: Any) -> tuple[list[Object], str]:
        raise ApiRefused("leases is forbidden", 403)

    connection.list = forbidden  # type: ignore[method-assign]
    machines.connection = lambda: connection  # type: ignore[method-assign]
    one, state = await machines.lone(b"one")
    assert (state, one.may_change) == (LoneState.UNPROTECTED, True)
    assert "may not use Leases in cameras" in caplog.text
    await machines.passes(30.0)
    assert (one.may_change, one.over.is_set()) == (True, False)


async def test_another_refusal_is_no_such_right(machines: Machines) -> None:
    connection = machines.objects.connection()

    async def refused(kind: ResourceKind, body: Mapping[str, Any]) -> Object:
        raise ApiRefused("the namespace ends", 422)

    connection.create = refused  # type: ignore[method-assign]
    machines.connection = lambda: connection  # type: ignore[method-assign]
    one, state = await machines.lone(b"one")
    assert (state, one.may_change) == (LoneState.UNKNOWN, False)


async def test_it_waits_for_those_that_stand_by_for_each_other_and_they_for_it(machines: Machines) -> None:
    replica = Seat(machines.objects.connection(), "relay", "pod-1", "s", machines.clock)
    running = asyncio.ensure_future(replica.run())
    await machines.passes(5.0)
    one, state = await machines.lone(b"one")
    assert (state, "pod-1" in one.problem) == (LoneState.WAITS, True)
    releasing = asyncio.ensure_future(replica.release())
    await machines.passes(3.0)
    await releasing
    running.cancel()
    assert one.state is LoneState.COMMANDS
    later = Seat(machines.objects.connection(), "relay", "pod-2", "t", machines.clock)
    running = asyncio.ensure_future(later.run())
    await machines.passes(30.0)
    assert (one.state, later.in_command) == (LoneState.COMMANDS, False)
    await machines.crashes(one)
    await machines.passes(DURATION + 3.0)
    assert later.in_command
    running.cancel()


async def test_of_two_with_a_copy_of_one_state_the_first_ends_and_waits(machines: Machines) -> None:
    one, _ = await machines.lone(b"one")
    two, state = await machines.lone(b"one")
    assert state is LoneState.COMMANDS
    await machines.passes(3.0)
    assert (one.over.is_set(), one.namesake) == (True, True)
    await one.leave()
    machines.running.remove(one)
    again, state = await machines.lone(b"one", namesake=True)
    assert (state, "same state directory" in again.problem) == (LoneState.WAITS, True)
    assert two.may_change
