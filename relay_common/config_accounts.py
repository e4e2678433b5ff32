"""Accounts that are spread over the supervisors of a cluster: what their names and ports mean, and what may be wrong.

Each of them is a relay of its own there, with the identity, directories, ports and path that `of_account` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from msgspec.structs import replace

from relay_common.announced import announced
from relay_common.config import Config, NestConfig
from relay_common.config_cluster import LONGEST_IDENTITY, ClusterConfig, is_label

PORTS: Final = 4
"""That an account takes: control and statistics of the bus, promises, and requests that are passed on."""


def account_problems(nests: Sequence[NestConfig], cluster: ClusterConfig) -> list[str]:
    """What is wrong with the accounts' names and ports, each beginning with its key."""
    named = [nest for nest in nests if nest.account]
    if not named:
        return []
    problems = []
    if not cluster.replica:
        problems.append("cluster.replica is not set; accounts with names of their own (nest.account) need it")
    if len(named) < len(nests):
        problems.append("nest.account is missing in some of the tables: all of them have one, or none")
    for nest in named:
        identity = f"{cluster.identity}-{nest.account}"
        if not is_label(nest.account, LONGEST_IDENTITY):
            problems.append(f"nest.account is {nest.account!r}; expected lower-case letters, digits and hyphens")
        elif len(identity) > LONGEST_IDENTITY:
            problems.append(f"nest.account: {identity!r} is too long a name; at most {LONGEST_IDENTITY} characters")
    if len({nest.account for nest in named}) < len(named):
        problems.append("nest.account is the same in several tables")
    return problems + _port_problems(named)


def account_names(config: Config) -> list[str]:
    """The names of accounts that are spread over supervisors; none where they are not."""
    return [nest.account for nest in config.nest if nest.account] if config.cluster.replica else []


def relays_of(config: Config) -> list[Config]:
    """The configuration of each relay that this one means: one for each account where they are spread, else itself."""
    return [of_account(config, name) for name in account_names(config)] or [config]


def projects_of(nests: Sequence[NestConfig]) -> list[str]:
    """What state and metrics call each account: its project's id, numbered if several users granted the same."""
    ids = [nest.project_id for nest in nests]
    before = [ids[:index].count(project) for index, project in enumerate(ids)]
    return [f"{project}#{count + 1}" if count else project for project, count in zip(ids, before, strict=True)]


def spoken_accounts(config: Config) -> list[str]:
    """What people are told an account is called, in the order of the configuration; "" where there is but one."""
    if len(config.nest) == 1:
        return [config.nest[0].account]
    return account_names(config) or projects_of(config.nest)


def path_of(account: str) -> str:
    """Where the account's own page and API are, below the relay's."""
    return f"/accounts/{account}"


def of_account(config: Config, account: str) -> Config:
    """The configuration of a relay that has this account alone."""
    (nest,) = (one for one in config.nest if one.account == account)
    cluster, paths = config.cluster, config.paths
    cluster = replace(
        cluster,
        identity=f"{cluster.identity}-{account}",
        bus_listen=_at(_found_at(cluster.bus_listen, account), nest.ports),
        bus_bind=_at(cluster.bus_bind, nest.ports),
        peer_listen=_at(cluster.peer_listen, nest.ports + 2),
    )
    return replace(
        config,
        nest=[nest],
        cluster=cluster,
        paths=replace(paths, state_dir=str(paths.state() / account), runtime_dir=str(paths.runtime() / account)),
        http=replace(config.http, base_path=f"{config.http.base_path.rstrip('/')}{path_of(account)}", probe_listen=""),
    )


def _found_at(listen: str, account: str) -> str:
    """Where an account's bus is found: at a Service of its own, "bus-home.cameras.svc" where that of all would be
    "bus.cameras.svc"; or at the same address, if that is none of a name.
    """
    try:
        announced(listen)
    except ValueError:
        host, _, port = listen.strip().rpartition(":")
        service, dot, rest = host.partition(".")
        return f"{service}-{account}{dot}{rest}:{port}"
    return listen


def _at(listen: str, port: int) -> str:
    """The same address with another port; "" for none."""
    return f"{listen.strip().rpartition(':')[0]}:{port}" if listen.strip() else ""


def _port_problems(named: Sequence[NestConfig]) -> list[str]:
    if missing := [nest.account for nest in named if not nest.ports]:
        return [f"nest.ports is not set for {', '.join(missing)}; each account takes {PORTS} ports, from that one on"]
    ordered = sorted(named, key=lambda nest: nest.ports)
    return [
        f"nest.ports: {one.account} and {other.account} would share ports; each takes {PORTS}, from {one.ports} on"
        for one, other in pairwise(ordered)
        if other.ports < one.ports + PORTS
    ]
