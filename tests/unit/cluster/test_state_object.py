"""The shared state: whoever was deposed writes nothing any more, whatever answers were lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pytest

from relay_common.clock import ManualClock, SystemClock
from relay_common.errors import ConfigError
from relay_supervisor.cluster import cluster_database
from relay_supervisor.cluster.cluster_database import ClusterDatabase
from relay_supervisor.cluster.state_object import MOST_BYTES, Deposed, StateObject
from relay_supervisor.fleet.pods.api import ApiAway, Object, ResourceKind
from relay_supervisor.google.errors import NotInCommand
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.state.schema import MIGRATIONS
from relay_supervisor.state.store import Store
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects
from tests.unit.state.test_power_loss import lease


class Supervisor:
    """One process with the state."""

    def __init__(self, connection: ClusterConnection, name: str, ahead: float = 0.0) -> None:
        self.connection = connection
        self.state = StateObject(connection, "relay", name, lambda: self.in_command)
        self.clock = ManualClock(wall=1_700_000_000.0 + ahead)
        self.name, self.in_command, self.deposed = name, True, 0
        self.database: ClusterDatabase
        self.store: Store

    async def begin(self) -> Supervisor:
        content, self.key, *_ = await self.state.claim(f"key of {self.name}".encode())
        self.database = ClusterDatabase(
            content,
            self.state,
            SystemClock(),
            in_command=lambda: self.in_command,
            on_deposed=self._on_deposed,
        )
        self.store = Store(self.database, self.clock, boot=self.name, clocks_apart=2.0).open()
        self.task = asyncio.create_task(self.database.run())
        return self

    def _on_deposed(self) -> None:
        self.deposed += 1

    async def sends(self, name: str) -> None:
        await self.store.journal("acct").sending(Command(verb=Verb.EXTEND, camera=name, device=name, kind="CAMERA"))


async def supervisor(objects: ClusterObjects, name: str, ahead: float = 0.0) -> Supervisor:
    return await Supervisor(objects.connection(), name, ahead).begin()


async def test_a_deposed_supervisor_sends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    await one.sends("first")
    two = await supervisor(objects, "two")
    assert two.key == b"key of one", "workers know that key"
    with pytest.raises(NotInCommand):
        await one.sends("second")
    assert one.deposed == 1
    await two.sends("third")
    with pytest.raises(NotInCommand):
        await one.sends("fourth")
    three = await supervisor(objects, "three")
    assert {call.call.device for call in three.store.calls("acct")} == {"first", "third"}
    assert "sends nothing any more" in caplog.text


async def test_of_two_that_claim_at_once_one_sends() -> None:
    for seed in range(20):
        objects = ClusterObjects()

        async def delay(n: int, seed: int = seed) -> None:
            for _ in range((seed >> (3 * n)) % 5):
                await asyncio.sleep(0)

        pair = [Supervisor(objects.connection(lambda n=n: delay(n)), f"sup{n}") for n in range(2)]  # type: ignore[misc]
        await asyncio.gather(*(one.begin() for one in pair))
        outcomes = await asyncio.gather(*(one.sends("cam") for one in pair), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(NotInCommand) == 1, (seed, outcomes)
        for one in pair:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in pair), return_exceptions=True)


async def test_an_answer_that_was_lost_deposes_nobody() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    one.connection.deaf = True
    one.store.save_lease("acct", lease(1))
    assert not await one.database.save()
    assert "does not answer" in one.store.problem
    one.connection.deaf = False
    await one.sends("cam")
    assert (one.deposed, one.store.problem) == (0, "")


async def test_whose_it_was_is_told_although_the_answer_to_the_first_try_was_lost() -> None:
    objects = ClusterObjects()
    connection = objects.connection()
    assert (await StateObject(connection, "relay", "one").claim(b"key")).before == ""
    two = StateObject(connection, "relay", "two")
    connection.deaf = True
    list_ = connection.list
    connection.list = objects.connection().list  # type: ignore[method-assign]
    with pytest.raises(ApiAway):
        await two.claim(b"key")
    connection.deaf, connection.list = False, list_  # type: ignore[method-assign]
    assert (await two.claim(b"key")).before == "one"


async def test_a_state_that_somebody_has_deleted_is_made_anew_by_whoever_commands() -> None:
    """Otherwise no command would be sent any more, and streams would end, until somebody started it again."""
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    await one.state.save_overrides(b"{}")
    await one.sends("first")
    del objects.held["Secret", "relay-state"]
    await one.sends("second")
    two = await supervisor(objects, "two")
    assert two.key == b"key of one"
    assert [call.call.device for call in two.store.calls("acct")] == ["first", "second"]
    assert (await two.state.claim(b"")).overrides == b"{}"

    del objects.held["Secret", "relay-state"]
    two.in_command = False
    two.store.save_lease("acct", lease(1))
    assert not await two.database.save(), "another may be about to make it"
    assert ("Secret", "relay-state") not in objects.held
    two.in_command = True
    three = await supervisor(objects, "three")
    with pytest.raises(NotInCommand):
        await two.sends("third")
    assert (two.deposed, three.key) == (1, b"key of three")


async def test_of_two_that_make_a_deleted_state_anew_one_is_deposed() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    await one.sends("first")
    del objects.held["Secret", "relay-state"]
    create = one.connection.create

    async def later(kind: ResourceKind, body: Mapping[str, Any]) -> Object:
        await supervisor(objects, "two")
        return await create(kind, body)

    one.connection.create = later  # type: ignore[method-assign]
    with pytest.raises(NotInCommand):
        await one.sends("second")
    assert one.deposed == 1


async def test_while_the_server_is_away_nothing_is_sent_and_all_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_database, "WITHIN", 0.2)
    monkeypatch.setattr(cluster_database, "TOGETHER", 0.01)
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    one.connection.away = True
    with pytest.raises(NotInCommand, match="could not be written"):
        await one.sends("cam")
    one.store.save_lease("acct", lease(1))
    one.connection.away = False
    await one.database.flush(30.0)
    two = await supervisor(objects, "two")
    assert [saved.camera for saved in two.store.leases("acct")] == ["cam1"]
    gone = objects.connection()
    gone.away = True
    with pytest.raises(ApiAway):
        await StateObject(gone, "relay", "three").claim(b"")


async def test_a_lease_is_written_at_once_and_what_can_wait_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose supervisor ends in the second after Google's answer: the next one has to know of it."""
    monkeypatch.setattr(cluster_database, "TOGETHER", 60.0)
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    for number in (1, 2):  # also behind one that was written
        writes = objects.writes
        one.store.save_lease("acct", lease(number))
        async with asyncio.timeout(30.0):
            while objects.writes == writes:
                await asyncio.sleep(0.01)
    two = await supervisor(objects, "two")
    assert [saved.camera for saved in two.store.leases("acct")] == ["cam1", "cam2"]
    writes = objects.writes
    two.store.save_local_port("cam1", 5000)
    await asyncio.sleep(0.3)
    assert objects.writes == writes


