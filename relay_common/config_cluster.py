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
    """Address and port to listen on where `bus_listen` is that of a Service: `"0.0.0.0:7420"`, or of IPv6,
    `"[::]:7420"`: then workers look a name up as one of IPv6 first. Empty: `bus_listen`, which has to be an address of
    this machine then, or a name of one."""
    replica: str = ""
    """Name of this supervisor among several that stand by for each other: that of its Pod, from the environment
    (docs/deployment.md). One of them commands; what all have to know is in a Secret. Empty: this one is alone, and its
    state is in `paths.state_dir`."""
    peer_listen: str = ""
    """Address of this supervisor and TCP port by which the others reach it: `"10.0.0.5:7422"`, `"[fd00::5]:7422"`. An
    address may always stand in brackets, as manifests cannot know of which kind a Pod's is. There they promise each
    other to wait while the API server is away, so that streams go on. At the next port the one that commands takes the
    requests of browsers and programs that the others pass on to it. Empty: it promises nothing, and takes none."""


def bus_endpoints(listen: str, *, ipv6: bool = False) -> tuple[str, str] | None:
    """The ZeroMQ endpoints for control and statistics that `cluster.bus_listen` means; None for "", which is off.

    With `ipv6` a name is looked up as one of IPv6, or else of IPv4; without, of IPv4. Raises ValueError for what is no
    address or name of one machine with a port, or leaves no port for the statistics.
    """
    if not listen.strip():
        return None
    if (named := _NAMED.fullmatch(listen.strip())) is not None:
        return _endpoints(f"[{named[1]}]" if ipv6 else named[1], int(named[2]))
    host, port = announced(listen)
    address = ipaddress.ip_address(host)
    meant = (address.ipv4_mapped or address) if address.version == 6 else address
    if meant.is_unspecified or meant.is_multicast:
        raise ValueError("no address that workers could connect to")
    return _endpoints(_shown(host), port)


def bound_endpoints(cluster: ClusterConfig) -> tuple[str, str] | None:
    """The endpoints that the bus itself listens on for workers on other machines; None when it does not.

    Raises ValueError for what is no address with a port.
    """
    if not cluster.bus_bind:
        return bus_endpoints(cluster.bus_listen)
    host, port = announced(cluster.bus_bind)
    return _endpoints(_shown(host), port)


def binding_advice(bound: str, otherwise: str) -> str:
    """What to do where the bus cannot listen at an endpoint: `otherwise`, unless that is a name."""
    if _NAMED.fullmatch(bound.rpartition("/")[2]) is None:
        return otherwise
    return (
        "cluster.bus_listen is a name, which leads elsewhere or to a port that is taken: set cluster.bus_bind to the "
        'address of this machine to listen at, "10.0.0.5:7420", or "0.0.0.0:7420" for all of them'
    )


def peer_endpoint(listen: str) -> str:
    """The ZeroMQ endpoint that `cluster.peer_listen` means; raises ValueError for what is no address with a port."""
    host, port = announced(listen)
    if not port:
        raise ValueError("no port")
    return f"tcp://{_shown(host)}:{port}"


def passing_address(cluster: ClusterConfig) -> tuple[str, int] | None:
    """Address and port where this supervisor takes requests that others pass on: the port after that of
    `cluster.peer_listen`; None without one. Raises ValueError for what is no address with such a port.
    """
    if not cluster.peer_listen:
        return None
    host, port = announced(cluster.peer_listen)
    if not 1 <= port < HIGHEST_PORT:
        raise ValueError("no port, or none for what is passed on")
    return host, port + 1


def passing_endpoint(cluster: ClusterConfig) -> str:
    """`passing_address` as one writes it, "10.0.0.5:7423"; "" for none."""
    at = passing_address(cluster)
    return f"{_shown(at[0])}:{at[1]}" if at is not None else ""


def _shown(host: str) -> str:
    """An address as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _endpoints(host: str, port: int) -> tuple[str, str]:
    """Those of control and, at the next port, statistics; libzmq takes names in brackets as IPv6, too."""
    if not 1 <= port < HIGHEST_PORT:
        raise ValueError("no port, or none for the statistics")
    return f"tcp://{host}:{port}", f"tcp://{host}:{port + 1}"


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
        passing_address(cluster)
    except ValueError:
        problems.append(
            f"cluster.peer_listen is {cluster.peer_listen!r}; expected an address of this machine that the other "
            'supervisors reach, with a port below 65535 (the next one is used as well): "10.0.0.5:7422"'
        )
    if cluster.bus_bind and not cluster.bus_listen.strip():
        problems.append("cluster.bus_listen is not set; with cluster.bus_bind it says where workers connect to")
    if cluster.replica and not cluster.namespace:
        problems.append("cluster.namespace is not set; supervisors that stand by for each other (replica) need it")
    if cluster.replica and not is_label(cluster.replica, LONGEST_REPLICA):
        problems.append(f"cluster.replica is {cluster.replica!r}; {_LABEL} at most {LONGEST_REPLICA} of them")
    if cluster.namespace and not is_label(cluster.namespace, LONGEST_NAMESPACE):
        problems.append(f"cluster.namespace is {cluster.namespace!r}; {_LABEL} at most {LONGEST_NAMESPACE} of them")
    if not is_label(cluster.identity, LONGEST_IDENTITY):
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


def is_label(text: str, longest: int) -> bool:
    """Whether it is a DNS label (RFC 1123), which Kubernetes' names are."""
    return len(text) <= longest and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is not None
