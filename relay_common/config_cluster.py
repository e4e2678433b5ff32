"""What the [cluster] section means and what may be wrong with it: names, and where the bus is reached over TCP."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from relay_common.announced import HIGHEST_PORT, announced
from relay_common.config import ClusterConfig

LONGEST_NAMESPACE: Final = 63
LONGEST_IDENTITY: Final = 40
"""Characters; names of Pods begin with it."""
_NAMED: Final = re.compile(
    r"((?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.)*[a-z](?:[-a-z0-9]*[a-z0-9])?):(\d{1,5})", re.IGNORECASE
)
"""A DNS name, whose last label begins with a letter, and a port."""
_LABEL: Final = "expected lower-case letters, digits and hyphens, with none of these at either end,"


def bus_endpoints(listen: str) -> tuple[str, str] | None:
    """The ZeroMQ endpoints for control and statistics that `cluster.bus_listen` means; None for "", which is off.

    Raises ValueError for what is no address or name of one machine with a port, or leaves no port for the statistics.
    """
    if not listen.strip():
        return None
    if (named := _NAMED.fullmatch(listen.strip())) is not None:
        name, port = named[1], int(named[2])
        if not 1 <= port < HIGHEST_PORT:
            raise ValueError("no port, or none for the statistics")
        return f"tcp://{name}:{port}", f"tcp://{name}:{port + 1}"
    host, port = announced(listen)
    address = ipaddress.ip_address(host)
    meant = (address.ipv4_mapped or address) if address.version == 6 else address
    if not 1 <= port < HIGHEST_PORT or meant.is_unspecified or meant.is_multicast:
        raise ValueError("no address that workers could connect to")
    shown = f"[{host}]" if address.version == 6 else host
    return f"tcp://{shown}:{port}", f"tcp://{shown}:{port + 1}"


def cluster_problems(cluster: ClusterConfig) -> list[str]:
    """What is wrong with the section, each beginning with its key."""
    problems = []
    try:
        bus_endpoints(cluster.bus_listen)
    except ValueError:
        problems.append(
            f"cluster.bus_listen is {cluster.bus_listen!r}; expected an address or name of this machine that workers "
            'reach, with a port below 65535 (the next one is used as well): "10.0.0.5:7420"'
        )
    if cluster.namespace and not _is_label(cluster.namespace, LONGEST_NAMESPACE):
        problems.append(f"cluster.namespace is {cluster.namespace!r}; {_LABEL} at most {LONGEST_NAMESPACE} of them")
    if not _is_label(cluster.identity, LONGEST_IDENTITY):
        problems.append(f"cluster.identity is {cluster.identity!r}; {_LABEL} at most {LONGEST_IDENTITY} of them")
    if re.search(r"\s", cluster.image):
        problems.append(f'cluster.image is {cluster.image!r}; expected an image: "registry.example/nest-relay:0.1.0"')
    if cluster.namespace and not cluster.bus_listen.strip():
        problems.append("cluster.bus_listen is not set; workers in a cluster (cluster.namespace) need it")
    if cluster.namespace and not (cluster.image or cluster.worker_template):
        problems.append(
            "cluster.image is not set; workers in a cluster (cluster.namespace) need it, or worker_template"
        )
    return problems


def _is_label(text: str, longest: int) -> bool:
    """Whether it is a DNS label (RFC 1123), which Kubernetes' names are."""
    return len(text) <= longest and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is not None
