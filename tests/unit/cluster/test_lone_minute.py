"""What supervisors that are alone know of the commands of the last minute, when one takes the Lease after another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay_common.config import LimitsConfig
from relay_supervisor.cluster.election import DURATION
from relay_supervisor.cluster.lone import LoneSeat, LoneState
from relay_supervisor.cluster.own_log import FILE, OwnLog
from relay_supervisor.cluster.seat import MINUTE
from relay_supervisor.google.errors import MinuteUnknown
from relay_supervisor.google.leases.account_errors import AccountErrors
from relay_supervisor.google.quota.budget import Budget
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.state.store import STATE_FILE, Store
from tests.unit.cluster.test_lone import Machines

LIMIT = 10


class Lone:
    """One supervisor: its seat, and the commands that it sends as fast as its own quota log lets it."""

    def __init__(self, machines: Machines, key: bytes, seat: LoneSeat, sent: list[float]) -> None:
        self.seat, self._clock, self._sent = seat, machines.clock, sent
        path = machines.state(key) / STATE_FILE
        self.store = Store(path, self._clock, boot="one", unsure_until=lambda: seat.unsure_until).open()
        self._budget, self._journal = Budget(limits_from(LimitsConfig())), self.store.journal("home")
        self._budget.restore(self.store.calls("home"))
        self.refused = 0

    async def send(self) -> None:
        """What is allowed now, as long as it commands."""
        for number in range(LIMIT):
            command = Command(verb=Verb.GENERATE, camera="c", device=f"d{self._clock.now()}.{number}")
            now = self._clock.now()
            if self.seat.state is not LoneState.COMMANDS or self._budget.ready_at(command.call, now) > now:
                return
            try:
                await self._journal.sending(command)
            except MinuteUnknown:
                self.refused += 1
                return
            now = self._clock.now()
            self._sent.append(now)
            self._budget.answered(self._budget.take(command.call, now), now)
            self._journal.settled(command, now)


class Relay:
    """Several supervisors of one identity, one after the other, and all that Google gets of them."""

    def __init__(self, machines: Machines) -> None:
        self.machines, self.sent = machines, list[float]()
        self.lones: list[Lone] = []

    async def begins(self, key: bytes) -> Lone:
        seat, _ = await self.machines.lone(key)
        self.lones.append(Lone(self.machines, key, seat, self.sent))
        return self.lones[-1]

    async def passes(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            await self.machines.passes(1.0)
            for lone in self.lones:
                await lone.send()

    async def ends(self, lone: Lone, *, killed: bool) -> None:
        self.lones.remove(lone)
        lone.store.close()
        if killed:
            await self.machines.crashes(lone.seat)
            return
        leaving = asyncio.ensure_future(lone.seat.leave())
        while not leaving.done():
            await self.machines.passes(1.0)
        self.machines.running.remove(lone.seat)

    @property
    def most(self) -> int:
        """Commands in any 60 seconds."""
        return max(sum(0 <= at - begin < MINUTE for at in self.sent) for begin in self.sent)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    made = Relay(Machines(tmp_path))
    yield made
    for lone in made.lones:
        lone.store.close()
    for seat in made.machines.running:
        await seat._loops.aclose()


@pytest.mark.parametrize("killed", [True, False])
async def test_the_one_that_takes_over_keeps_googles_limit(relay: Relay, killed: bool) -> None:
    one, two = await relay.begins(b"one"), await relay.begins(b"two")
    await relay.passes(5.0)
    assert len(relay.sent) == LIMIT, "all that a minute has"
    await relay.ends(one, killed=killed)
    ended = relay.machines.clock.now()
    await relay.passes(DURATION + 5.0)
    assert two.seat.state is LoneState.COMMANDS
    assert two.refused, "it does not know what the other has sent"
    assert len(relay.sent) == LIMIT
    await relay.passes(MINUTE + 5.0)
    assert len(relay.sent) == 2 * LIMIT
    assert relay.sent[LIMIT] <= ended + DURATION + 5.0 + MINUTE, "and waits no longer"
    assert relay.most == LIMIT


@pytest.mark.parametrize("killed", [True, False])
async def test_one_that_is_started_again_goes_on_with_its_own_log(relay: Relay, killed: bool) -> None:
    one = await relay.begins(b"one")
    await relay.passes(50.0)
    await relay.ends(one, killed=killed)
    again = await relay.begins(b"one")
    assert again.seat.state is LoneState.COMMANDS
    await relay.passes(15.0)
    assert (again.refused, relay.most) == (0, LIMIT)
    assert len(relay.sent) == 2 * LIMIT, "a minute after the first, as if nothing had been"


async def test_a_minute_that_was_not_known_is_not_known_to_the_next_life_either(relay: Relay) -> None:
    one = await relay.begins(b"one")
    two = await relay.begins(b"two")
    await relay.passes(5.0)
    await relay.ends(one, killed=False)
    await relay.passes(5.0)
    await relay.ends(two, killed=True)
    again = await relay.begins(b"two")
    await relay.passes(5.0)
    assert again.seat.state is LoneState.COMMANDS
    assert again.refused
    await relay.passes(MINUTE + 5.0)
    assert (len(relay.sent), relay.most) == (2 * LIMIT, LIMIT)


async def test_without_its_state_it_is_another_one(relay: Relay, tmp_path: Path) -> None:
    one = await relay.begins(b"one")
    await relay.passes(5.0)
    await relay.ends(one, killed=True)
    for file in relay.machines.state(b"one").iterdir():
        file.unlink()
    again = await relay.begins(b"one")
    await relay.passes(20.0)
    assert again.refused
    await relay.passes(MINUTE)
    assert relay.most == LIMIT


def test_it_is_said_until_when_nothing_is_sent() -> None:
    errors = AccountErrors(random.Random(1))
    assert errors.failed(MinuteUnknown(41.5), 0.0, 0.0) == 41.5, "and not tried before"
    assert errors.cause[0].value == "quota_unknown"


def test_a_log_that_cannot_be_written_is_nobodys(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    own = OwnLog(file)
    own.begin("host/1")
    assert (own.knows("host/1"), own.last) == (False, "")
    own = OwnLog(tmp_path)
    for number in range(150):
        own.begin(f"host/{number}")
    assert (own.knows("host/0"), own.knows("host/149"), own.last) == (False, True, "host/149")
    assert len((tmp_path / FILE).read_text().split()) == 100
