"""Supervisors that stand by for each other, under a schedule and faults of one seed: who commands, and with what quota.

    python -m tests.simulation.standby 300 [1000]      # so many seeds, from that one on

Seat, state object, state database, store and budget are the real ones; the API server is simulated, with delays, lost
answers and partitions, and so are the processes, which are killed, stopped and continued, on machines whose clocks
differ by up to two seconds, and their Pods, which outlast them and are followed by others of other names. A process
stands by and commands in turns, as `commands/standby.py` does. Every supervisor in command sends as many commands as
its budget allows.

Invariants: a command of one supervisor never follows one of its successor; Google never sees more than it allows in a
minute, across every takeover; under promises nothing but extensions is sent; once nothing fails any more, somebody
commands within `TAKEOVER`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from relay_common.config_cluster import ClusterConfig
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.replica import Replica
from relay_supervisor.cluster.seat import CLOCKS_APART
from relay_supervisor.cluster.state_object import Deposed
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.quota.budget import Budget
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.state.store import Store
from tests.fixtures.cluster_objects import ClusterConnection, ClusterObjects
from tests.simulation.loop import Process, SimulatedLoop

RUN: Final = 240.0
"""Seconds of faults."""
TAKEOVER: Final = 20.0
PER_MINUTE: Final = 10


class StandbyClock:
    """A machine's clocks: its wall clock is `ahead`, and its monotonic clock began at another time."""

    def __init__(self, loop: SimulatedLoop, ahead: float, began: float) -> None:
        self._loop, self._ahead, self._began = loop, ahead, began

    def now(self) -> float:
        return self._loop.now - self._began

    def wall(self) -> float:
        return 1_700_000_000.0 + self._loop.now + self._ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class StandbyChannel:
    """How one asks the others for promises."""

    def __init__(self, world: StandbyWorld, asker: StandbySupervisor) -> None:
        self._world, self._asker = world, asker

    async def ask(self, address: str, holder: str, session: str) -> bool:
        await self._world.delay()
        other = next((one for one in self._world.alive.values() if one.address == address), None)
        reached = other is not None and other.process.alive and not other.process.stopped
        if other is None or not reached or self._asker.apart or other.apart:
            await asyncio.sleep(1.0)
            return False
        given = other.replica.seat.promises(holder, session)
        await self._world.delay()
        return given

    async def aclose(self) -> None:
        pass


class StandbySupervisor:
    """One process that sends commands while it may."""

    def __init__(self, world: StandbyWorld, name: str, life: int) -> None:
        self._world, self.name, self._life, self._turns = world, name, life, 0
        self.process = Process(world.loop, f"{name}.{life}")
        pod = world.pods[name]
        self.clock = StandbyClock(world.loop, pod.ahead, pod.began)
        self.connection: ClusterConnection = world.objects.connection(world.delay)
        self.apart = False
        """The other supervisors do not reach it."""
        self.address = pod.address
        self._begin(None)
        self.process.spawn(self._run())

    def _begin(self, before: Handover | None) -> None:
        """Another turn, after one that has left that."""
        self._turns += 1
        self.session = f"{self.name}.{self._life}.{self._turns}"
        config = ClusterConfig(namespace="n", identity="relay", replica=self.name, peer_listen=self.address)
        channel = StandbyChannel(self._world, self)
        self.replica = Replica(self.connection, config, self.clock, lambda key, promises: channel, before=before)

    async def _run(self) -> None:
        while True:
            self.replica.begin()
            with contextlib.suppress(Deposed):
                await self._command()
            self._begin(await self.replica.leave())

    async def _command(self) -> None:
        _, store = await self.replica.take(b"key")
        await send_while_it_may(
            self.replica,
            store,
            self.clock,
            self._world.rng,
            self.session,
            (0.01, 0.5),
            functools.partial(self._world.google, self),
        )


