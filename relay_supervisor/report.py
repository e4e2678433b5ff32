"""Reports on the whole supervisor: the status, the health and the counters that the HTTP interface shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.cloudflare import SfuClient
from relay_common.counters import joined
from relay_supervisor.cameras.director import NOBODY_WATCHES, Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.cameras.status import camera_status, totals
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.google.leases.account import Account
from relay_supervisor.http.metrics import Telemetry
from relay_supervisor.operations.verbs import Verbs
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.state.store import Store
from relay_supervisor.status.health import Health, PartStatus, judge
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus
from relay_supervisor.supervise import Loops
from relay_supervisor.viewing.verdicts import Verdicts
from relay_supervisor.viewing.viewers import Viewers


@dataclass(frozen=True)
class Parts:
    """The parts of a supervisor that a report reads."""

    clock: Clock
    store: Store
    registry: Registry
    client: SfuClient
    broker: Broker
    bus: Bus
    fleet: Fleet
    director: Director
    viewers: Viewers
    verdicts: Verdicts
    verbs: Verbs
    accounts: Sequence[Account]
    discoveries: Sequence[Discovery]
    loops: Loops
    activities: Loops


class Report:
    """Status, health and counters, read from the parts at each call."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._began = parts.clock.now()
        self._socket: Callable[[], dict[str, int]] = dict

    def listen(self, socket: Callable[[], dict[str, int]]) -> None:
        """Include the counters of the HTTP interface."""
        self._socket = socket

    def status(self) -> RelayStatus:
        """The current status of the whole relay."""
        parts, now = self._parts, self._parts.clock.now()
        cameras = [self._camera(camera, now) for camera in parts.registry]
        return RelayStatus(
            version=VERSION,
            at=parts.clock.wall(),
            uptime=now - self._began,
            totals=totals(cameras, viewers=len(parts.viewers)),
            budgets=[self._budget(index, account) for index, account in enumerate(parts.accounts)],
            cameras=cameras,
            counters=self._counters(),
        )

    def health(self) -> Health:
        """Whether the relay works, and if not, why."""
        parts = self._parts
        found = [PartStatus(name="store", ok=not parts.store.problem, reason=parts.store.problem)]
        found += [
            PartStatus(name="leases", ok=account.running, reason="" if account.running else "its task has ended")
            for account in parts.accounts
        ]
        problems = parts.loops.problems | parts.activities.problems
        found += [PartStatus(name=name, ok=False, reason=reason) for name, reason in problems.items()]
        status = self.status()
        if not status.cameras:
            # Nothing is wanted because nothing is known yet, which does not count as healthy.
            found += [PartStatus(name="discovery", ok=not d.problem, reason=d.problem) for d in parts.discoveries]
        return judge(status, found)

    def telemetry(self) -> Telemetry:
        """Counters that are not in the status."""
        parts = self._parts
        counted = Telemetry(
            sfu=parts.client.meter, restarts=parts.director.restart_causes, views=parts.viewers.outcomes
        )
        for account in parts.accounts:
            counted.command_wait.add(account.leases.book.queue.waits)
        return counted

    def _counters(self) -> dict[str, int]:
        parts = self._parts
        accounts = {f"account_{index}": account.counters() for index, account in enumerate(parts.accounts)}
        return joined(
            bus=parts.bus.counters(),
            socket=self._socket(),
            sfu=parts.client.counters(),
            publications=parts.broker.counters(),
            loop=parts.fleet.counters(),
            **accounts,
            views=parts.viewers.counters(),
            verdicts=parts.verdicts.counters(),
            store=parts.store.counters(),
            loops=parts.loops.counters(),
            activities=parts.activities.counters(),
        )

    def _budget(self, index: int, account: Account) -> BudgetStatus:
        budget = account.leases.budget()
        budget.auth_warning = self._parts.verbs.auth_warning(index)
        return budget

    def _camera(self, camera: Camera, now: float) -> CameraStatus:
        parts = self._parts
        live, verdict = parts.broker.locate(camera.id), parts.verdicts.verdict(camera.id)
        return camera_status(
            camera,
            why_not=parts.registry.why_not(camera),
            idle=NOBODY_WATCHES if parts.director.demand.idle(camera) else "",
            lease=parts.accounts[camera.account].leases.lease(camera.id),
            slot=parts.fleet.slot(camera.id),
            publication=live.id if live is not None else "",
            now=now,
            picture=(verdict.decodable.value, verdict.stage, verdict.reason),
        )
