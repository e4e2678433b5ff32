"""Reports on the whole supervisor: the status, the health and the counters that the HTTP interface shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from relay_common import VERSION
from relay_common.causes import Cause, cause_of
from relay_common.clock import Clock
from relay_common.cloudflare import SfuClient
from relay_common.counters import joined
from relay_supervisor.cameras.director import NOBODY_WATCHES, Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.cameras.status import camera_status, totals
from relay_supervisor.cameras.verdict import REFUSED_TOKEN, CameraFacts, sfu_cause
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.google.leases.account import Account
from relay_supervisor.http.metrics import Telemetry
from relay_supervisor.local.service import LocalViewing
from relay_supervisor.operations.verbs import Verbs
from relay_supervisor.renditions.service import Renditions
from relay_supervisor.sinks.cloudflare import sfu_error
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.store import Store
from relay_supervisor.status.health import Health, PartStatus, judge
from relay_supervisor.status.history import LOOK, VerdictHistory
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus, SeatStatus, SinkStatus
from relay_supervisor.status.verdict import StatusVerdict, duration, verdict
from relay_supervisor.supervise import Loops
from relay_supervisor.viewing.verdicts import Verdicts
from relay_supervisor.viewing.viewers import Viewers

CLOCK_SKEW: Final = 30.0
"""Seconds by which this machine's clock may differ from Google's Date header, which is a few old at most."""
_FAILED: Final = frozenset({Cause.TOKEN_REVOKED, Cause.CLIENT_REFUSED, Cause.PROJECT_REFUSED})
"""Problems that only a person can end, while every picture ends."""


@dataclass(frozen=True)
class Parts:
    """The parts of a supervisor that a report reads."""

    clock: Clock
    store: Store
    registry: Registry
    client: SfuClient
    sinks: Sinks
    bus: Bus
    fleet: Fleet
    director: Director
    viewers: Viewers
    local: LocalViewing
    renditions: Renditions
    verdicts: Verdicts
    verbs: Verbs
    accounts: Sequence[Account]
    discoveries: Sequence[Discovery]
    loops: Loops
    activities: Loops
    seat: Callable[[], SeatStatus]
    tell: Callable[[str, str, str], object]
    """Publishes an event: its kind, its text and the camera's id."""


