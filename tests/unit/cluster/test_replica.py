"""A supervisor among others: what it takes over, tells, and leaves."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.config_cluster import ClusterConfig
from relay_supervisor.cluster.cluster_database import image_of
from relay_supervisor.cluster.election import DURATION
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.lone import LoneSeat, LoneState
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.cluster.replica import ACCOUNT_COMMANDS, COMMANDS_LABEL, Replica
from relay_supervisor.cluster.seat import MINUTE
from relay_supervisor.cluster.state_object import Deposed, StateObject
from relay_supervisor.fleet.pods.api import LEASES, PODS, SECRETS, ApiRefused, Object, ResourceKind
from relay_supervisor.google.errors import MinuteUnknown, NotInCommand
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.state.store import Store
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects


class Direct:
    """Asks the others of this process."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, address: str, holder: str, session: str) -> bool:
        asked = self._world.promises.get(address)
        return asked is not None and asked(holder, session)

    async def aclose(self) -> None:
        pass


def reached(name: str) -> str:
    return f"10.0.0.{ord(name)}:7422"


class World:
    """Several, and a cluster with their Pods, on one manual clock."""

    def __init__(self) -> None:
        self.objects, self.clock = ClusterObjects(), ManualClock(wall=1_700_000_000.0)
        self.promises: dict[str, Callable[[str, str], bool]] = {}
        self.replicas: list[Replica] = []
        self.remembered: list[str] = []
        self.keys: list[str] = []
        """Those that others were asked, and answered, with."""

    def replica(
        self,
        name: str,
        *,
        namesake: bool = False,
        remembered: str = "",
        among_accounts: bool = False,
        before: Handover | None = None,
    ) -> Replica:
        config = ClusterConfig(namespace="n", identity="relay", replica=name, peer_listen=reached(name))

        def channel(key: str, promises: Callable[[str, str], bool]) -> Direct:
            self.keys.append(key)
            self.promises[config.peer_listen] = promises
            return Direct(self)

        made = Replica(
            self.objects.connection(),
            config,
            self.clock,
            channel,
            namesake=namesake,
            among_accounts=among_accounts,
            remembered=remembered,
            remember=self.remembered.append,
            before=before,
        )
        made.begin()
        self.replicas.append(made)
        return made

    async def crash(self, replica: Replica) -> None:
        """It ends without a word."""
        self.replicas.remove(replica)
        del self.promises[replica._config.peer_listen]
        await replica._loops.aclose()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            await self.clock.advance(0.5)
            await self.settle()

    async def taken(self, replica: Replica, within: float) -> Store:
        taking = asyncio.ensure_future(replica.take(b"key"))
        await self.pass_(within)
        assert taking.done()
        key, store = taking.result()
        assert key == b"key"
        return store.open()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.objects.away = False
    for replica in made.replicas:
        leaving = asyncio.ensure_future(replica.leave())
        while not leaving.done():
            await made.pass_(1.0)


async def sends(world: World, store: Store, verb: Verb) -> None:
    """Raises NotInCommand."""
    sending = asyncio.ensure_future(store.journal("acct").sending(Command(verb=verb, camera="c", device="c")))
    await world.pass_(3.0)
    await sending


async def test_one_commands_and_the_other_takes_over_with_its_quota_log(world: World) -> None:
    for name in ("a", "b"):
        await world.objects.connection().create(PODS, {"metadata": {"name": name}})
    one = world.replica("a")
    store = await world.taken(one, 1.0)
    await sends(world, store, Verb.GENERATE)
    other = world.replica("b")
    taking = asyncio.ensure_future(other.take(b"another key"))
    await world.pass_(6.0)
    assert (one.status().state, one.status().others) == ("in command", ["b"])
    seat = other.status()
    assert (seat.state, seat.commands, seat.holder, seat.known) == ("standing by", False, "a", True)
    leaving = asyncio.ensure_future(one.leave())
    await world.pass_(4.0)
    assert leaving.done()
    key, store = await taking
    assert key == b"key"
    assert len(store.open().calls("acct")) == 1
    await sends(world, store, Verb.GENERATE)
    labels = {name: world.objects.held["Pod", name]["metadata"].get("labels") for name in ("a", "b")}
    assert labels == {"a": {}, "b": {COMMANDS_LABEL: "relay"}}, "Services lead to the one that commands"


