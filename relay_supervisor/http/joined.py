"""What several accounts say, as one: status, health and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay_common.config_accounts import path_of
from relay_supervisor.status.health import Health, Reason
from relay_supervisor.status.model import AccountStatus, RelayStatus, SeatStatus, Totals

ACCOUNT_LABEL = "relay"
"""The label that each metric of an account has besides its own: the account's name."""


def joined_status(parts: Mapping[str, RelayStatus | str], replica: str, version: str, at: float) -> RelayStatus:
    """The status of all accounts as the supervisor `replica` knows it at `at` (Unix seconds): that of each, or why it
    is not known.
    """
    known = {name: part for name, part in parts.items() if isinstance(part, RelayStatus)}
    accounts = [_account(name, part, replica) for name, part in parts.items()]
    cameras = [msgspec.structs.replace(one, account=name) for name, part in known.items() for one in part.cameras]
    sinks = {(sink.name, sink.place): sink for part in known.values() for sink in part.sinks}
    return RelayStatus(
        version=version,
        at=at,
        uptime=max((part.uptime for part in known.values()), default=0.0),
        totals=_totals([part.totals for part in known.values()]),
        budgets=[msgspec.structs.replace(one, name=name) for name, part in known.items() for one in part.budgets],
        cameras=cameras,
        counters=_sum(part.counters for part in known.values()),
        problems=[msgspec.structs.replace(one, account=name) for name, part in known.items() for one in part.problems],
        sinks=list(sinks.values()),
        local=any(part.local for part in known.values()),
        seat=_seat(known.values(), accounts, replica),
        accounts=accounts,
    )


def joined_health(parts: Mapping[str, Health | str]) -> Health:
    """The verdict on all accounts, or why there is none on one: ready when each of them is."""
    known = {name: part for name, part in parts.items() if isinstance(part, Health)}
    missing = [Reason(part=name, reason=part, account=name) for name, part in parts.items() if isinstance(part, str)]
    return Health(
        ready=not missing and all(part.ready for part in known.values()),
        reasons=[*missing, *_named(known, lambda part: part.reasons)],
        degraded=_named(known, lambda part: part.degraded),
        cameras=sum(part.cameras for part in known.values()),
        live=sum(part.live for part in known.values()),
        problems=_named(known, lambda part: part.problems),
    )


class JoinedCollector(Collector):
    """The metrics of all accounts that `collectors` has now, each with the label `ACCOUNT_LABEL`."""

    def __init__(self, collectors: Callable[[], Mapping[str, Collector]]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for account, collector in self._collectors().items():
            for found in collector.collect():
                family = families.setdefault(
                    found.name, Metric(found.name, found.documentation, found.type, found.unit)
                )
                family.samples += [
                    sample._replace(labels={ACCOUNT_LABEL: account} | sample.labels) for sample in found.samples
                ]
        yield from families.values()


def _account(name: str, part: RelayStatus | str, replica: str) -> AccountStatus:
    if isinstance(part, str):
        return AccountStatus(name=name, path=path_of(name), problem=part)
    seat, answered = part.seat, part.seat.commands
    # One that commands is who answered; one that stands by says whom it has heard of.
    holder = seat.replica if answered else seat.holder
    away = f"{holder} commands it and does not answer" if holder else "nobody is known to command it"
    return AccountStatus(
        name=name,
        path=path_of(name),
        holder=holder,
        here=answered and holder == replica,
        cameras=part.totals.cameras,
        live=part.totals.connected,
        problem="" if answered else seat.problem or away,
    )


def _seat(known: Iterable[RelayStatus], accounts: list[AccountStatus], replica: str) -> SeatStatus:
    """This supervisor among the others: it commands where it does so for at least one account."""
    names = {name for part in known for name in (*part.seat.others, part.seat.replica, part.seat.holder)}
    mine = sum(one.here for one in accounts)
    return SeatStatus(
        replica=replica,
        state=f"in command of {mine} of {len(accounts)} accounts",
        commands=mine > 0,
        holder=replica if mine else next((one.holder for one in accounts if one.holder), ""),
        others=sorted(names - {replica, ""}),
        problem="; ".join(f"{one.name}: {one.problem}" for one in accounts if one.problem),
    )


def _totals(parts: list[Totals]) -> Totals:
    return Totals(**_sum(msgspec.structs.asdict(part) for part in parts))


def _sum(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def _named(known: Mapping[str, Health], pick: Callable[[Health], list[Reason]]) -> list[Reason]:
    """The reasons of all accounts, each with its own; where it is about no camera, its part says so, too."""
    return [
        msgspec.structs.replace(one, account=name, part=one.part if one.camera else _part(name, one))
        for name, part in known.items()
        for one in pick(part)
    ]


def _part(account: str, reason: Reason) -> str:
    return f"{account}: {reason.part}" if reason.part else account
