"""The real server against clients that open many connections, say nothing, half a request, or read nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.connection import ClientTimeouts
from relay_supervisor.http.replies import ApiError, on_api_error, read_body
from relay_supervisor.http.server import HttpServer

REQUEST = b"GET /hello HTTP/1.1\r\nHost: relay\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response("hello")


async def slow(request: Request) -> Response:
    await asyncio.sleep(30)
    return Response("late")


async def large(request: Request) -> Response:
    return Response(b"x" * (32 << 20))


async def echo(request: Request) -> Response:
    return Response(str(len(await read_body(request))))


Serve = Callable[..., Awaitable[HttpServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[HttpServer] = []

    async def start(**options: object) -> HttpServer:
        app = Starlette(
            routes=[
                Route("/hello", hello),
                Route("/slow", slow),
                Route("/large", large),
                Route("/echo", echo, methods=["POST"]),
            ],
            exception_handlers={ApiError: on_api_error},
        )
        server = HttpServer(app, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


class Client:
    """A TCP client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: HttpServer, said: bytes = b"") -> Client:
        port = int(server.url.rpartition(":")[2])
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(said)
        return client

    async def status(self) -> int:
        """Of the next answer; 0 when the connection was closed without one."""
        async with asyncio.timeout(20):
            try:
                line = await self.reader.readline()
            except ConnectionError:
                return 0
        return int(line.split()[1]) if line else 0

    async def closed(self) -> bool:
        try:
            async with asyncio.timeout(20):
                await self.reader.read()
        except ConnectionError:
            pass
        return True


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_address_gets_64_connections_and_those_it_has_go_on(serve: Serve) -> None:
    server = await serve()
    idle = [await Client.to(server) for _ in range(64)]
    assert await (await Client.to(server, REQUEST)).status() == 503
    idle[0].writer.write(REQUEST)
    assert await idle[0].status() == 200
    idle[1].writer.close()
    await settled(lambda: len(server._bounds) == 63)
    assert await (await Client.to(server, REQUEST)).status() == 200
    assert server.counters()["refused_address"] == 1
    for client in idle:
        client.writer.close()


async def test_the_connections_of_a_trusted_proxy_have_no_bound_of_their_own(serve: Serve) -> None:
    server = await serve(proxies=TrustedProxies(["127.0.0.1"]))
    clients = [await Client.to(server) for _ in range(80)]
    assert await (await Client.to(server, REQUEST)).status() == 200
    for client in clients:
        client.writer.close()


async def test_when_all_are_taken_idle_ones_make_room_and_busy_ones_stay(serve: Serve) -> None:
    server = await serve(most=4)
    busy = [await Client.to(server, REQUEST.replace(b"hello", b"slow")) for _ in range(2)]
    await settled(lambda: len(server._bounds._idle) == 0 and len(server._bounds) == 2)
    idle = [await Client.to(server) for _ in range(2)]
    await settled(lambda: len(server._bounds) == 4)
    late = await Client.to(server, REQUEST)  # which ends when nobody holds it
    assert await late.status() == 200
    assert await idle[0].closed()
    assert server.counters()["displaced"] == 1
    assert len(server._bounds) == 4
    for client in (*busy, *idle, late):
        client.writer.close()


SLOW_BODY = b"POST /echo HTTP/1.1\r\nHost: relay\r\nContent-Length: 10\r\n\r\nabc"


async def test_who_never_sends_the_whole_body_takes_no_place_from_others(serve: Serve) -> None:
    server = await serve(most=4)
    busy = await Client.to(server, SLOW_BODY.replace(b"POST /echo", b"GET /slow") + b"defghij")
    slow = [await Client.to(server, SLOW_BODY) for _ in range(3)]
    await settled(lambda: len(server._bounds) == 4)
    slow[1].writer.write(b"def")  # nor does a byte now and then buy time
    assert await (await Client.to(server, REQUEST)).status() == 200
    assert await slow[0].closed()
    for client, rest in ((slow[1], b"ghij"), (slow[2], b"defghij")):
        client.writer.write(rest)
        assert await client.status() == 200, "they have sent theirs, and are answered"
    assert server.counters()["displaced"] == 1
    assert server.counters()["refused_full"] == 0
    for client in (busy, *slow):
        client.writer.close()


