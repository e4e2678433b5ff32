"""Addresses that local viewers are told instead of those that are listened on ([local] announce)."""

from __future__ import annotations

import ipaddress
from typing import Final

HIGHEST_PORT: Final = 65535


def announced(text: str) -> tuple[str, int]:
    """Address and port (0: the camera's own) of an entry of `local.announce`; raises ValueError."""
    host, port = text.strip(), 0
    if host.startswith("[") or host.count(":") == 1:
        host, colon, digits = host.rpartition(":")
        host, port = host.removeprefix("[").removesuffix("]"), int(digits) if digits.isdecimal() else -1
        if not colon or not 1 <= port <= HIGHEST_PORT:
            raise ValueError("no address with a port")
    return str(ipaddress.ip_address(host)), port
