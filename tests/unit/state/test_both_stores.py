"""What must survive a power loss, in a file and in an object of a cluster alike."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from relay_common.clock import ManualClock, SystemClock
from relay_supervisor.cluster.cluster_database import ClusterDatabase
from relay_supervisor.cluster.state_object import StateObject
from relay_supervisor.google.quota.budget import UNANSWERED
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.store import SavedPublication, SavedWorker, Store
from tests.fixtures.cluster_objects import ClusterObjects
from tests.unit.state.test_power_loss import lease


class Home(Protocol):
    """Where a store is kept."""

    clock: ManualClock

    def opened(self) -> contextlib.AbstractAsyncContextManager[Store]:
        """The store of a supervisor whose power fails at the end."""
        ...


class FileHome:
    """A state directory."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(now=1000.0)
        self._directory, self._lives = directory, iter(range(100))
        (directory / "now").mkdir()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        store = Store(self._directory / "now" / "relay.sqlite3", self.clock, boot="b").open()
        yield store
        # Nobody closes what a power loss ends: the next finds the files as they are now.
        left = self._directory / f"left {next(self._lives)}"
        shutil.copytree(self._directory / "now", left)
        store.close()
        shutil.rmtree(self._directory / "now")
        left.rename(self._directory / "now")


class ClusterHome:
    """A namespace."""

    def __init__(self) -> None:
        self.clock = ManualClock(now=1000.0)
        self._objects, self._lives = ClusterObjects(), iter(range(100))

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        state = StateObject(self._objects.connection(), "relay", f"life {next(self._lives)}")
        content, *_ = await state.claim(b"key")
        database = ClusterDatabase(content, state, SystemClock(), in_command=lambda: True)
        store = Store(database, self.clock, boot="b", clocks_apart=2.0).open()
        writing = asyncio.create_task(database.run())
        yield store
        writing.cancel()


@pytest.fixture(params=["file", "cluster"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return FileHome(tmp_path) if request.param == "file" else ClusterHome()


def command(name: str, verb: Verb = Verb.EXTEND) -> Command:
    return Command(verb=verb, camera=name, device=name, kind="CAMERA")


async def test_a_command_that_may_be_sent_is_known_to_the_next(home: Home) -> None:
    for n in range(3):
        async with home.opened() as store:
            assert len(store.calls("acct")) == n
            await store.journal("acct").sending(command(f"cam{n}"))
            # At this very moment the power fails: the command may be on its way.
    async with home.opened() as store:
        assert [(call.call.device, call.answered) for call in store.calls("acct")] == [
            (f"cam{n}", None) for n in range(3)
        ]


async def test_commands_that_come_together_are_all_known(home: Home) -> None:
    async with home.opened() as store:
        journal = store.journal("acct")
        await asyncio.gather(*(journal.sending(command(f"cam{n}")) for n in range(40)))
    async with home.opened() as store:
        assert len(store.calls("acct")) == 40


async def test_what_was_answered_given_up_and_never_sent_is_told_apart(home: Home) -> None:
    async with home.opened() as store:
        journal = store.journal("acct")
        for name, counted_by in (("answered", 1003.0), ("given up", 1000.0 + UNANSWERED), ("not sent", None)):
            one = command(name)
            await journal.sending(one)
            journal.settled(one, counted_by)
        await store.database.flush(30.0)
    async with home.opened() as store:
        found = {call.call.device: call.answered for call in store.calls("acct")}
        assert found == {"answered": 1003.0, "given up": 1000.0 + UNANSWERED}


async def test_leases_workers_and_publications_are_those_that_were_saved_last(home: Home) -> None:
    async with home.opened() as store:
        for n in range(45):
            store.save_lease("acct", lease(n))
        store.save_lease("acct", lease(0, generation=2))
        store.forget_lease("acct", "cam1")
        store.save_worker(SavedWorker("inst", "cam0", "pod relay-inst", key="k"))
        store.save_publication(SavedPublication("cam0", "pub", "session"))
        await store.database.flush(30.0)
    async with home.opened() as store:
        found: dict[str, SavedLease] = {one.camera: one for one in store.leases("acct")}
        assert len(found) == 44
        assert found["cam0"].generation == 2
        assert found["cam0"].stream.handle.reveal() == "handle 2"
        assert [one.ref for one in store.workers()] == ["pod relay-inst"]
        assert [one.session for one in store.publications()] == ["session"]
        assert store.notice == store.problem == ""


async def test_calls_are_kept_as_long_as_a_limit_looks_back_on_them(home: Home) -> None:
    async with home.opened() as store:
        await store.journal("acct").sending(command("old"))
        await home.clock.advance(3000.0)
        await store.journal("acct").sending(command("young"))
    await home.clock.advance(800.0)
    async with home.opened() as store:
        assert [call.call.device for call in store.calls("acct")] == ["young"]
        await store.journal("acct").sending(command("new"))
    async with home.opened() as store:
        assert len(store.database.read("SELECT * FROM calls")) == 2, "and not for ever"
