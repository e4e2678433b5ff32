"""Check of the cluster that workers are to run in: what we may do there, and whether it admits their Pods."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from relay_common.config_cluster import ClusterConfig, bus_endpoints
from relay_common.errors import ConfigError
from relay_common.loopback import is_loopback_url
from relay_supervisor.checks.report import Finding, failed, ok, warn
from relay_supervisor.fleet.launcher import EngineError
from relay_supervisor.fleet.pods.requirements import protection, rights
from relay_worker.process.spec import WorkerSpec

if TYPE_CHECKING:
    from relay_supervisor.fleet.pods.api import ClusterApi

_PART: Final = "cluster"
_TRIAL: Final = WorkerSpec(camera="trial", name="trial", instance="trial.check", control="", stats="")


async def cluster(config: ClusterConfig) -> list[Finding]:
    """Findings on [cluster]; while workers are processes of this machine, what in it is for others. Nothing is made in
    the cluster.
    """
    if not config.namespace:
        return _for_nothing(config, "namespace", "workers run on this machine", "image", "worker_template")
    from relay_supervisor.fleet.pods.api import ClusterApi  # with libraries that nothing else needs

    try:
        api = ClusterApi(config.namespace)
    except ConfigError as error:
        return [failed(_PART, error.message, error.hint)]
    try:
        alone = [] if config.replica else _for_nothing(config, "replica", "this supervisor is alone", "peer_listen")
        return [*await _permissions(api, config), await _pod(api, config), *_bus(config), *alone]
    except EngineError as error:
        return [failed(_PART, f"{api.server}: {error}", "Correct KUBECONFIG, or wait until the API server is back")]
    finally:
        await api.aclose()


def _for_nothing(config: ClusterConfig, missing: str, so: str, *keys: str) -> list[Finding]:
    """What is said of `keys` that are set, and mean nothing without `missing`."""
    unused = [f"cluster.{key}" for key in keys if getattr(config, key)]
    words = f"not used: cluster.{missing} is not set, so that {so}"
    return [warn(key, words, f"Set cluster.{missing} as well, or leave {key} out") for key in unused]


async def _permissions(api: ClusterApi, config: ClusterConfig) -> list[Finding]:
    namespace, remedy = config.namespace, "Grant it that by a Role (documentation: Deployment, Workers as Pods)"
    if missing := await _missing(api, rights(config)):
        return [failed(_PART, f"this account may not {missing} in the namespace {namespace}", remedy)]
    if not config.replica and (missing := await _missing(api, protection())):
        words = (
            f"this account may not {missing} in the namespace {namespace}, so that another supervisor of the identity "
        )
        return [warn(_PART, f"{words}{config.identity} would delete the Pods of this one's workers, unnoticed", remedy)]
    return [ok(_PART, f"{api.server} lets this account manage Pods and Secrets in the namespace {namespace}")]


async def _missing(api: ClusterApi, asked: Sequence[tuple[str, str]]) -> str:
    """What of that we may not do, in words; "" for nothing."""
    answers = await asyncio.gather(*(api.may(verb, resource) for verb, resource in asked))
    return ", ".join(f"{verb} {resource}" for (verb, resource), may in zip(asked, answers, strict=True) if not may)


async def _pod(api: ClusterApi, config: ClusterConfig) -> Finding:
    """What the cluster says of a worker's Pod: schema, quotas, and whatever else it admits Pods by."""
    from relay_supervisor.fleet.pods.api import PODS
    from relay_supervisor.fleet.pods.manifest import pod_of
    from relay_supervisor.fleet.pods.template import read_template

    template = read_template(config.worker_template, config.image, config.identity)
    try:
        await api.create(PODS, pod_of(_TRIAL, config.identity, template), dry=True)
    except EngineError as error:
        return failed("worker Pods", f"{error}", "Correct cluster.worker_template, or what the namespace admits")
    return ok("worker Pods", "the cluster admits them")


def _bus(config: ClusterConfig) -> list[Finding]:
    endpoints = bus_endpoints(config.bus_listen)
    if endpoints is None or not is_loopback_url(endpoints[0]):
        return []
    words = f"cluster.bus_listen is {config.bus_listen}, which no Pod on another machine can reach"
    return [warn("cluster.bus_listen", words, "Name an address of this machine that the nodes can reach")]
