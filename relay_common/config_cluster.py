"""What the [cluster] section means and what may be wrong with it: where the bus is reached over TCP."""

from __future__ import annotations

import ipaddress

from relay_common.announced import HIGHEST_PORT, announced
from relay_common.config import ClusterConfig


def bus_endpoints(listen: str) -> tuple[str, str] | None:
    """The ZeroMQ endpoints for control and statistics that `cluster.bus_listen` means; None for "", which is off.

    Raises ValueError for what is no address of one machine with a port, or leaves no port for the statistics.
    """
    if not listen.strip():
        return None
    host, port = announced(listen)
    address = ipaddress.ip_address(host)
    meant = (address.ipv4_mapped or address) if address.version == 6 else address
    if not 1 <= port < HIGHEST_PORT or meant.is_unspecified or meant.is_multicast:
        raise ValueError("no address that workers could connect to")
    shown = f"[{host}]" if address.version == 6 else host
    return f"tcp://{shown}:{port}", f"tcp://{shown}:{port + 1}"


def cluster_problems(cluster: ClusterConfig) -> list[str]:
    """What is wrong with the section, each beginning with its key."""
    try:
        bus_endpoints(cluster.bus_listen)
    except ValueError:
        return [
            f"cluster.bus_listen is {cluster.bus_listen!r}; expected an address of this machine that its workers can "
            'reach, with a port below 65535 (the next one is used as well): "10.0.0.5:7420"'
        ]
    return []
