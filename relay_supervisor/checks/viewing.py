"""Checks of [local]: addresses and UDP ports at which workers are to answer viewers, against this machine and home."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from relay_common.announced import announced
from relay_common.config import Config, LocalConfig
from relay_common.config_local import port_range
from relay_common.loopback import is_loopback
from relay_supervisor.checks.report import Finding, failed, ok, warn
from relay_supervisor.net import split_listen

_LISTED: Final = 5
"""Most taken ports that are named."""


def local_viewing(config: Config, cameras: int | None, running: bool) -> list[Finding]:
    """What there is to say of [local]; nothing while it is off.

    `cameras` is how many are to be relayed, None when that is not known; `running`: the ports may be our own workers'.
    """
    local = config.local
    if not local.addresses:
        return []
    ports = port_range(local.udp_ports)
    findings = [
        *_addresses(local),
        *_taken(local, ports, running),
        *_counted(ports, cameras),
        *_announced(local, ports, cameras),
        *_reached(config),
    ]
    if findings:
        return findings
    where = ", ".join(local.announced)
    who = "this machine alone" if _all_loopback(local.announced) else "others, who need the token or a link"
    return [ok("local", f"cameras can be watched without Cloudflare at {where}, by {who}")]


def _addresses(local: LocalConfig) -> list[Finding]:
    findings = []
    for address in local.addresses:
        if error := _cannot_bind(address, 0):
            text = f"workers cannot listen on {address} ({error})"
            findings.append(failed("local.listen", text, "Choose an address of this machine: ip -brief address"))
    return findings


def _taken(local: LocalConfig, ports: range | None, running: bool) -> list[Finding]:
    if ports is None or running or len(ports) > 1000:
        return []
    usable = [address for address in local.addresses if not _cannot_bind(address, 0)]
    taken = [str(port) for port in ports if any(_cannot_bind(address, port) for address in usable)]
    if not taken:
        return []
    named = ", ".join(taken[:_LISTED]) + (f" and {len(taken) - _LISTED} more" if len(taken) > _LISTED else "")
    text = f"other programs have UDP port{'s' if len(taken) > 1 else ''} {named} of udp_ports"
    return [warn("local.udp_ports", text, "Stop them (ss -lunp shows which), or choose other ports")]


def _counted(ports: range | None, cameras: int | None) -> list[Finding]:
    if ports is None or cameras is None or len(ports) >= cameras:
        return []
    few = f"{len(ports)} port{'s' if len(ports) > 1 else ''} for {cameras} cameras"
    wide = f"Each camera takes one: write at least {ports.start}-{ports.start + cameras - 1}"
    return [failed("local.udp_ports", f"{few}: the others cannot be watched from here", wide)]


def _announced(local: LocalConfig, ports: range | None, cameras: int | None) -> list[Finding]:
    with_port = [text for text in local.announce if announced(text)[1]]
    if with_port and (ports is None or len(ports) > 1) and (cameras is None or cameras > 1):
        text = f"{with_port[0]} names one port, and each camera has its own"
        return [warn("local.announce", text, "Forward the same ports as in udp_ports, and name the address alone")]
    if _all_loopback(local.addresses) and not _all_loopback(local.announced):
        text = f"viewers are sent to {local.announce[0]}, and workers listen on this machine alone"
        return [warn("local.announce", text, "Put that address, or the one it is forwarded to, into listen")]
    families = {ipaddress.ip_address(announced(text)[0]).version for text in local.announced}
    heard = {ipaddress.ip_address(address).version for address in local.addresses}
    if unheard := families - heard:
        text = f"it names IPv{min(unheard)} addresses, and listen has none"
        return [warn("local.announce", text, "Listen on an address of each kind that is announced")]
    return []


def _reached(config: Config) -> list[Finding]:
    """Whoever is to watch over UDP has to reach the HTTP interface first, directly or through a proxy."""
    if _all_loopback(config.local.announced) or config.http.trusted_proxies:
        return []
    host, _ = split_listen(config.http.listen)
    if not is_loopback(host):
        return []
    text = f"other machines may watch at {config.local.announced[0]}, and http.listen is {config.http.listen} only"
    return [warn("local.listen", text, "Let http.listen be an address that they reach (it needs a token), or a proxy")]


def _all_loopback(addresses: Sequence[str]) -> bool:
    return all(is_loopback(announced(address)[0]) for address in addresses)


def _cannot_bind(address: str, port: int) -> str:
    """Why a UDP socket cannot be bound there; "" when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
