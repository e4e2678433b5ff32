"""A fleet of accounts on a cluster, on a manual clock: nodes and supervisors die, and Google's limits hold for each.

    python -m tests.simulation.many_accounts                      # 250 accounts of 40 cameras for two hours
    python -m tests.simulation.many_accounts --accounts 6 --hours 0.5

Accounts share machines, not budgets: a timeline says who dies when and what that costs each account, then one account
after the other is lived through (`world.py`: the real lease book, Google's simulator, a second count of its own). It is
the costly case: Google refuses a second client of a stream, so that every camera of a lost node needs a Generate.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import click

from relay_common.causes import Cause
from relay_supervisor.google.leases.effects import Granted
from relay_supervisor.google.quota.command import Verb
from tests.simulation.world import World

START: Final = 1000.0
COLD: Final = 600.0
"""Seconds in which all are generated for the first time; nothing dies meanwhile."""
CONTESTED: Final = (10.0, 12.0)
"""Seconds after a node's end in which its cameras' new workers give up: the old ones can no longer be alive."""
TAKEOVER: Final = (6.0, 20.0)
"""Seconds from a supervisor's end until another one commands its accounts."""
BACK: Final = 90.0
"""Seconds until a new supervisor, or a new node, is there."""


@dataclass(frozen=True)
class Plan:
    """What there is, and how often something dies. Rates are of each hour, of all together."""

    accounts: int = 250
    cameras: int = 40
    nodes: int = 250
    supervisors: int = 5
    seconds: float = 2 * 3600.0
    node_deaths: float = 20.0
    supervisor_deaths: float = 20.0
    seed: int = 1


@dataclass
class Fate:
    """What befalls one account: when it has nobody who commands, and when cameras of it lose their node."""

    headless: list[tuple[float, float]] = field(default_factory=list)
    lost: list[tuple[float, list[int]]] = field(default_factory=list)


class Timeline:
    """Who dies when. Supervisor n runs on node n, and dies with it."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._rng = plan, random.Random(f"{plan.seed}/timeline")
        self.fates = [Fate() for _ in range(plan.accounts)]
        self._holders = [account % plan.supervisors for account in range(plan.accounts)]
        self._away: dict[int, float] = {}
        self.node_deaths = self.supervisor_deaths = self.moves = 0
        # As the scheduler spreads the Pods of each relay: one more on a node than on another at most.
        self._places = []
        for _ in range(plan.accounts):
            nodes = self._rng.sample(range(plan.nodes), plan.nodes)
            self._places.append([nodes[camera % plan.nodes] for camera in range(plan.cameras)])
        for at, kind in self._deaths():
            if kind == "node":
                self._node_dies(self._rng.randrange(plan.nodes), at)
            else:
                self._supervisor_dies(self._rng.randrange(plan.supervisors), at)

    def _deaths(self) -> list[tuple[float, str]]:
        deaths = []
        for kind, rate in (("node", self._plan.node_deaths), ("supervisor", self._plan.supervisor_deaths)):
            at = START + COLD
            while rate and (at := at + self._rng.expovariate(rate / 3600.0)) < START + self._plan.seconds - 120.0:
                deaths.append((at, kind))
        return sorted(deaths)

    def _node_dies(self, node: int, at: float) -> None:
        self.node_deaths += 1
        for fate, places in zip(self.fates, self._places, strict=True):
            if lost := [camera for camera, place in enumerate(places) if place == node]:
                fate.lost.append((at, lost))
                self.moves += len(lost)
                for camera in lost:
                    places[camera] = self._rng.choice([other for other in range(self._plan.nodes) if other != node])
        if node < self._plan.supervisors:
            self._supervisor_dies(node, at)

    def _supervisor_dies(self, supervisor: int, at: float) -> None:
        if self._away.get(supervisor, 0.0) > at:
            return
        self.supervisor_deaths += 1
        self._away[supervisor] = at + BACK
        living = [one for one in range(self._plan.supervisors) if self._away.get(one, 0.0) <= at]
        for account, holder in enumerate(self._holders):
            if holder != supervisor:
                continue
            self.fates[account].headless.append((at, at + self._rng.uniform(*TAKEOVER)))
            if living:  # whoever has the fewest
                held = Counter(self._holders)
                self._holders[account] = min(living, key=lambda one: held[one])


class Account(World):
    """One account's world under its fate."""

    def __init__(self, plan: Plan, number: int, fate: Fate) -> None:
        super().__init__(plan.cameras, seed=plan.seed * 10_007 + number)
        self._dark: dict[str, float] = {}
        self._darkness: dict[str, list[tuple[float, float]]] = {}
        for began, over in fate.headless:
            self.at(began, self._headless)
            self.at(over, self._headed)
        for at, cameras in fate.lost:
            for camera in cameras:
                self._lose(f"cam{camera:02d}", at)

    def _headless(self) -> None:
        if self.up:
            self.crash()

    def _headed(self) -> None:
        if not self.up:
            self.start()

    def _lose(self, name: str, at: float) -> None:
        def lost() -> None:
            self._dark.setdefault(name, self.now)

        def refused() -> None:
            if not self.up:  # its worker keeps trying, and tells whoever commands next
                self.at(self.now + 1.0, refused)
            elif name in self._dark and (lease := self.book.leases.get(name)) is not None:
                self.book.media_failed(name, lease.generation, "403", self.now, Cause.STREAM_ENDED, bereft=True)

        self.at(at, lost)
        self.at(at + self.rng.uniform(*CONTESTED), refused)

    def _play(self, granted: Granted) -> None:
        super()._play(granted)
        supervisor = self.supervisor

        def live() -> None:
            if supervisor == self.supervisor and granted.camera in self._dark:
                self._darkness.setdefault(granted.camera, []).append((self._dark.pop(granted.camera), self.now))

        self.at(self.now + 2.0, live)

    @property
    def dark_for(self) -> list[float]:
        """Seconds from each loss of a camera's node until it was live again."""
        return [until - since for spells in self._darkness.values() for since, until in spells]

    @property
    def still_dark(self) -> int:
        return len(self._dark)

    def lapses(self) -> int:
        """How often a stream ended though it was wanted, and its camera had not lost its node."""
        return sum(not self._was_dark(name, at) for name, camera in self.cameras.items() for at in camera.lapses)

    def _was_dark(self, name: str, at: float) -> bool:
        spells = self._darkness.get(name, [])
        return any(since <= at <= until for since, until in spells) or self._dark.get(name, at + 1.0) <= at