async def send_while_it_may(
    replica: Replica,
    store: Store,
    clock: StandbyClock,
    rng: random.Random,
    session: str,
    pauses: tuple[float, float],
    sent: Callable[[Verb], object],
) -> None:
    """Send Google as many commands of `session` as the budget allows, `pauses` apart (seconds, from and to), until the
    replica is to command no more; `sent` is called as each arrives.
    """
    store.open()
    budget, journal = Budget(limits_from()), store.journal("acct")
    budget.restore(store.calls("acct"))
    number = 0
    while not replica.over.is_set():
        await clock.sleep(rng.uniform(*pauses))
        number += 1
        camera = f"{session}.{number}"
        verb = rng.choice((Verb.EXTEND, Verb.EXTEND, Verb.GENERATE))
        command = Command(verb=verb, camera=camera, device=camera, kind="CAMERA")
        if budget.ready_at(command.call, clock.now()) > clock.now():
            continue
        ticket = budget.take(command.call, clock.now())
        try:
            await journal.sending(command)
        except NestError:
            journal.settled(command, None)
            budget.give_back(ticket)
            continue
        sent(verb)
        await clock.sleep(rng.uniform(0.05, 2.0))
        budget.answered(ticket, clock.now())
        journal.settled(command, clock.now())


class StandbyPod(NamedTuple):
    """Where the processes of one name run, one after the other: a machine's clocks, and the address of the Pod."""

    ahead: float
    began: float
    address: str