async def test_whoever_is_not_in_command_does_not_even_ask() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    one.in_command = False
    writes = objects.writes
    with pytest.raises(NotInCommand, match="may be in command"):
        await one.sends("cam")
    assert objects.writes == writes


async def test_a_command_whose_entry_was_written_too_late_is_not_sent() -> None:
    """A takeover during the write: the time is over, though the server has taken it."""
    objects = ClusterObjects()
    one = await supervisor(objects, "one")

    async def slow() -> None:
        one.in_command = False

    one.connection._delay = slow
    with pytest.raises(NotInCommand, match="taken over"):
        await one.sends("cam")


async def test_many_changes_are_few_writes() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    writes = objects.writes
    for n in range(500):
        one.store.save_lease("acct", lease(n % 45, generation=n))
    await asyncio.gather(*(one.sends(f"cam{n}") for n in range(100)))
    assert objects.writes - writes <= 3


@pytest.mark.parametrize("ahead", [-2.0, 0.0, 2.0])
async def test_a_clock_that_differs_makes_no_call_older_and_no_stream_longer(ahead: float) -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    one.store.save_lease("acct", lease(1))
    await one.sends("cam")
    await one.clock.advance(50.0)
    two = await supervisor(objects, "two", ahead=50.0 + ahead)
    (call,) = two.store.calls("acct")
    (saved,) = two.store.leases("acct")
    assert two.clock.now() - 50.0 <= call.sent <= two.clock.now() - 46.0
    assert 246.0 <= saved.expires - two.clock.now() <= 250.0


async def test_an_account_of_45_cameras_is_far_from_the_bound() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    for n in range(45):
        url, handle = os.urandom(300).hex(), os.urandom(150).hex()
        one.store.database.write(
            ("lease", str(n)),
            "INSERT INTO leases VALUES ('acct', ?, ?, 'RTSP', ?, ?, 1, 1, 1, 1, 1, 'b')",
            *(f"cam{n}", f"enterprises/{os.urandom(20).hex()}/devices/{n}", url, handle),
        )
    for n in range(600):
        device = f"enterprises/{n % 45:0200d}"
        sql = "INSERT INTO calls VALUES (?, 'acct', 'ExecuteDeviceCommand', 'Extend', ?, 'CAMERA', ?, ?, 0, 0, ?)"
        one.store.database.write(("call", str(n)), sql, os.urandom(16).hex(), device, n / 7, n / 7, "b" * 36)
    assert await one.database.save()
    ((_, held),) = objects.held.items()
    size = len(held["data"]["state"]) * 3 // 4
    print(f"the state of 45 cameras with 600 calls: {size} bytes")
    assert size < MOST_BYTES / 8


async def test_a_state_that_is_too_large_is_said_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_database, "MOST_BYTES", 100)
    monkeypatch.setattr(cluster_database, "WITHIN", 0.1)
    one = await supervisor(ClusterObjects(), "one")
    with pytest.raises(NotInCommand):
        await one.sends("cam")
    while not one.store.counters()["dropped"]:
        await asyncio.sleep(0.01)
    assert "too large" in one.store.problem


@pytest.mark.parametrize("content", [b"no image", b"x\x9c", b"x\x9c\x03\x00\x00\x00\x00\x01"])
async def test_a_state_that_cannot_be_read_is_begun_anew_and_that_is_said(content: bytes) -> None:
    database = ClusterDatabase(
        content, StateObject(ClusterObjects().connection(), "relay", "c"), SystemClock(), in_command=bool
    )
    store = Store(database, ManualClock(), boot="b").open()
    assert store.leases("acct") == []
    assert "could not be used" in store.notice
    store.close()


async def test_the_state_of_a_newer_release_is_left_alone() -> None:
    objects = ClusterObjects()
    one = await supervisor(objects, "one")
    one.database._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    await one.sends("cam")
    with pytest.raises(ConfigError, match="newer release"):
        await supervisor(objects, "two")


async def test_what_was_deleted_is_in_no_image() -> None:
    one = await supervisor(ClusterObjects(), "one")
    one.store.save_lease("acct", lease(1))
    one.store.forget_lease("acct", "cam1")
    assert b"rtsps://h/1" not in one.database._connection.serialize()


async def test_a_deposed_state_object_says_so() -> None:
    objects = ClusterObjects()
    one, two = (StateObject(objects.connection(), "relay", name) for name in "12")
    await one.claim(b"")
    await two.claim(b"")
    with pytest.raises(Deposed, match="relay-state"):
        await one.save(b"x")
