"""`relay-supervisor move`: from this machine to a cluster, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click
import msgspec

from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_common.config_cluster import ClusterConfig
from relay_common.errors import ConfigError
from relay_supervisor.cameras.overrides import FILE as OVERRIDES
from relay_supervisor.commands.cli import Failure, chosen_account, config_option, json_option, load, typed
from relay_supervisor.commands.client import say
from relay_supervisor.fleet.launcher import EngineError
from relay_supervisor.fleet.pods.requirements import require_client, require_names
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher

_DEFAULT: Final = ClusterConfig().identity


class _Moved(msgspec.Struct):
    workers: int


@click.command("move")
@click.argument("where", type=click.Choice(["to-cluster", "from-cluster"]))
@click.option("--namespace", default=_DEFAULT, show_default=True, help="That of the relay in the cluster.")
@click.option("--identity", default=_DEFAULT, show_default=True, help="Its cluster.identity there.")
@click.option("--replace", is_flag=True, help="Overwrite what the cluster has of this relay.")
@config_option
@json_option
def command(where: str, namespace: str, identity: str, replace: bool, config_path: Path, as_json: bool) -> None:
    """Carry a relay that was stopped from this machine to a cluster, or back.

    Leases, quota log and the bus's key go along, and workers that were kept are ended. If it runs there within a
    minute, streams of RTSP cameras go on without a Generate command. The cluster is that of KUBECONFIG. Where several
    accounts are there (nest.account), `--account NAME` says which of them the relay of this machine becomes, or was.

    \b
    relay-supervisor move to-cluster       # after: relay-supervisor stop --keep-workers
    relay-supervisor move from-cluster     # after: kubectl scale deployment nest-relay --replicas=0
    relay-supervisor --account home move to-cluster
    """
    config = _of_this_machine(config_path)
    if account := chosen_account():
        identity = f"{identity}-{account}"
    cluster = msgspec.structs.replace(config.cluster, namespace=namespace, identity=identity)
    require_names(cluster)
    require_client(cluster)
    try:
        moved = asyncio.run(_move(where, cluster, config.paths.state(), config.paths.runtime(), replace))
    except EngineError as error:
        raise Failure(f"{error}") from error
    then = "start it there now" if where == "to-cluster" else typed("`relay-supervisor run`")
    say(f"moved, with {moved.workers} workers ended: {then}", msgspec.json.encode(moved), as_json)


def _of_this_machine(path: Path) -> Config:
    try:
        return load(path)
    except ConfigError as error:
        if "nest.account" not in str(error):
            raise
        raise ConfigError(
            "this is the configuration of several accounts in a cluster (nest.account), and not that of the relay here",
            hint="Give that one by --config: before it was moved it had no account. Its name goes before the verb: "
            "`relay-supervisor --account home move to-cluster`",
        ) from error


async def _move(where: str, cluster: ClusterConfig, state: Path, runtime: Path, replace: bool) -> _Moved:
    from relay_supervisor.cluster.moving import from_cluster, to_cluster  # with libraries that nothing else needs
    from relay_supervisor.fleet.pods.api import ClusterApi

    clock, overrides, api = SystemClock(), state / OVERRIDES, ClusterApi(cluster.namespace)
    try:
        if where == "to-cluster":
            launcher = ForkServerLauncher(runtime)
            return _Moved(await to_cluster(api, cluster.identity, state, overrides, launcher, clock, replace=replace))
        return _Moved(await from_cluster(api, cluster.identity, state, overrides, clock))
    finally:
        await api.aclose()