class Report:
    """Status, health and counters, read from the parts at each call."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._began = parts.clock.now()
        self._history = VerdictHistory(parts.tell)
        self._socket: Callable[[], dict[str, int]] = dict

    def listen(self, socket: Callable[[], dict[str, int]]) -> None:
        """Include the counters of the HTTP interface."""
        self._socket = socket

    def status(self) -> RelayStatus:
        """The current status of the whole relay."""
        parts, now = self._parts, self._parts.clock.now()
        cameras = [self._camera(camera, now) for camera in parts.registry]
        budgets = [self._budget(index, account) for index, account in enumerate(parts.accounts)]
        return RelayStatus(
            version=VERSION,
            at=parts.clock.wall(),
            uptime=now - self._began,
            totals=totals(cameras, viewers=len(parts.viewers) + len(parts.local)),
            budgets=budgets,
            cameras=cameras,
            counters=self._counters(),
            problems=self._problems(budgets),
            sinks=self._sinks(),
            local=parts.local.on,
            seat=parts.seat(),
        )

    def _sinks(self) -> list[SinkStatus]:
        sfu = [SinkStatus(kind="cloudflare")] if self._parts.sinks.at_sfu else []
        return sfu + [
            SinkStatus(name=sink.name, kind="whip", place=sink.place, encrypted=sink.place.startswith("https:"))
            for sink in self._parts.sinks.whip()
        ]

    async def watch(self) -> None:
        """Log and publish every second what has begun to be wrong, and what is over; runs until cancelled."""
        while True:
            await self._parts.clock.sleep(LOOK)
            self._history.observe(self.status())

    def health(self) -> Health:
        """Whether the relay works, and if not, why."""
        parts = self._parts
        found = [PartStatus(name="store", ok=not parts.store.problem, reason=parts.store.problem)]
        found += [
            PartStatus(
                name=f"leases of {whose}" if (whose := self._one_of_several(account)) else "leases",
                ok=account.running,
                reason="" if account.running else "its task has ended",
            )
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
            publications=parts.sinks.counters(),
            loop=parts.fleet.counters(),
            **accounts,
            views=parts.viewers.counters(),
            local=parts.local.counters(),
            renditions=parts.renditions.counters(),
            verdicts=parts.verdicts.counters(),
            store=parts.store.counters(),
            loops=parts.loops.counters(),
            activities=parts.activities.counters(),
        )

    def _budget(self, index: int, account: Account) -> BudgetStatus:
        budget = account.leases.budget()
        budget.auth_warning = self._parts.verbs.auth_warning(index)
        return budget

    def _one_of_several(self, account: Account) -> str:
        """What an account is called; "" where there is but one."""
        return account.leases.account if len(self._parts.accounts) > 1 else ""

    def _camera(self, camera: Camera, now: float) -> CameraStatus:
        parts = self._parts
        live, decoding = parts.sinks.sfu.locate(camera.id), parts.verdicts.verdict(camera.id)
        local = parts.local.status(camera.id)
        facts = CameraFacts(
            id=camera.id,
            name=camera.name,
            why_not=parts.registry.why_not(camera),
            idle=NOBODY_WATCHES if parts.director.demand.idle(camera) else "",
            lease=parts.accounts[camera.account].leases.lease(camera.id),
            slot=parts.fleet.slot(camera.id),
            picture=(decoding.decodable.value, decoding.stage, decoding.reason),
            refused=sfu_error(parts.sinks.sfu.refusal(camera.id)),
            viewers_refused=parts.viewers.refusal(),
            local_problem=local.problem,
            token_at=self._token_at(parts.accounts[camera.account]),
        )
        status = camera_status(
            camera,
            facts,
            publication=live.id if live is not None else "",
            local=local,
            rendition=parts.renditions.status(camera),
            small=live is not None and live.has_small,
            sfu=parts.sinks.at_sfu,
            sinks=[target.name for target in parts.sinks.targets(camera.name, camera.device.id) if target.name],
            now=now,
            wall=parts.clock.wall(),
            before=self._history.before(camera.id),
        )
        status.account = self._one_of_several(parts.accounts[camera.account])
        return status

    def _token_at(self, account: Account) -> float:
        """When Google is asked for a token again that it has refused (Unix seconds); 0: not refused."""
        clock, at = self._parts.clock, account.tokens.asks_again
        return clock.wall() + at - clock.now() if at else 0.0

    def _problems(self, budgets: list[BudgetStatus]) -> list[StatusVerdict]:
        """What is wrong with the relay as a whole, or with an account."""
        parts, wall = self._parts, self._parts.clock.wall()
        found = [(Cause.DISK_FULL if parts.store.full else Cause.STATE_UNWRITABLE, "", "", 0.0)] * bool(
            parts.store.problem
        )
        for budget, account in zip(budgets, parts.accounts, strict=True):
            if budget.auth_code or budget.hold:
                cause = cause_of(budget.auth_code) if budget.auth_code else Cause.QUOTA_HELD
                next_at = self._token_at(account) if cause in REFUSED_TOKEN else budget.retry_at
                found.append((cause, budget.auth_detail, budget.account, next_at))
            if abs(skew := account.api.clock_skew) > CLOCK_SKEW:
                which = "ahead of" if skew > 0 else "behind"
                found.append((Cause.CLOCK_WRONG, f"{duration(abs(skew))} {which} Google's", "", 0.0))
        if (refused := parts.viewers.refusal()) is not None:
            found.append((*sfu_cause(refused, Cause.VIEWERS_REFUSED), "", 0.0))
        return [
            verdict(
                cause,
                detail,
                state="failed" if cause in _FAILED else "degraded",
                wall=wall,
                before=self._history.problem_before(cause.value, subject),
                subject=subject,
                next_at=next_at,
            )
            for cause, detail, subject, next_at in dict.fromkeys(found)
        ]
