"""A supervisor that takes the command again, which nobody had meanwhile, need not wait for what it knows itself."""

from __future__ import annotations

import asyncio

import pytest

from relay_supervisor.cluster.election import DURATION, PROMISED
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.replica import Replica
from relay_supervisor.cluster.seat import MINUTE
from relay_supervisor.fleet.pods.api import SECRETS
from relay_supervisor.google.errors import NotInCommand
from relay_supervisor.google.quota.command import Verb
from tests.unit.cluster.test_replica import World, reached, sends, world

__all__ = ["world"]

AWAY = 20.0


async def over(world: World) -> Handover:
    """One commands, extends a stream under promises, and gets no more of these: what it leaves."""
    one, other = world.replica("a"), world.replica("b")
    store = await world.taken(one, 8.0)
    await sends(world, store, Verb.GENERATE)
    world.objects.away = True
    await world.pass_(10.0)
    assert one.status().state == "in command under promises"
    await sends(world, store, Verb.EXTEND)
    del world.promises[reached("b")]
    await world.pass_(PROMISED + 2.0)
    assert one.over.is_set()
    leaving = asyncio.ensure_future(one.leave())
    await world.pass_(6.0)
    before = await leaving
    world.replicas.remove(one)
    world.promises[reached("b")] = other.seat.promises
    assert before is not None
    return before


async def back(world: World, before: Handover | None) -> Replica:
    """The next turn of the same process, with the server back after a while, and nobody else."""
    await world.crash(world.replicas[0])
    again = world.replica("a", before=before)
    await world.pass_(AWAY)
    assert again.status().state == "standing by"
    world.objects.away = False
    return again


async def test_it_goes_on_at_once_with_what_it_knew(world: World) -> None:
    before = await over(world)
    saved = world.objects.held["Secret", "relay-state"]["data"]["state"]
    store = await world.taken(await back(world, before), 2.0)
    assert len(store.calls("acct")) == 2, "that of the Extend is in its memory alone"
    await sends(world, store, Verb.GENERATE)
    assert world.objects.held["Secret", "relay-state"]["data"]["state"] != saved


async def test_a_process_that_does_not_remember_waits_until_google_has_forgotten(world: World) -> None:
    await over(world)
    store = await world.taken(await back(world, None), 2.0)
    assert len(store.calls("acct")) == 1
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)


async def test_what_it_alone_knows_is_written_with_its_lease_until_it_is_saved(world: World) -> None:
    """It ends before that: the next process has its Lease from a second ago, and must wait all the same."""
    again = await back(world, await over(world))
    await world.pass_(2.0)
    assert again.seat.in_command
    await world.crash(again)
    store = await world.taken(world.replica("a"), 2.0)
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)


async def test_after_another_one_has_commanded_its_memory_is_not_the_last(world: World) -> None:
    before = await over(world)
    world.objects.away = False
    (other,) = world.replicas
    await world.taken(other, DURATION + 2.0)
    leaving = asyncio.ensure_future(other.leave())
    await world.pass_(6.0)
    await leaving
    again = world.replica("a", before=before)
    store = await world.taken(again, 2.0)
    assert (again.seat.goes_on, len(store.calls("acct"))) == (False, 1)
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)


async def test_another_state_is_taken_as_it_is_and_waited_for(world: World) -> None:
    """As `move` leaves it."""
    before = await over(world)
    again = await back(world, before)
    claim = {"data": {"claim": "bW92ZQ=="}}
    world.objects.patch(SECRETS.__name__, "relay-state", claim)
    store = await world.taken(again, 2.0)
    assert len(store.calls("acct")) == 1
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)


async def test_one_that_it_has_promised_to_wait_may_have_gone_on(world: World) -> None:
    before = await over(world)
    await world.crash(world.replicas[0])
    again = world.replica("a", before=before)
    await world.pass_(AWAY)
    assert again.seat.promises("zombie", "of an earlier Lease")
    world.objects.away = False
    store = await world.taken(again, PROMISED + 2.0)
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)
    await world.pass_(MINUTE)
    await sends(world, store, Verb.EXTEND)


@pytest.mark.parametrize("in_a_pod", [True, False])
async def test_a_container_that_is_started_again_in_its_pod_waits_from_its_start(world: World, in_a_pod: bool) -> None:
    """Whatever the one before it has sent, it did so until then."""
    if in_a_pod:
        found = {"metadata": {"name": "a", "uid": "1"}, "status": {"podIP": reached("a").partition(":")[0]}}
        world.objects.create("Pod", found)
    one = world.replica("a")
    await world.taken(one, 8.0)
    world.objects.away = True
    await world.pass_(30.0)
    assert one.status().state == "in command under promises"
    await world.crash(one)
    again = world.replica("a")
    await world.pass_(PROMISED + MINUTE)
    world.objects.away = False
    store = await world.taken(again, 2.0)
    if in_a_pod:
        await sends(world, store, Verb.EXTEND)
    else:
        with pytest.raises(NotInCommand, match="may not be known"):
            await sends(world, store, Verb.EXTEND)
