"""What the [local] section means and what may be wrong with it: UDP ports, addresses, and sites that may play."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from relay_common.announced import announced
from relay_common.config import LocalConfig

ORIGIN: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
"""One origin, as browsers send it in the Origin header."""
_PORTS: Final = re.compile(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*")
_HIGHEST: Final = 65535

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def port_range(text: str) -> range | None:
    """The ports that `local.udp_ports` means; None for "", which means any. Raises ValueError."""
    if not text.strip():
        return None
    found = _PORTS.fullmatch(text)
    if found is None:
        raise ValueError("no range of ports")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= _HIGHEST:
        raise ValueError("no range of ports")
    return range(first, last + 1)


def local_problems(local: LocalConfig) -> list[str]:
    """What is wrong with the section, each beginning with its key."""
    problems = []
    any_address = False
    for text in local.addresses:
        address = _parsed(text)
        if address is None:
            problems.append(
                f"local.listen has {text!r}; expected an address of this machine without a port, such as "
                '"127.0.0.1" or "192.168.1.10"; the ports are udp_ports'
            )
        elif address.is_multicast:
            problems.append(f"local.listen has {text!r}, which is no machine's address")
        else:
            any_address |= address.is_unspecified
    if any_address and not local.announce:
        problems.append(
            "local.listen means every address of this machine, and viewers have to be told which ones: name them in "
            'announce = ["192.168.1.10"], or in listen itself'
        )
    problems += [f"local.announce has {one!r}; {wrong}" for one in local.announce if (wrong := _unusable(one))]
    try:
        port_range(local.udp_ports)
    except ValueError:
        problems.append(f'local.udp_ports is {local.udp_ports!r}; expected ports such as "8560-8599", or "" for any')
    problems += [
        f'local.allowed_origins has {site!r}, which is no origin; write scheme and host only: "https://home.example"'
        for site in local.allowed_origins
        if not ORIGIN.fullmatch(site)
    ]
    return problems


def _parsed(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _unusable(text: str) -> str:
    try:
        address = ipaddress.ip_address(announced(text)[0])
    except ValueError:
        return 'expected an address, "ADDRESS:PORT" or "[IPV6]:PORT"; a name is not enough'
    if address.is_unspecified or address.is_multicast:
        return "no viewer can send to that address"
    return ""
