"""The client's address, as reported by trusted proxies if there are any, and whose share it counts against."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import Scope

from relay_common.errors import ConfigError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_HOPS: Final = 32


class TrustedProxies:
    """The reverse proxies of `http.trusted_proxies`, the only ones whose `X-Forwarded-For` is believed."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """`networks` are addresses or networks ("192.0.2.7", "fd00::/8"); raises ConfigError for anything else."""
        self._networks = [_network(text) for text in networks]

    def __contains__(self, address: str) -> bool:
        """Whether `address` is one of them."""
        found = _parse(address)
        return found is not None and self._holds(found)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The client's address: `peer`, or what the trusted proxies in front of us report.

        `forwarded` are the values of X-Forwarded-For in the order of the headers. Each proxy appends the address that
        called it, so the client is the last hop that is not itself a trusted proxy; any before it are hearsay.
        """
        client = _parse(peer)
        if client is None or not self._holds(client):
            return peer
        hops = [hop for value in forwarded for hop in value.split(",")]
        for hop in reversed(hops[-_MOST_HOPS:]):
            address = _parse(_without_port(hop.strip()))
            if address is None:
                break
            client = address
            if not self._holds(address):
                break
        return str(client)

    def _holds(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def share_of(address: str) -> str:
    """The share `address` counts against: itself, or its /64, as an IPv6 host has all 2^64 addresses of it."""
    found = _parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found) if found is not None else address


def peer_of(scope: Scope) -> str:
    """The address at the other end of the connection; empty on a Unix socket."""
    client = scope.get("client")
    return client[0] if client else ""


def forwarded_for(scope: Scope) -> list[str]:
    """The values of X-Forwarded-For, in the order of the headers."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"[http] trusted_proxies has {text!r}, which is neither an address nor a network",
            hint='Write for example ["127.0.0.1", "172.18.0.0/16"]',
        ) from None


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(hop: str) -> str:
    """Some proxies append the port: "192.0.2.1:4711", "[2001:db8::1]:4711"."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
