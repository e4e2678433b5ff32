"""What a supervisor that stands by withstands: guests in numbers, odd requests, clients that go at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from starlette.types import Message

from relay_supervisor.http.passing import Commander
from relay_supervisor.viewing.views import OPERATOR
from tests.fixtures.supervisor_pair import BEARER, TOKEN, Pair, commanded_by, pair


async def hung(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One that commands, and never answers."""
    await reader.read()
    writer.close()


async def until_under_way(two: Pair, number: int) -> None:
    while two.passing.under_way != number:
        await asyncio.sleep(0.01)


async def test_guests_do_not_keep_the_operator_from_being_passed_on(tmp_path: Path) -> None:
    async with pair(tmp_path, most=4) as two, asyncio.timeout(60.0), commanded_by(two, hung):
        clients = [asyncio.ensure_future(two.client.get("/static/style.css", timeout=None)) for _ in range(3)]
        await until_under_way(two, 3)
        assert (await two.client.get("/static/style.css")).json()["error"]["code"] == "too_many_passed_on"
        clients.append(asyncio.ensure_future(two.socket.get("/api/stats", timeout=None)))
        await until_under_way(two, 4)
        for client in clients:
            client.cancel()
        await until_under_way(two, 0)
        await asyncio.gather(*clients, return_exceptions=True)


async def head_of(two: Pair, port: int | None) -> bytes:
    """What comes of HEAD /api/events and, on the same connection, of another request behind it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = f"Host: relay\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(f"HEAD /api/events HTTP/1.1\r\n{lines}".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(f"GET /api/seat HTTP/1.1\r\n{lines}".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def test_a_client_that_asks_for_the_head_of_events_leaves_the_connection_to_others(tmp_path: Path) -> None:
    """To whoever reads it, a proxy as well, the answer is whole: endless, it kept the next request from its answer."""
    async with pair(tmp_path) as two, asyncio.timeout(60.0):
        for client in (two.direct, two.client):
            assert b" 200 " in await head_of(two, client.base_url.port)
            assert (await two.client.get("/api/cameras", headers=BEARER)).status_code == 200
        await until_under_way(two, 0)
        assert two.relay.events.clients == 0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One that commands, and answers with the first line of what it was asked."""
    line = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line))
    await writer.drain()
    writer.close()


async def raw(two: Pair, target: str, method: str = "GET") -> tuple[str, str]:
    """Status line and body of the answer to a request that no client library would change."""
    reader, writer = await asyncio.open_connection("127.0.0.1", two.client.base_url.port)
    lines = f"Host: relay\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    writer.write(f"{method} {target} HTTP/1.1\r\n{lines}".encode())
    head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
    writer.close()
    return head.partition("\r\n")[0], body


async def test_what_is_asked_for_arrives_as_it_was_sent(tmp_path: Path) -> None:
    async with pair(tmp_path) as two, asyncio.timeout(60.0):
        found = ("HTTP/1.1 404 Not Found", '{"error":{"code":"not_found","message":"Not Found","hint":""}}')
        for target in ("/static/../api/cameras", "//api/cameras", "/api/cameras#x", "/api/%00%ff?%zz=%", "*", "x:y"):
            assert await raw(two, target) == found, target
        wrong = ("HTTP/1.1 405 Method Not Allowed", '"method_not_allowed"')
        for path, method in (("/api/cameras", "TRACE"), ("/api/stop", "GET"), ("/livez", "POST")):
            status, body = await raw(two, path, method)
            assert (status, wrong[1] in body) == (wrong[0], True), path
        # To quote it would cost a fifth of a second, of whoever shows no token.
        async with commanded_by(two, echo):
            for target in ("/static/style.css?" + '"' * 50_000, "/static/../<>?\\", "/%7e"):
                assert await raw(two, target) == ("HTTP/1.1 200 OK", f"GET {target} HTTP/1.1")


async def test_an_address_that_is_none_is_said_to_be_and_no_fault_of_the_client(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        for address in ("nowhere", "a b:1", "[:1", "host:port", ":7"):
            two.commander = Commander("a", address, two.clock.now())
            answer = await two.client.get("/api/cameras", headers=BEARER)
            assert answer.status_code == 503, address
            assert answer.json()["error"]["code"] in ("standing_by", "commander_silent"), address
        assert "is said to take requests at 'host:port'" in (await unusable(two, "host:port"))


async def unusable(two: Pair, address: str) -> str:
    two.commander = Commander("a", address, two.clock.now())
    return str((await two.client.get("/api/cameras", headers=BEARER)).json()["error"]["message"])


def timeouts_at(port: int) -> list[int]:
    """Milliseconds for which either end of each connection to a port of this process waits for the other one."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family == socket.AF_INET and port in (one.getpeername()[1], one.getsockname()[1]):
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return sorted(found)


async def test_either_end_notices_that_the_other_ones_machine_is_gone(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        assert (await two.client.get("/api/cameras", headers=BEARER)).status_code == 200
        assert set(timeouts_at(two.at.port)) == {10_000, 30_000}


async def test_a_client_that_goes_at_any_moment_leaves_no_connection_behind(tmp_path: Path) -> None:
    """One in a hundred stayed, of those that there may be at once."""
    async with pair(tmp_path) as two, asyncio.timeout(60.0), commanded_by(two, hung):
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
        scope |= {"client": None, "state": {"visitor": OPERATOR}}
        for turns in range(100):
            gone = asyncio.Event()
            asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

            async def receive(gone: asyncio.Event = gone, asked: Iterator[Message] = asked) -> Message:
                if (first := next(asked, None)) is None:
                    await gone.wait()
                return first or {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                raise AssertionError("there is nothing to answer")

            passing = asyncio.ensure_future(two.passing.pass_on(scope, receive, send, operator=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            gone.set()
            await passing
        transport = two.passing._transport
        assert transport is not None
        assert [one for one in transport._pool.connections if not one.is_idle()] == []
