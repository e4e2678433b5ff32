"""Whose process listens at an address of this machine, so that the token is sent to no other (Linux, /proc/net/tcp)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Listening(NamedTuple):
    """A listening socket, with the user who owns it."""

    address: _Address
    port: int
    uid: int
    inode: int


def owners(host: str, port: int, tables: Iterable[Path] = _TABLES) -> set[int]:
    """User ids of the sockets that take connections to `host` (an address) and `port`.

    Empty when none of this machine's processes listens there, when `host` is a name, or when the kernel does not say
    (no /proc).
    """
    return {found.uid for found in _at(host, port, tables)}


def serves(pid: int, host: str, port: int, tables: Iterable[Path] = _TABLES) -> bool | None:
    """Whether process `pid` takes connections to `host` and `port`; None when its files may not be seen."""
    open_files = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                open_files.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    except OSError:
        return None
    return any(f"socket:[{found.inode}]" in open_files for found in _at(host, port, tables))


def trusted(user_ids: Iterable[int], *folders: Path) -> bool:
    """Whether every one of these users may know the token: root, we ourselves, the owner of one of `folders`."""
    ours = {0, os.getuid()}
    for folder in folders:
        if folder.is_dir():
            ours.add(folder.stat().st_uid)
    return set(user_ids) <= ours


def _at(host: str, port: int, tables: Iterable[Path]) -> Iterator[_Listening]:
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return
    for found in (entry for table in tables for entry in _listening(table) if entry.port == port):
        # The wildcard of IPv6 takes IPv4 connections as well.
        if found.address == wanted or (found.address.is_unspecified and found.address.version >= wanted.version):
            yield found


def _listening(table: Path) -> Iterator[_Listening]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        yield _Listening(_parse(address), int(port, 16), int(fields[7]), int(fields[9]))


def _parse(text: str) -> _Address:
    """The kernel prints each 32-bit word of the address in this machine's byte order."""
    words = [int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    return getattr(found, "ipv4_mapped", None) or found
