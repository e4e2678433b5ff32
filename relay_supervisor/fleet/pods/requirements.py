"""What [cluster] needs before workers can be Pods; imports nothing that is needed for that alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Final

from relay_common.config_cluster import ClusterConfig, cluster_problems
from relay_common.errors import ConfigError

RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "pods": ("create", "delete", "list", "watch"),
    "secrets": ("create", "delete", "list", "patch"),
}
"""What a supervisor needs to be allowed in the namespace (deploy/kubernetes/rbac.yaml), verbs by resource."""
LEASES: Final[Mapping[str, Sequence[str]]] = {"leases.coordination.k8s.io": ("create", "list", "patch")}
"""What lets it know of others of its identity: its group follows the resource."""
AMONG_OTHERS: Final[Mapping[str, Sequence[str]]] = {"pods": ("patch",), **LEASES}
"""What one needs besides that stands by for others."""


def rights(cluster: ClusterConfig) -> list[tuple[str, str]]:
    """Each verb and resource that the supervisor needs in the namespace."""
    return [*_each(RIGHTS), *(_each(AMONG_OTHERS) if cluster.replica else [])]


def protection() -> list[tuple[str, str]]:
    """The same, of what one that is alone can do without: another of its identity goes unnoticed then."""
    return _each(LEASES)


def _each(table: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(verb, resource) for resource, verbs in table.items() for verb in verbs]


def require_names(cluster: ClusterConfig) -> None:
    """Raise ConfigError for a namespace or an identity that Kubernetes knows none like."""
    for problem in cluster_problems(cluster):
        if problem.startswith(("cluster.namespace", "cluster.identity")):
            raise ConfigError(problem)


def require_client(cluster: ClusterConfig) -> None:
    """Raise ConfigError when workers are to be Pods and the client library is not installed."""
    if cluster.namespace and not all(map(importlib.util.find_spec, ("lightkube", "yaml"))):
        raise ConfigError(
            "cluster.namespace is set, and the client library for Kubernetes is not installed",
            hint="Install it with `pip install nest-relay[cluster]`",
        )


def require_pods(cluster: ClusterConfig, local_addresses: Sequence[str]) -> None:
    """Raise ConfigError when workers are to be Pods and cannot be; nothing is asked of the cluster.

    `local_addresses` are those at which workers would answer viewers themselves ([local]).
    """
    if not cluster.namespace:
        return
    if local_addresses:
        raise ConfigError(
            "[local] listen and [cluster] namespace are both set: viewers cannot watch straight from a worker that "
            "runs in a cluster, because its Pod has no address that they could reach",
            hint="Leave one of them out",
        )
    require_client(cluster)
    from relay_supervisor.fleet.pods.template import read_template

    read_template(cluster.worker_template, cluster.image, cluster.identity)
