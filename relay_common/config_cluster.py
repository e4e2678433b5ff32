"""What the [cluster] section means and what may be wrong with it: names, and where the bus is reached over TCP."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from relay_common.announced import HIGHEST_PORT, announced

LONGEST_NAMESPACE: Final = 63
LONGEST_IDENTITY: Final = 40
"""Characters; names of Pods begin with it."""
LONGEST_REPLICA: Final = 63
_NAMED: Final = re.compile(
    r"((?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.)*[a-z](?:[-a-z0-9]*[a-z0-9])?):(\d{1,5})", re.IGNORECASE
)
"""A DNS name, whose last label begins with a letter, and a port."""
_LABEL: Final = "expected lower-case letters, digits and hyphens, with none of these at either end,"


class ClusterConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Workers on other machines; as Pods they need `pip install nest-relay[cluster]` (docs/deployment.md)."""

    namespace: str = ""
    """Namespace of Kubernetes in which each camera's worker runs as a Pod. `http.token` and `viewers.link_secret` are
    required then, the same for every supervisor. Empty: on this machine."""
    image: str = ""
    """Their image, of the relay's own version; empty for that in `worker_template`."""
    worker_template: str = ""
    """File (YAML, JSON) with the Pod that theirs are made of, in which they are the container `worker`. Empty: none."""
    identity: str = "nest-relay"
    """Name of this relay among those of the namespace: label of all that it makes there."""
    bus_listen: str = ""
    """Address or name of this machine by which they reach it, and TCP port: `"10.0.0.5:7420"`, the next one as well.
    Connections are authenticated by key (docs/security.md); a firewall should still admit no others. Empty: off."""
    bus_bind: str = ""
    """Address and port to listen on where `bus_listen` is that of a Service: `"0.0.0.0:7420"`. Empty: `bus_listen`."""
    replica: str = ""
    """Name of this supervisor among several that stand by for each other: that of its Pod, from the environment
    (docs/deployment.md). One of them commands; what all have to know is in a Secret. Empty: this one is alone, and its
    state is in `paths.state_dir`."""
    peer_listen: str = ""
    """Address of this supervisor and TCP port by which the others reach it: `"10.0.0.5:7422"`. There they promise each
    other to wait while the API server is away, so that streams go on. Empty: it promises nothing."""


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


def bound_endpoints(cluster: ClusterConfig) -> tuple[str, str] | None:
    """The endpoints that the bus itself listens on for workers on other machines; None when it does not.

    Raises ValueError for what is no address with a port.
    """
    if not cluster.bus_bind:
        return bus_endpoints(cluster.bus_listen)
    host, port = announced(cluster.bus_bind)
    if not 1 <= port < HIGHEST_PORT:
        raise ValueError("no port, or none for the statistics")
    shown = f"[{host}]" if ":" in host else host
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
    try:
        bound_endpoints(msgspec.structs.replace(cluster, bus_listen=""))
    except ValueError:
        problems.append(
            f"cluster.bus_bind is {cluster.bus_bind!r}; expected an address of this machine, with a port below 65535 "
            '(the next one is used as well): "0.0.0.0:7420"'
        )
    try:
        peer = announced(cluster.peer_listen)[1] if cluster.peer_listen else HIGHEST_PORT
    except ValueError:
        peer = 0
    if not peer:
        problems.append(
            f"cluster.peer_listen is {cluster.peer_listen!r}; expected an address of this machine that the other "
            'supervisors reach, with a port: "10.0.0.5:7422"'
        )
    if cluster.bus_bind and not cluster.bus_listen.strip():
        problems.append("cluster.bus_listen is not set; with cluster.bus_bind it says where workers connect to")
    if cluster.replica and not cluster.namespace:
        problems.append("cluster.namespace is not set; supervisors that stand by for each other (replica) need it")
    if cluster.replica and not _is_label(cluster.replica, LONGEST_REPLICA):
        problems.append(f"cluster.replica is {cluster.replica!r}; {_LABEL} at most {LONGEST_REPLICA} of them")
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
