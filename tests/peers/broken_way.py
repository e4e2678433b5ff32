"""What is between the relay and a WHIP server on this machine: HTTP passes, and media by a UDP port that can fall
silent, as where a router has forgotten of a connection. Each answer, also to an ICE restart, names a new such port.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, cast

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.server import HttpServer

_CANDIDATE: Final = re.compile(r"a=candidate:.*\r\n")
_END: Final = "a=end-of-candidates\r\n"
_NOWHERE: Final = "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"
"""werift wants one."""
_PASSED: Final = ("content-type", "if-match", "etag", "location")


class _Back(asyncio.DatagramProtocol):
    """What the server sends to one of those that reach it by `way`."""

    def __init__(self, way: _Way, caller: tuple[str, int]) -> None:
        self._way, self._caller = way, caller

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._way.silent:
            self._way.transport.sendto(data, self._caller)


class _Way(asyncio.DatagramProtocol):
    """One UDP port that leads to the server's."""

    transport: asyncio.DatagramTransport

    def __init__(self, server: int) -> None:
        self._server = server
        self._callers: dict[tuple[str, int], asyncio.Queue[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.silent:
            return
        if (queue := self._callers.get(addr)) is None:
            queue = self._callers[addr] = asyncio.Queue()
            self._tasks.append(asyncio.get_running_loop().create_task(self._pass(addr, queue)))
        queue.put_nowait(data)

    async def _pass(self, caller: tuple[str, int], queue: asyncio.Queue[bytes]) -> None:
        loop, server = asyncio.get_running_loop(), ("127.0.0.1", self._server)
        there, _ = await loop.create_datagram_endpoint(lambda: _Back(self, caller), remote_addr=server)
        try:
            while True:
                there.sendto(await queue.get())
        finally:
            there.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.transport.close()


class BrokenWay:
    """Stands before the server at `target`; what it publishes at is `url`."""

    def __init__(self, target: str) -> None:
        self._target = target.partition("/whip/")[0]
        routes = [Route("/{path:path}", self._request, methods=["POST", "PATCH", "DELETE"])]
        self._front = HttpServer(Starlette(routes=routes), "127.0.0.1", 0)
        self._ways: list[_Way] = []
        self.url = ""
        self.requests: list[tuple[str, int]] = []
        """Method and status of each."""

    async def __aenter__(self) -> BrokenWay:
        await self._front.start()
        self.url = f"{self._front.url}/whip/{{name}}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._front.stop()
        for way in self._ways:
            way.close()

    def cut(self) -> None:
        """No packet passes by the ports that there are."""
        for way in self._ways:
            way.silent = True

    async def _request(self, request: Request) -> Response:
        # The server hears nothing of the relay's own addresses: it could send there directly.
        body = _CANDIDATE.sub("", (await request.body()).decode()).replace(_END, _NOWHERE + _END)
        async with httpx.AsyncClient(timeout=10.0) as http:
            answer = await http.request(
                request.method, self._target + request.url.path, content=body, headers=_passed(request.headers)
            )
        self.requests.append((request.method, answer.status_code))
        return Response(await self._led_here(answer.text), answer.status_code, _passed(answer.headers))

    async def _led_here(self, answer: str) -> str:
        found = [line.split() for line in _CANDIDATE.findall(answer)]
        port = next((int(words[5]) for words in found if words[2].lower() == "udp" and words[4] == "127.0.0.1"), 0)
        if not port:
            return answer
        loop = asyncio.get_running_loop()
        transport, way = await loop.create_datagram_endpoint(lambda: _Way(port), local_addr=("127.0.0.1", 0))
        self._ways.append(way)
        here: int = transport.get_extra_info("sockname")[1]
        return _CANDIDATE.sub("", answer) + f"a=candidate:1 1 udp 2130706431 127.0.0.1 {here} typ host\r\n"


def _passed(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in _PASSED if name in headers}
