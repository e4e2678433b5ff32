"""A supervisor that the holder has never heard of: it waits for long, unless Kubernetes has let the holder's Pod go."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_supervisor.cluster.election import DURATION, MOST_AWAY
from relay_supervisor.cluster.holders_pod import own_pod
from relay_supervisor.cluster.seat import MINUTE, Seat
from relay_supervisor.fleet.pods.api import LEASES, ApiRefused, Object, ResourceKind
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects

LEASE = "relay-command"


class Orphaned:
    """The holder "a" of process "s" has ended, and "b" starts afterwards."""

    def __init__(self, clock: ManualClock) -> None:
        self.objects, self.clock = ClusterObjects(), clock

    def pod(self, name: str, uid: str, ip: str = "10.0.0.1") -> None:
        self.objects.create("Pod", {"metadata": {"name": name, "uid": uid}, "status": {"podIP": ip}})

    @contextlib.asynccontextmanager
    async def seat(self, name: str, session: str, connection: ClusterConnection | None = None) -> AsyncIterator[Seat]:
        made = Seat(
            connection or self.objects.connection(),
            "relay",
            name,
            session,
            self.clock,
            f"[10.0.0.{ord(name) - 96}]:7422",
        )
        running = asyncio.ensure_future(made.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def held(self) -> None:
        async with self.seat("a", "s") as one:
            await self.passes(5.0)
            assert one.in_command

    async def passes(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            await self.clock.advance(0.5)
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
def world() -> Orphaned:
    return Orphaned(ManualClock(wall=1_700_000_000.0))


async def test_it_takes_over_within_seconds_once_the_pod_is_gone(world: Orphaned) -> None:
    world.pod("a", "u")
    await world.held()
    async with world.seat("b", "t") as other:
        await world.passes(4 * DURATION)
        assert not other.in_command, "the Pod is there, so its process may be, and go on under somebody's promises"
        world.objects.delete("Pod", "a")
        await world.passes(3.0)
        assert other.in_command
        assert other.unsure_until >= world.clock.now() - 3.0 + MINUTE, "nobody knows what that one had sent at last"


async def test_a_pod_of_the_same_name_is_another_one(world: Orphaned) -> None:
    world.pod("a", "u")
    await world.held()
    world.objects.delete("Pod", "a")
    world.pod("a", "u of a StatefulSet's next")
    async with world.seat("b", "t") as other:
        await world.passes(DURATION + 1.0)
        assert other.in_command


@pytest.mark.parametrize(
    ("uid", "ip"),
    [("", "10.0.0.1"), ("u", "10.0.0.9"), ("u", "")],
    ids=["no Pod", "another's address", "no address yet"],
)
async def test_one_that_has_not_found_its_pod_is_waited_for(world: Orphaned, uid: str, ip: str) -> None:
    """A supervisor beside the cluster has no Pod, or one that only has its name: that proves nothing."""
    if uid:
        world.pod("a", uid, ip)
    await world.held()
    if uid:
        world.objects.delete("Pod", "a")
    async with world.seat("b", "t") as other:
        await world.passes(MOST_AWAY + DURATION - 6.0)
        assert not other.in_command
        await world.passes(8.0)
        assert other.in_command
        assert other.unsure_until >= world.clock.now() - 3.0 + MINUTE


async def test_a_pod_that_an_earlier_holder_wrote_is_not_that_of_the_next(world: Orphaned) -> None:
    """One of an earlier release writes none, and leaves the annotation as it is."""
    world.pod("a", "u")
    await world.held()
    taken: dict[str, Any] = {"annotations": {"nest-relay/session": "of an earlier release"}}
    world.objects.patch("Lease", LEASE, {"metadata": taken, "spec": {"holderIdentity": "c", "renewTime": "later"}})
    async with world.seat("b", "t") as other:
        await world.passes(4 * DURATION)
        assert not other.in_command


async def test_it_waits_no_longer_where_it_may_not_look_at_pods(world: Orphaned) -> None:
    class NoPods(ClusterConnection):
        async def list(self, kind: ResourceKind, labels: dict[str, str], name: str = "") -> tuple[list[Object], str]:
            if kind is not LEASES:
                raise ApiRefused("pods is forbidden", 403)
            return await super().list(kind, labels, name)

    world.pod("a", "u")
    await world.held()
    async with world.seat("b", "t", NoPods(world.objects, world.objects.connection()._delay)) as other:
        await world.passes(MOST_AWAY + DURATION + 2.0)
        assert other.in_command


async def test_an_address_is_the_same_however_it_is_written(world: Orphaned) -> None:
    world.pod("a", "u", "fd00::5")
    assert await own_pod(world.objects.connection(), "a", "[fd00:0::5]:7422") == "u"
    assert await own_pod(world.objects.connection(), "a", "") == "", "it is told nowhere, and promises nothing"


async def test_the_time_of_the_lease_has_its_fraction_at_a_whole_second_too(world: Orphaned) -> None:
    """Kubernetes reads no other MicroTime: findings/lightkube-lease-at-a-whole-second.sh."""
    async with world.seat("a", "s") as one:
        await world.passes(2.0)
        assert one.in_command
    (lease,) = world.objects.list("Lease", {}, LEASE)
    assert re.fullmatch(r"2023-11-14T22:13:\d\d\.000000Z", lease["spec"]["renewTime"])
