"""Several accounts among several supervisors, under a schedule and faults of one seed: who commands which.

    python -m tests.simulation.spreading 300      # so many seeds

As in `standby.py`, but each process stands by for every account, with a seat, a state and a budget for each, and leaves
free ones to those that have fewer.

Invariants: of one account a command never follows one of a successor, and Google never sees more than it allows in a
minute; once nothing fails any more, every account is commanded within `TAKEOVER`, also after one is killed that had
several;
then they are spread evenly, and nothing moves any more.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from typing import Final

from relay_common.config_cluster import ClusterConfig
from relay_supervisor.cluster.account_seats import AccountSeats
from relay_supervisor.cluster.replica import Replica
from relay_supervisor.cluster.seat import CLOCKS_APART
from relay_supervisor.cluster.spreading import SETTLED
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.standby import PER_MINUTE, StandbyClock, send_while_it_may

RUN: Final = 240.0
TAKEOVER: Final = 20.0
QUIET: Final = 120.0
"""Seconds in which nothing is to move once they are spread."""
NAMES: Final = ("a", "b", "c")


class AccountChannel:
    """How the one that commands an account asks the others for promises."""

    def __init__(self, world: SpreadWorld, asker: SpreadSupervisor, account: str) -> None:
        self._world, self._asker, self._account = world, asker, account

    async def ask(self, address: str, holder: str, session: str) -> bool:
        await self._world.delay()
        other = next((one for one in self._world.alive.values() if one.address == address), None)
        if other is None or other.process.stopped or self._asker.apart or other.apart:
            await asyncio.sleep(1.0)
            return False
        given = other.replicas[self._account].seat.promises(holder, session)
        await self._world.delay()
        return given

    async def aclose(self) -> None:
        pass


class SpreadSupervisor:
    """One process, which commands the accounts whose seats it has."""

    def __init__(self, world: SpreadWorld, name: str, life: int) -> None:
        self._world, self.name, self.session = world, name, f"{name}{life}"
        self.process = Process(world.loop, self.session)
        self.clock = StandbyClock(world.loop, world.ahead[name], world.began[name])
        self.connection: ClusterConnection = world.objects.connection(world.delay)
        self.address = f"10.0.0.{ord(name)}:7422"
        self.apart = False
        self.seats = AccountSeats(name, self.clock)
        self.replicas: dict[str, Replica] = {}
        for account in world.accounts:
            self.process.spawn(self._account(account))
        self.process.spawn(self.seats.run())

    def commands(self) -> set[str]:
        return {account for account, replica in self.replicas.items() if replica.seat.in_command}

    async def _account(self, account: str) -> None:
        config = ClusterConfig(namespace="n", identity=account, replica=self.name, peer_listen=self.address)
        channel = AccountChannel(self._world, self, account)
        before = None
        while True:
            replica = Replica(self.connection, config, self.clock, lambda key, promises: channel, before=before)
            self.seats.joins(account, replica)
            self.replicas[account] = replica
            self._world.lives += 1
            replica.begin()
            await self._command(account, replica, f"{self.session}.{self._world.lives}")
            before = await replica.leave()

    async def _command(self, account: str, replica: Replica, session: str) -> None:
        try:
            _, store = await replica.take(b"key")
        except Exception:  # it was taken over before it began
            return
        await send_while_it_may(
            replica,
            store,
            self.clock,
            self._world.rng,
            session,
            (0.1, 1.0),
            lambda _: self._world.google(account, session),
        )


class SpreadWorld:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.loop = seed, SimulatedLoop(f"spreading {seed}")
        self.rng = random.Random(f"spreading/{seed}")
        self.accounts = [f"account-{number}" for number in range(self.rng.choice((2, 3, 5)))]
        self.objects, self._slow = ClusterObjects(), 0.02
        self.ahead = {name: self.rng.uniform(-1.0, 1.0) * CLOCKS_APART / 2 for name in NAMES}
        self.began = {name: self.rng.uniform(0.0, 900.0) for name in NAMES}
        self.sent: dict[str, list[tuple[float, str]]] = {account: [] for account in self.accounts}
        self.alive: dict[str, SpreadSupervisor] = {}
        self.violations: list[str] = []
        self.seats: list[AccountSeats] = []
        """Of every process that was started."""
        self.lives = self.takeovers = 0
        self.takeover = self.spread_after = 0.0

    async def delay(self) -> None:
        await asyncio.sleep(self.rng.expovariate(1.0 / self._slow))

    def google(self, account: str, session: str) -> None:
        """A command arrives."""
        now, sent = self.loop.now, self.sent[account]
        if sent and sent[-1][1] != session:
            self.takeovers += 1
            if any(other == session for _, other in sent):
                self.violations.append(f"{now:.2f}: {session} commands {account} after {sent[-1][1]} has")
        sent.append((now, session))
        if sum(now - at <= 60.0 for at, _ in sent) > PER_MINUTE:
            self.violations.append(f"{now:.2f}: more than {PER_MINUTE} commands of {account} in a minute")

    @property
    def given_up(self) -> int:
        """Accounts that were left to others."""
        return sum(one.given_up for one in self.seats)

    def commanded(self) -> Counter[str]:
        """How many accounts each one commands."""
        return Counter({name: len(one.commands()) for name, one in self.alive.items()})

    def _start(self, name: str) -> None:
        self.lives += 1
        self.alive[name] = SpreadSupervisor(self, name, self.lives)
        self.seats.append(self.alive[name].seats)

    async def _fault(self) -> None:
        name, lasts = self.rng.choice(NAMES), self.rng.choice((0.5, 3.0, 9.0, 15.0, 40.0))
        one = self.alive[name]
        match self.rng.choice(("kill", "kill", "stop", "cut", "apart", "all", "slow")):
            case "kill":
                one.process.kill()
                await asyncio.sleep(lasts / 3)
                self._start(name)
            case "stop":
                one.process.stop()
                await asyncio.sleep(lasts)
                one.process.resume()
            case "cut":
                one.connection.away = True
                await asyncio.sleep(lasts)
                one.connection.away = False
            case "apart":
                one.apart = True
                await asyncio.sleep(lasts)
                one.apart = False
            case "all":
                self.objects.away = True
                await asyncio.sleep(self.rng.uniform(0.0, 2.0 * lasts))
                self.objects.away = False
            case "slow":
                self._slow = 1.0
                await asyncio.sleep(lasts)
                self._slow = 0.02

    async def _until_all_commanded(self, what: str) -> float:
        began = self.loop.now
        while self.commanded().total() < len(self.accounts):
            await asyncio.sleep(0.1)
            if self.loop.now - began > TAKEOVER:
                self.violations.append(f"{what}: {TAKEOVER:.0f} s later only {dict(self.commanded())} are commanded")
                break
        return self.loop.now - began

    def _uneven(self) -> bool:
        counts = self.commanded()
        return counts.total() < len(self.accounts) or max(counts.values()) - min(counts.values()) > 1

    async def _script(self) -> None:
        for name in NAMES:
            self._start(name)
            await asyncio.sleep(self.rng.choice((0.0, 0.1, 5.0, 30.0)))
        end = self.loop.now + RUN
        while self.loop.now < end and not self.violations:
            await asyncio.sleep(self.rng.uniform(0.0, 25.0))
            await self._fault()
        await self._until_all_commanded("after the last fault")
        victim = self.commanded().most_common(1)[0][0]
        self.alive.pop(victim).process.kill()
        self.takeover = await self._until_all_commanded(f"after {victim} was killed")
        await asyncio.sleep(self.rng.choice((1.0, 50.0)))
        self._start(victim)
        began, most = self.loop.now, (SETTLED + TAKEOVER) * (len(self.accounts) + 1)
        while self._uneven() and self.loop.now - began < most:
            await asyncio.sleep(0.5)
        self.spread_after = self.loop.now - began
        if self._uneven():
            self.violations.append(f"after {most:.0f} s: {dict(self.commanded())}")
        await asyncio.sleep(5.0)
        before = {name: one.commands() for name, one in self.alive.items()}
        await asyncio.sleep(QUIET)
        if {name: one.commands() for name, one in self.alive.items()} != before:
            self.violations.append(f"what was spread has moved: {before}")

    def run(self) -> None:
        """Raises AssertionError with what was violated."""
        try:
            self.loop.run_until_complete(self._script())
        finally:
            self.loop.end()
        assert not self.violations, f"seed {self.seed}: {self.violations}"


def main() -> None:
    """Run many seeds."""
    found, slowest, evenly, given = [], 0.0, 0.0, 0
    for seed in range(int(sys.argv[1])):
        world = SpreadWorld(seed)
        try:
            world.run()
        except AssertionError as error:
            found.append(seed)
            print(error, flush=True)
        slowest, evenly, given = max(slowest, world.takeover), max(evenly, world.spread_after), given + world.given_up
    print(
        f"{sys.argv[1]} seeds: {len(found)} found; taken over within {slowest:.1f} s, evenly spread within "
        f"{evenly:.0f} s, {given} given up for that"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
