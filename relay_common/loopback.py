"""Which hosts and URLs are on this machine: what is sent there cannot be read in transit."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without port or brackets) is this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Whether the host of `url` is this machine only; raises ValueError if it is not a URL."""
    return is_loopback(urlsplit(url).hostname or "")