class StandbyWorld:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.loop = seed, SimulatedLoop(f"standby {seed}")
        self.rng = random.Random(f"standby/{seed}")
        self.objects = ClusterObjects()
        self._slow = 0.02
        self.pods: dict[str, StandbyPod] = {}
        self.sent: list[tuple[float, str]] = []
        self.alive: dict[str, StandbySupervisor] = {}
        self.violations: list[str] = []
        self.takeovers: list[float] = []
        self.under_promises = self.retaken = 0
        self.takeover = 0.0
        self._lives = 0

    async def delay(self) -> None:
        await asyncio.sleep(self.rng.expovariate(1.0 / self._slow))

    def google(self, sender: StandbySupervisor, verb: Verb) -> None:
        """A command arrives."""
        now, name = self.loop.now, sender.session
        if not sender.replica.seat.in_command:
            self.under_promises += 1
            if verb is not Verb.EXTEND:
                self.violations.append(f"{now:.2f}: {name} sends a {verb.value} under promises")
        if self.sent and self.sent[-1][1] != name:
            if any(other == name for _, other in self.sent):
                self.violations.append(f"{now:.2f}: {name} commands after {self.sent[-1][1]} has")
            self.takeovers.append(now - self.sent[-1][0])
            self.retaken += sender.replica.seat.goes_on
        self.sent.append((now, name))
        if sum(now - at <= 60.0 for at, _ in self.sent) > PER_MINUTE:
            self.violations.append(f"{now:.2f}: more than {PER_MINUTE} commands in a minute")

    def _begin(self) -> None:
        """Start one in a Pod of its own."""
        number = len(self.pods) + 1
        name, address = f"pod-{number}", f"10.0.0.{number}"
        ahead = self.rng.uniform(-1.0, 1.0) * CLOCKS_APART / 2
        self.pods[name] = StandbyPod(ahead, self.rng.uniform(0.0, 900.0), f"{address}:7422")
        made = {"metadata": {"name": name, "uid": f"uid-{number}"}, "status": {"podIP": address}}
        self.objects.create("Pod", made)
        self._start(name)

    def _start(self, name: str) -> None:
        if (before := self.alive.get(name)) is not None:
            before.process.kill()  # a Pod's container never runs twice at once
        self._lives += 1
        self.alive[name] = StandbySupervisor(self, name, self._lives)

    async def _fault(self) -> None:
        name = self.rng.choice(sorted(self.alive))
        one, lasts = self.alive[name], self.rng.choice((0.5, 3.0, 9.0, 15.0, 40.0))
        match self.rng.choice(("kill", "lost", "split", "stop", "cut", "deaf", "apart", "alone", "all", "all", "slow")):
            case "kill":
                one.process.kill()
                await asyncio.sleep(lasts / 3)
                self._start(name)
            case "lost":
                await self._lost(self.rng.sample(sorted(self.alive), self.rng.randint(1, len(self.alive))), lasts)
            case "split":
                await self._split(lasts)
            case "stop":
                one.process.stop()
                await asyncio.sleep(lasts)
                if one.process.alive:
                    one.process.resume()
            case "cut":
                one.connection.away = True
                await asyncio.sleep(lasts)
                one.connection.away = False
            case "deaf":
                one.connection.deaf = True
                await asyncio.sleep(lasts)
                one.connection.deaf = False
            case "apart":
                one.apart = True
                await asyncio.sleep(lasts)
                one.apart = False
            case "alone":
                await self._alone(one, lasts)
            case "all":
                self.objects.away = True
                await asyncio.sleep(self.rng.uniform(0.0, 2.0 * lasts))
                if self.rng.random() < 0.5:
                    one.process.kill()
                    await asyncio.sleep(self.rng.uniform(0.0, lasts))
                    self._start(name)
                    await asyncio.sleep(self.rng.uniform(0.0, lasts))
                self.objects.away = False
            case "slow":
                self._slow = 1.5
                await asyncio.sleep(lasts)
                self._slow = 0.02

    async def _alone(self, one: StandbySupervisor, lasts: float) -> None:
        """The API server is away, and after a while, in which promises are given, `one` reaches no other, either."""
        self.objects.away = True
        await asyncio.sleep(self.rng.uniform(0.0, lasts))
        one.apart = True
        await asyncio.sleep(self.rng.uniform(0.0, 2.0 * lasts))
        for back in self.rng.sample(("server", "others"), 2):
            if back == "server":
                self.objects.away = False
            else:
                one.apart = False
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))

    async def _lost(self, names: list[str], lasts: float) -> None:
        """Nodes are lost, and others follow before Kubernetes lets the Pods go that were there, or after."""
        lost = [self.alive.pop(name) for name in names]
        for one in lost:
            one.process.kill()
        for step in self.rng.sample(("begin", "let go"), 2):
            await asyncio.sleep(self.rng.uniform(0.0, lasts))
            for one in lost:
                if step == "begin":
                    self._begin()
                else:
                    self.objects.delete("Pod", one.name)

    async def _split(self, lasts: float) -> None:
        """All are cut off from the API server, and one starts meanwhile that is not: nobody has heard of it."""
        before = list(self.alive.values())
        for one in before:
            one.connection.away = True
        await asyncio.sleep(self.rng.uniform(0.0, 20.0))
        self._begin()
        await asyncio.sleep(3.0 * lasts)
        for one in before:
            one.connection.away = False
        await asyncio.sleep(self.rng.uniform(0.0, lasts))
        await self._end(self.rng.choice(sorted(self.alive)))

    async def _end(self, name: str) -> None:
        self.alive.pop(name).process.kill()
        await asyncio.sleep(self.rng.uniform(0.0, 5.0))
        self.objects.delete("Pod", name)

    async def _script(self) -> None:
        for _ in range(3):
            self._begin()
            await asyncio.sleep(self.rng.choice((0.0, 0.1, 5.0)))
        end = self.loop.now + RUN
        while self.loop.now < end and not self.violations:
            await asyncio.sleep(self.rng.uniform(0.0, 25.0))
            await self._fault()
        await asyncio.sleep(TAKEOVER)
        if not any(one.replica.seat.in_command for one in self.alive.values()):
            self.violations.append(f"{TAKEOVER:.0f} s after the last fault nobody commands")
        victim = next((one for one in self.alive.values() if one.replica.seat.in_command), None)
        if victim is not None:
            victim.process.kill()
            del self.alive[victim.name]
            killed = self.loop.now
            while not any(one.replica.seat.in_command for one in self.alive.values()):
                await asyncio.sleep(0.1)
                if self.loop.now - killed > TAKEOVER:
                    self.violations.append("the takeover from a killed supervisor takes too long")
                    break
            self.takeover = self.loop.now - killed

    def run(self) -> None:
        """Raises AssertionError with what was violated."""
        try:
            self.loop.run_until_complete(self._script())
        finally:
            self.loop.end()
        assert not self.violations, f"seed {self.seed}: {self.violations}"


def main() -> None:
    """Run many seeds."""
    found, slowest, retaken = [], 0.0, 0
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for seed in range(first, first + int(sys.argv[1])):
        world = StandbyWorld(seed)
        try:
            world.run()
        except AssertionError as error:
            found.append(seed)
            print(error, flush=True)
        slowest, retaken = max(slowest, world.takeover), retaken + world.retaken
    print(f"{sys.argv[1]} seeds: {len(found)} found; taken over from a killed one within {slowest:.1f} s")
    print(f"{retaken} times one went on with what it knew itself")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
