"""Whose process listens at an address of this machine, so that the token is sent to no other (Linux, /proc/net/tcp)."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def owners(host: str, port: int, tables: Iterable[Path] = _TABLES) -> set[int]:
    """User ids of the sockets that take connections to `host` (an address or "localhost") and `port`.

    Empty when none of this machine's processes listens there, or when the kernel does not say (no /proc).
    """
    wanted = {ipaddress.ip_address(a) for a in (("127.0.0.1", "::1") if host == "localhost" else (host,))}
    return {
        uid
        for table in tables
        for address, at, uid in _listening(table)
        if at == port and (address in wanted or _takes_all(address, wanted))
    }


def trusted(user_ids: Iterable[int], *folders: Path) -> bool:
    """Whether every one of these users may know the token: root, we ourselves, the owner of one of `folders`."""
    ours = {0, os.getuid()}
    for folder in folders:
        if folder.is_dir():
            ours.add(folder.stat().st_uid)
    return set(user_ids) <= ours


def _takes_all(address: _Address, wanted: Iterable[_Address]) -> bool:
    """Whether `address` is a wildcard for one of `wanted`; the one of IPv6 takes IPv4 connections as well."""
    return address.is_unspecified and (address.version == 6 or any(w.version == 4 for w in wanted))


def _listening(table: Path) -> Iterator[tuple[_Address, int, int]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        yield _parse(address), int(port, 16), int(fields[7])


def _parse(text: str) -> _Address:
    """The kernel prints each 32-bit word of the address in this machine's byte order."""
    words = [int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    return getattr(found, "ipv4_mapped", None) or found
