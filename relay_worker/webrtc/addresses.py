"""Which of this machine's addresses a connection is offered on, and what an address says."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import aioice.ice

# The route to these addresses shows the outgoing interface; connecting a UDP socket sends nothing.
_OUTSIDE: Final = ((socket.AF_INET, "1.1.1.1"), (socket.AF_INET6, "2606:4700:4700::1111"))


def default_host_addresses(*, loopback: bool = False, loopback_too: bool = False) -> list[str]:
    """Addresses worth a host candidate: those of the default route, else all there are, else loopback.

    ICE-lite peers only answer; a candidate of a bridge or VPN interface costs connection attempts (GOODVOICE DR-8).
    `loopback` is for simulators on this machine, and leaves only 127.0.0.1; `loopback_too` adds it.
    """
    if loopback:
        return ["127.0.0.1"]
    addresses = [address for family, outside in _OUTSIDE if (address := _source_address(family, outside))]
    addresses = addresses or aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
    addresses = addresses or ["127.0.0.1"]
    return ["127.0.0.1", *addresses] if loopback_too and "127.0.0.1" not in addresses else addresses


def _source_address(family: socket.AddressFamily, outside: str) -> str:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def ip_header(address: str) -> int:
    """Bytes of the IP header of packets to this address."""
    return 40 if ":" in address else 20


def is_near(address: str) -> bool:
    """Whether this is an address of this machine or of a private network."""
    return ipaddress.ip_address(address.partition("%")[0]).is_private
