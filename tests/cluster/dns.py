"""The cluster's name server, as far as Pods need one: names of Services without an address of their own.

Their addresses are those of the Endpoints that the controller manager keeps. It answers at this machine's address among
the nodes, which every Pod has in its resolv.conf (`pod_launch.py`), and only names of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final

import httpx

from tests.cluster.api import Api, ApiRefused

PORT: Final = 53
DOMAIN: Final = "cluster.local"
SECONDS: Final = 5
"""For which an answer holds, as CoreDNS has it."""
_A, _AAAA, _IN = 1, 28, 1
_NO_SUCH_NAME, _FAILED = 3, 2
_HEADER: Final = struct.Struct("!6H")


def resolv_conf(server: str, namespace: str) -> bytes:
    """What a Pod of that namespace finds as /etc/resolv.conf."""
    search = " ".join([f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN])
    return f"nameserver {server}\nsearch {search}\noptions ndots:5\n".encode()


@contextlib.asynccontextmanager
async def name_server(api: Api, address: str) -> AsyncIterator[None]:
    """Answer at that address, by what the API server knows."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Server(api), local_addr=(address, PORT))
    try:
        yield
    finally:
        transport.close()


class _Server(asyncio.DatagramProtocol):
    def __init__(self, api: Api) -> None:
        self._api = api
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        task = asyncio.create_task(self._answer(data, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, query: bytes, peer: tuple[str, int]) -> None:
        number, _, _, *_ = _HEADER.unpack_from(query)
        name, kind, end = _question(query)
        code, addresses = 0, list[str]()
        try:
            found = await self._addresses(name)
        except (httpx.HTTPError, ApiRefused):
            code = _FAILED
        else:
            if found is None:
                code = _NO_SUCH_NAME
            elif kind == _A:
                addresses = found
        head = _HEADER.pack(number, 0x8580 | code, 1, len(addresses), 0, 0)
        records = [
            struct.pack("!3HIH", 0xC00C, _A, _IN, SECONDS, 4) + socket.inet_aton(address) for address in addresses
        ]
        if not self._transport.is_closing():
            self._transport.sendto(head + query[_HEADER.size : end] + b"".join(records), peer)

    async def _addresses(self, name: str) -> list[str] | None:
        """Those of a Service; None where there is no such name."""
        service, _, rest = name.lower().partition(".")
        namespace, _, domain = rest.partition(".")
        if domain != f"svc.{DOMAIN}":
            return None
        try:
            found = await self._api.get(f"/api/v1/namespaces/{namespace}/endpoints/{service}")
        except ApiRefused as error:
            if error.code == 404:
                return None
            raise
        return [one["ip"] for subset in found.get("subsets") or () for one in subset.get("addresses") or ()]


def _question(query: bytes) -> tuple[str, int, int]:
    """The name that is asked for, the type of record, and where the question ends."""
    labels, at = [], _HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3]), at + 5