async def test_a_body_that_waits_behind_an_answer_holds_no_place_either(serve: Serve) -> None:
    server = await serve(most=1)
    client = await Client.to(server, REQUEST + SLOW_BODY)
    assert await client.status() == 200
    await settled(lambda: len(server._bounds._idle) == 1)
    assert await (await Client.to(server, REQUEST)).status() == 200
    client.writer.close()


async def test_a_request_that_is_there_is_answered_however_many_connect_behind_it(serve: Serve) -> None:
    server = await serve(most=16)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        # Without a turn of the loop: all of them are accepted afterwards.
        client = stack.enter_context(socket.create_connection(address))
        client.sendall(REQUEST)
        for _ in range(50):
            stack.enter_context(socket.create_connection(address))
        answered = Client(*await asyncio.open_connection(sock=client.dup()))
        assert await answered.status() == 200
        await settled(lambda: server.counters()["displaced"] > 30)
        answered.writer.close()


@pytest.mark.parametrize("said", [b"", REQUEST[:20], REQUEST + REQUEST[:20]], ids=["nothing", "half", "half of two"])
async def test_a_request_that_does_not_come_ends_the_connection(serve: Serve, said: bytes) -> None:
    server = await serve(timeouts=ClientTimeouts(header=0.3))
    client = await Client.to(server, said)
    started = time.monotonic()
    assert await client.closed()
    assert time.monotonic() - started < 10  # uvicorn alone would wait for ever, or 15 s after the first answer
    assert server.counters()["late"] == 1
    client.writer.close()


def test_a_header_has_ten_seconds_and_an_answer_thirty_to_be_read() -> None:
    assert ClientTimeouts() == ClientTimeouts(header=10.0, read=30.0)


async def test_trickling_does_not_buy_time(serve: Serve) -> None:
    server = await serve(timeouts=ClientTimeouts(header=0.5))
    client = await Client.to(server)
    for byte in REQUEST[:-4] * 20:
        if server.counters()["late"]:
            break
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    assert server.counters()["late"] == 1
    client.writer.close()


async def test_a_slow_answer_is_not_a_late_request(serve: Serve) -> None:
    server = await serve(timeouts=ClientTimeouts(header=0.2))
    client = await Client.to(server, REQUEST.replace(b"hello", b"slow"))
    await asyncio.sleep(0.8)
    assert server.counters()["late"] == 0
    assert len(server._bounds) == 1
    client.writer.close()


async def test_a_body_that_does_not_come_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_supervisor.http.replies.BODY_WITHIN", 0.3)
    server = await serve()
    client = await Client.to(server, b"POST /echo HTTP/1.1\r\nHost: relay\r\nContent-Length: 100\r\n\r\nabc")
    assert await client.status() == 408
    client.writer.close()


async def test_a_client_that_reads_nothing_is_dropped(serve: Serve) -> None:
    server = await serve(timeouts=ClientTimeouts(read=0.3))
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(REQUEST.replace(b"hello", b"large"))
        await settled(lambda: server.counters()["stuck"] == 1)
        await settled(lambda: len(server._bounds) == 0)


async def test_what_is_no_http_is_counted_and_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = await serve()
    for _ in range(20):
        client = await Client.to(server, b"\x16\x03\x01 hello\r\n\r\n")
        assert await client.status() == 400
        client.writer.close()
    assert server.counters()["invalid"] == 20
    assert caplog.records == []


async def test_many_at_once_cost_a_bounded_number_of_descriptors(serve: Serve) -> None:
    server = await serve(most=16)
    clients = [await Client.to(server) for _ in range(60)]
    await settled(lambda: server.counters()["displaced"] == 44)
    assert len(server._bounds) == 16
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.get("/hello")).status_code == 200
    for client in clients:
        client.writer.close()
    await settled(lambda: len(server._bounds) == 0)
