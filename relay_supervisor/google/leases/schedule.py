"""Which leases of an account are served, and what is queued for each: the planner's arithmetic applied to them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from relay_supervisor.google.leases import planner
from relay_supervisor.google.leases.lease import Lease
from relay_supervisor.google.leases.states import ALIVE, LeaseState
from relay_supervisor.google.quota.budget import Budget
from relay_supervisor.google.quota.queue import CommandQueue

_USUAL_LATENCY: Final = 0.5
_LEAST_ASSUMED: Final = 60.0
"""Shortest lifetime in seconds assumed for a lease without a stream: one camera's failures must not keep others out."""
_DEAR: Final = 3.0
"""A lease that costs this many times the usual is the first to lose its place."""
_STARTING: Final = frozenset({LeaseState.WANTED, LeaseState.GENERATING})


class Schedule:
    """Admits as many of `leases` as fit in the budget, and keeps in `queue` what each admitted one wants next."""

    def __init__(self, budget: Budget, queue: CommandQueue, leases: Mapping[str, Lease]) -> None:
        self.budget, self.queue, self.leases = budget, queue, leases
        self.admitted: set[str] = set()
        self._sharing = 0
        """Leases that extensions are spread over: those with a stream, and those that are about to have one."""

    def rate(self, calls: int) -> float:
        """Commands per second that `calls` places sustain."""
        api = self.budget.api
        return calls / (api.span + api.guard + _USUAL_LATENCY)

    def capacity(self) -> int:
        """Number of cameras that fit in the budget at the lifetime Google usually grants at present."""
        return planner.capacity(self.rate(self.budget.api.limit), self._usual_life())

    def _usual_life(self) -> float:
        lives = [lease.life for lease in self.leases.values() if lease.state in ALIVE]
        return statistics.median_low(lives) if lives else planner.ASSUMED_LIFE

    def rearrange(self, now: float) -> None:
        """Admit and plan all leases again, after the set of cameras or their cost changed."""
        wanting = [
            lease for lease in self.leases.values() if lease.state not in (LeaseState.RELEASED, LeaseState.PARKED)
        ]
        life = self._usual_life()
        assumed = max(life, _LEAST_ASSUMED)
        dear = _DEAR * planner.Load("", life).rate

        def place(lease: Lease) -> tuple[bool, bool, float]:
            return lease.on_demand, lease.camera not in self.admitted, max(lease.load(assumed).rate, dear)

        wanting.sort(key=place)
        loads = [lease.load(assumed) for lease in wanting]
        self.admitted = planner.admit(loads, self.rate(self.budget.api.limit))
        alive = sum(lease.state in ALIVE for lease in wanting)
        self._sharing = alive + sum(self._starts(lease) for lease in wanting)
        api = self.budget.api
        self.queue.reserve = planner.reserve(api.limit, alive, life, 1 / self.rate(1))
        for lease in wanting:
            self.plan(lease, now)

    def _starts(self, lease: Lease) -> bool:
        return lease.state in _STARTING and not lease.on_demand and lease.camera in self.admitted

    def plan(self, lease: Lease, now: float) -> None:
        """Queue the command that the lease wants next."""
        self.queue.cancel(lease.camera)
        if lease.camera not in self.admitted:
            return
        margin = planner.margin(lease.life, self._sharing, self.rate(self.budget.api.ceiling))
        pace = self.budget.limits.device_pace(lease.device.kind)
        command = lease.wanted_command(now, margin=margin, pace=pace)
        if command is not None:
            self.queue.submit(command)