async def test_why_the_state_cannot_be_claimed_is_told_and_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As with half of the Role: the seat is its own, and nothing happens."""
    one = world.replica("a")
    connection = one._objects
    assert isinstance(connection, ClusterConnection)
    create = connection.create

    async def forbidden(kind: ResourceKind, body: Mapping[str, Any]) -> Object:
        if kind is SECRETS:
            raise ApiRefused("secrets is forbidden", 403)
        return await create(kind, body)

    connection.create = forbidden  # type: ignore[method-assign]
    taking = asyncio.ensure_future(one.take(b"key"))
    await world.pass_(30.0)
    assert one.status().problem == "the state in the cluster cannot be claimed: secrets is forbidden"
    assert caplog.text.count("secrets is forbidden") == 1
    connection.create = create  # type: ignore[method-assign]
    await world.pass_(2.0)
    assert taking.done()
    assert one.status().problem == ""


async def test_a_channel_that_failed_is_closed_before_the_next_one_listens(world: World) -> None:
    channels: list[Failing] = []

    class Failing(Direct):
        closed = False

        async def ask(self, address: str, holder: str, session: str) -> bool:
            assert all(one.closed for one in channels if one is not self)
            if len(channels) == 1:
                raise OSError("too many open files")
            return await super().ask(address, holder, session)

        async def aclose(self) -> None:
            self.closed = True

    def channel(key: str, promises: Callable[[str, str], bool]) -> Direct:
        channels.append(Failing(world))
        return channels[-1]

    one = Replica(
        world.objects.connection(),
        ClusterConfig(namespace="n", identity="relay", replica="a", peer_listen=reached("a")),
        world.clock,
        channel,
    )
    one.begin()
    world.replicas.append(one)
    await world.taken(one, 1.0)
    world.replica("b")
    await world.pass_(7.0)
    world.objects.away = True
    await world.pass_(20.0)
    assert len(channels) == 2
    assert one.status().state == "in command under promises"


async def test_of_two_with_one_name_the_second_commands_and_the_first_says_what_is_wrong(world: World) -> None:
    """A container that was started again has the name of the one before it, so the record is taken at once, once."""
    one = world.replica("a")
    await world.taken(one, 2.0)
    assert not one.seat.namesake
    other = world.replica("a")
    await world.taken(other, 4.0)
    await world.pass_(3.0)
    assert one.over.is_set()
    assert one.seat.namesake
    again = world.replica("a", namesake=True)
    taking = asyncio.ensure_future(again.take(b"key"))
    await world.pass_(60.0)
    assert not taking.done()
    assert other.seat.in_command
    assert "the same name" in again.status().problem
    assert other.status().problem == ""
    taking.cancel()


async def test_objects_whose_labels_somebody_has_removed_are_found(world: World) -> None:
    one = world.replica("a")
    store = await world.taken(one, 2.0)
    await sends(world, store, Verb.EXTEND)
    for held in world.objects.held.values():
        held["metadata"].pop("labels", None)
    await world.pass_(10.0)
    await one.leave()
    store = await world.taken(world.replica("b"), 3.0)
    assert len(store.calls("acct")) == 1


async def test_a_clock_that_was_wrong_does_not_keep_the_next_one_from_commanding(world: World) -> None:
    """What a holder says of the time until which it is not known what was sent may be no more than a minute ahead."""
    one = world.replica("a")
    await world.taken(one, 2.0)
    await one.leave()
    for wrong in (f"{world.clock.wall() + 86_400:.3f}", "inf", "nan", "tomorrow"):
        note = {"metadata": {"annotations": {"nest-relay/unsure-until": wrong}}}
        world.objects.patch("Lease", "relay-command", note)
        two = world.replica("b")
        store = await world.taken(two, 3.0)
        await world.pass_(75.0)
        await sends(world, store, Verb.EXTEND)
        await two.leave()


@pytest.mark.parametrize(("killed", "moved"), [(False, True), (False, False), (True, False)])
async def test_after_one_that_was_alone_the_minute_is_known_where_its_log_was_moved(
    world: World, tmp_path: Path, killed: bool, moved: bool
) -> None:
    config, own = ClusterConfig(namespace="n", identity="relay"), OwnLog(tmp_path)
    lone = LoneSeat(world.objects.connection(), config, b"key", world.clock, own)
    settling = asyncio.ensure_future(lone.settled())
    await world.pass_(2.5)
    assert await settling is LoneState.COMMANDS
    if killed:
        await lone._loops.aclose()
    else:
        await lone.leave()
    if moved:
        await StateObject(world.objects.connection(), "relay", own.last).claim(b"key")
    store = await world.taken(world.replica("a"), DURATION + 3.0)
    if moved:
        await sends(world, store, Verb.GENERATE)
        return
    with pytest.raises(MinuteUnknown):
        await sends(world, store, Verb.EXTEND)
    await world.pass_(MINUTE)
    await sends(world, store, Verb.EXTEND)


async def test_services_lead_to_the_one_that_commands_whatever_becomes_of_the_label(world: World) -> None:
    objects = world.objects

    def labelled() -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in objects.list("Pod", {COMMANDS_LABEL: "relay"}))

    for name in ("a", "b"):
        labels = {COMMANDS_LABEL: "relay"} if name == "b" else {}  # of the one that commanded before
        objects.create("Pod", {"metadata": {"name": name, "labels": labels}})
    one = world.replica("a")
    connection = one._objects
    assert isinstance(connection, ClusterConnection)
    patch, ended = connection.patch, []

    async def after_the_end(kind: ResourceKind, name: str, change: Mapping[str, Any]) -> Object:
        if name == "b" and not ended:
            ended.append(objects.held.pop(("Pod", "b")))  # between the list and the change
        return await patch(kind, name, change)

    connection.patch = after_the_end  # type: ignore[method-assign]
    await world.taken(one, 2.0)
    assert ended
    assert labelled() == ["a"]

    objects.patch("Pod", "a", {"metadata": {"labels": {COMMANDS_LABEL: None}}})
    objects.create("Pod", {"metadata": {"name": "b", "labels": {COMMANDS_LABEL: "relay"}}})  # deposed, and late
    await world.pass_(11.0)
    assert labelled() == ["a"]


async def test_a_pod_has_a_label_for_each_account_that_it_commands(world: World) -> None:
    another = {f"{ACCOUNT_COMMANDS}relay-shop": "true"}
    for name in ("a", "b"):
        world.objects.create("Pod", {"metadata": {"name": name, "labels": dict(another)}})
    one, other = (world.replica(name, among_accounts=True) for name in ("a", "b"))
    await world.taken(one, 2.0)
    labels = {name: world.objects.held["Pod", name]["metadata"]["labels"] for name in ("a", "b")}
    assert labels == {"a": another | {f"{ACCOUNT_COMMANDS}relay": "true"}, "b": another}
    taking, leaving = asyncio.ensure_future(other.take(b"key")), asyncio.ensure_future(one.leave())
    await world.pass_(16.0)
    assert (taking.done(), leaving.done()) == (True, True)
    labels = {name: world.objects.held["Pod", name]["metadata"]["labels"] for name in ("a", "b")}
    assert labels == {"a": another, "b": another | {f"{ACCOUNT_COMMANDS}relay": "true"}}


async def test_one_that_gives_the_seat_up_does_so_though_others_register_just_then(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    await world.taken(one, 6.0)
    taking = asyncio.ensure_future(other.take(b"key"))
    await world.pass_(4.0)
    # As a registration does: the record has another version than the one that the holder knows.
    note = {"metadata": {"annotations": {"peers.nest-relay/c": "{}"}}}
    await world.objects.connection().patch(LEASES, "relay-command", note)
    leaving = asyncio.ensure_future(one.leave())
    await world.pass_(4.0)
    assert leaving.done()
    assert other.seat.in_command, "it did not have to wait until the command lapses"
    await taking


async def test_one_that_is_cut_off_alone_is_over_before_the_other_takes_over(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    store = await world.taken(one, 6.0)
    connection = one._objects
    assert isinstance(connection, ClusterConnection)
    connection.away = True
    await world.pass_(9.0)
    assert one.over.is_set()
    assert not one.in_command
    assert not other.seat.in_command
    with pytest.raises(NotInCommand):
        await sends(world, store, Verb.EXTEND)
    await world.taken(other, DURATION)


async def test_whoever_could_not_claim_the_state_in_time_leaves_it_to_the_next(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    await world.pass_(6.0)
    assert one.seat.in_command
    connection = one._objects
    assert isinstance(connection, ClusterConnection)
    connection.away = True
    taking = asyncio.ensure_future(one.take(b"key"))
    await world.pass_(9.0)
    store = await world.taken(other, DURATION)
    connection.away = False
    await world.pass_(6.0)
    with pytest.raises(Deposed, match="b took over before"):
        await taking
    await sends(world, store, Verb.GENERATE)
    assert not other.over.is_set(), "it would be, if its state were claimed"


async def test_without_the_api_server_streams_are_extended_and_their_entries_written_later(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    store = await world.taken(one, 8.0)
    world.objects.away = True
    await world.pass_(60.0)
    assert one.status().state == "in command under promises"
    assert not one.over.is_set()
    await sends(world, store, Verb.EXTEND)
    for verb in (Verb.GENERATE, Verb.STOP):
        with pytest.raises(NotInCommand):
            await sends(world, store, verb)
    assert not one.in_command, "Pods are not changed"
    world.objects.away = False
    await world.pass_(5.0)
    assert one.status().state == "in command"
    assert other.status().state == "standing by"
    await sends(world, store, Verb.GENERATE)


@pytest.mark.parametrize(("remembered", "extends"), [("key", True), ("", False)])
async def test_one_that_is_started_anew_without_the_api_server_promises_with_the_key_that_it_remembers(
    world: World, remembered: str, extends: bool
) -> None:
    one, other = world.replica("a"), world.replica("b")
    store = await world.taken(one, 8.0)
    assert world.remembered == ["key", "key"], "both keep it for their next lives"
    world.objects.away = True
    await world.pass_(8.0)
    await world.crash(other)
    again = world.replica("b", remembered=remembered)
    await world.pass_(60.0)
    assert one.over.is_set() != extends
    if extends:
        await sends(world, store, Verb.EXTEND)
        world.objects.away = False
        await world.pass_(6.0)
        assert (one.status().state, again.status().state) == ("in command", "standing by")
        assert again.key == "key"


async def test_one_that_stands_by_takes_up_a_key_that_was_replaced(world: World) -> None:
    """As `move --replace` does, while nobody commands; whoever commands next has it."""
    one, other = world.replica("a"), world.replica("b")
    await world.taken(one, 8.0)
    assert world.keys == world.remembered == ["key", "key"]
    await world.crash(one)
    connection = other._objects
    assert isinstance(connection, ClusterConnection)
    connection.away = True
    await world.pass_(2.0)
    world.objects.patch("Secret", "relay-state", {"data": {"bus.key": base64.b64encode(b"another").decode()}})
    taken = {"annotations": {"nest-relay/session": "of the next"}}
    world.objects.patch("Lease", "relay-command", {"metadata": taken, "spec": {"holderIdentity": "c"}})
    connection.away = False
    await world.pass_(4.0)
    assert (other.key, other.status().state) == ("another", "standing by")
    assert world.keys == world.remembered == ["key", "key", "another"]
    await world.pass_(20.0)
    assert len(world.keys) == 3, "it is not read for ever"


async def test_who_takes_over_after_promises_waits_until_google_has_forgotten(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    await world.taken(one, 8.0)
    world.objects.away = True
    await world.pass_(20.0)
    connection = one._objects
    assert isinstance(connection, ClusterConnection)
    connection.away = True  # it will not see the server again
    world.objects.away = False
    store = await world.taken(other, 20.0)
    with pytest.raises(NotInCommand, match="may not be known"):
        await sends(world, store, Verb.EXTEND)
    await world.pass_(65.0)
    await sends(world, store, Verb.EXTEND)


async def test_a_relay_that_was_alone_brings_its_state_along(world: World, tmp_path: Path) -> None:
    alone = Store(tmp_path / "relay.sqlite3", world.clock, boot="of one machine").open()
    await alone.journal("acct").sending(Command(verb=Verb.EXTEND, camera="c", device="c"))
    alone.close()
    one = world.replica("a")
    taking = asyncio.ensure_future(one.take(b"key", lambda: image_of(tmp_path / "relay.sqlite3")))
    await world.pass_(1.0)
    _, store = taking.result()
    assert [call.call.device for call in store.open().calls("acct")] == ["c"]
    (tmp_path / "torn").write_bytes(b"no database")
    assert image_of(tmp_path / "torn") == image_of(tmp_path / "absent") == b""


async def test_what_people_switched_on_and_off_is_known_to_the_next_one(world: World) -> None:
    one, other = world.replica("a"), world.replica("b")
    await world.taken(one, 6.0)
    written = [b""]

    async def overrides() -> bytes:
        return written[0]

    one.follow(overrides)
    await world.pass_(3.0)
    written[0] = b"{}"
    world.objects.away = True
    await world.pass_(3.0)
    world.objects.away = False
    await world.pass_(3.0)
    leaving = asyncio.ensure_future(one.leave())
    await world.taken(other, 6.0)
    await leaving
    assert other.overrides == b"{}"
