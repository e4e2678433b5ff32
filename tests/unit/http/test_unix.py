"""The Unix socket of the command line: who may open it, and that it does not stay away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from relay_common.clock import SystemClock
from relay_common.errors import ConfigError
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.supervise import Loops


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def slowly(request: Request) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{number}\n"
            await go_on.wait()

    go_on: asyncio.Event = request.app.state.go_on
    return StreamingResponse(words())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[UnixServer]:
    app = Starlette(routes=[Route("/", hello), Route("/slowly", slowly)])
    app.state.go_on = asyncio.Event()
    server = UnixServer(app, tmp_path / "run" / "http.sock", Loops(SystemClock()), check=0.02)
    (tmp_path / "run").mkdir(mode=0o700)
    await server.start()
    yield server
    await server.stop()


def client(server: UnixServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=server.url), base_url="http://relay")


async def made_again(server: UnixServer, times: int) -> None:
    async with asyncio.timeout(30.0):
        while server.counters()["rebound"] < times:
            await asyncio.sleep(0.01)


async def test_only_its_owner_may_open_it_and_it_goes_when_it_stops(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    path.write_text("left by an earlier process")
    server = UnixServer(Starlette(routes=[Route("/", hello)]), path, Loops(SystemClock()))
    await server.start()
    assert path.stat().st_mode & 0o777 == 0o600
    async with client(server) as http:
        assert (await http.get("/")).text == "hello"
    await server.stop()
    assert not path.exists()


async def test_a_directory_that_cannot_hold_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths\.runtime_dir"):
        await UnixServer(Starlette(), tmp_path / "missing" / "http.sock", Loops(SystemClock())).start()


async def test_a_deleted_socket_is_made_again_with_its_directory(server: UnixServer) -> None:
    path = Path(server.url)
    path.unlink()
    await made_again(server, 1)
    path.unlink()
    path.parent.rmdir()
    await made_again(server, 2)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    async with client(server) as http:
        assert (await http.get("/")).text == "hello"


def bound(server: UnixServer) -> int:
    """Sockets of that path, deleted or not: other tests of this process may have opened and closed files meanwhile."""
    return sum(line.endswith(f" {server.url}") for line in Path("/proc/net/unix").read_text().splitlines())


async def test_what_is_open_goes_on_and_nothing_leaks(server: UnixServer) -> None:
    async with client(server) as http, http.stream("GET", "/slowly") as reply:
        lines = reply.aiter_lines()
        assert await anext(lines) == "0"
        assert (before := bound(server)) == 2, "what listens, and the connection"
        for number in range(5):
            Path(server.url).unlink()
            await made_again(server, number + 1)
        assert bound(server) == before
        server._app.state.go_on.set()
        assert [line async for line in lines] == ["1", "2"]


async def test_a_socket_that_cannot_be_made_is_said_once(server: UnixServer, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(server.url)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")

    def said() -> int:
        return sum("cannot be re-created" in record.message for record in caplog.records)

    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(10.0):
            while not said():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    assert said() == 1
    path.parent.unlink()
    await made_again(server, 1)