@dataclass
class Outcome:
    """What became of all accounts."""

    commands: int = 0
    generates: int = 0
    refused: int = 0
    lapses: int = 0
    violations: list[str] = field(default_factory=list)
    fullest_minute: int = 0
    dark_for: list[float] = field(default_factory=list)
    still_dark: int = 0
    not_live: int = 0

    def add(self, account: Account) -> None:
        self.commands += len(account.commands)
        self.generates += account.count(Verb.GENERATE)
        self.refused += sum(status == 429 for *_, status in account.commands)
        self.lapses += account.lapses()
        self.violations += account.ledger.violations()
        arrivals = account.ledger.arrivals.get(("project", ""), [])
        self.fullest_minute = max(self.fullest_minute, account.ledger.most(arrivals, 60.0))
        self.dark_for += account.dark_for
        self.still_dark += account.still_dark
        self.not_live += len(account.cameras) - account.live()

    def dark(self, share: float) -> float:
        """Seconds after which that share of the cameras that had lost their node were live again."""
        return sorted(self.dark_for)[min(len(self.dark_for) - 1, int(share * len(self.dark_for)))]


def live_through(plan: Plan, timeline: Timeline) -> Outcome:
    """Run all accounts, one after the other."""
    outcome = Outcome()
    for number, fate in enumerate(timeline.fates):
        account = Account(plan, number, fate)
        account.run(plan.seconds)
        outcome.add(account)
    return outcome


@click.command()
@click.option("--accounts", default=Plan.accounts, show_default=True)
@click.option("--cameras", default=Plan.cameras, show_default=True, help="Of each account.")
@click.option("--nodes", default=Plan.nodes, show_default=True)
@click.option("--supervisors", default=Plan.supervisors, show_default=True)
@click.option("--hours", default=Plan.seconds / 3600, show_default=True)
@click.option("--node-deaths", default=Plan.node_deaths, show_default=True, help="An hour, of all nodes.")
@click.option("--supervisor-deaths", default=Plan.supervisor_deaths, show_default=True, help="An hour, of all.")
@click.option("--seed", default=Plan.seed, show_default=True)
def main(
    accounts: int,
    cameras: int,
    nodes: int,
    supervisors: int,
    hours: float,
    node_deaths: float,
    supervisor_deaths: float,
    seed: int,
) -> None:
    """Live through hours of a fleet, and say what it came to. Fails when a limit of Google's was exceeded."""
    plan = Plan(accounts, cameras, nodes, supervisors, hours * 3600.0, node_deaths, supervisor_deaths, seed)
    timeline = Timeline(plan)
    began = time.process_time()
    found = live_through(plan, timeline)
    took, total = time.process_time() - began, accounts * cameras
    click.echo(f"{accounts} accounts of {cameras} cameras on {nodes} nodes, {supervisors} supervisors, {hours:g} h")
    click.echo(
        f"died: {timeline.node_deaths} nodes ({timeline.moves} cameras), {timeline.supervisor_deaths} supervisors"
    )
    click.echo(
        f"commands: {found.commands} ({found.commands / plan.seconds:.1f} a second), {found.generates} Generates"
    )
    click.echo(f"fullest minute of an account: {found.fullest_minute} of 10; answers 429: {found.refused}")
    click.echo(f"limits exceeded: {len(found.violations)}; streams that ended though wanted: {found.lapses}")
    if found.dark_for:
        shares = ", ".join(f"{found.dark(share):.0f} s ({share:.0%})" for share in (0.5, 0.9, 0.99, 1.0))
        click.echo(f"cameras of lost nodes live again after {shares}; not yet: {found.still_dark}")
    click.echo(f"without a stream at the end: {found.not_live} of {total}")
    click.echo(
        f"CPU: {took:.0f} s, {took / plan.seconds / total * 1e6:.1f} µs a second and camera, simulators included"
    )
    if found.violations:
        raise click.ClickException("\n".join(found.violations[:20]))


if __name__ == "__main__":
    main()
