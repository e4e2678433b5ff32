"""Other people's WHEP players: go2rtc with a `webrtc:` source, werift, Firefox; and a plain page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

from relay_supervisor.http.server import HttpServer
from tests.fixtures.ports import free_port
from tests.peers.packages import FOLDER, go2rtc, node, program
from tests.peers.whip_peers import HERE, Process

PAGE: Final = HERE / "whep_page.html"


class Lines:
    """A script of this folder that is asked, and answers, one line of JSON at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self, within: float = 60.0) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            line = await self._process.stdout.readline()
        assert line, "it has ended: see standard error"
        return json.loads(line)

    async def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        answer = await self.read()
        assert "error" not in answer, answer
        return answer["value"]


@contextlib.asynccontextmanager
async def script(name: str, *arguments: str) -> AsyncIterator[Lines]:
    command = [node(), str(FOLDER / name), *arguments]
    # Modules are looked for beside the script, so it is copied to where they are.
    for copied in (name, "whip_front.mjs"):
        (FOLDER / copied).write_text((HERE / copied).read_text())
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20, start_new_session=True
    )
    try:
        yield Lines(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a browser that did not start in time must not stay, either
        await process.wait()


@contextlib.asynccontextmanager
async def firefox() -> AsyncIterator[Lines]:
    """Firefox with a blank page; `ask(goto=URL)` and `ask(evaluate=EXPRESSION)`."""
    async with script("firefox.mjs", program("firefox-esr")) as browser:
        await browser.read()
        yield browser


@contextlib.asynccontextmanager
async def plain_page() -> AsyncIterator[str]:
    """The URL of a WHEP page that is no part of the relay."""
    server = HttpServer(Starlette(routes=[Route("/", lambda _: FileResponse(PAGE))]), "127.0.0.1", 0)
    await server.start()
    try:
        yield f"{server.url}/"
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def go2rtc_player(directory: Path, sources: dict[str, str]) -> AsyncIterator[str]:
    """go2rtc that plays these sources by name; the URL of its RTSP server, with a slash."""
    port = free_port()
    config = {
        "api": {"listen": ""},
        "webrtc": {"listen": f":{free_port()}", "ice_servers": []},  # by default it asks a public STUN server
        "srtp": {"listen": ""},
        "rtsp": {"listen": f"127.0.0.1:{port}"},
        "log": {"level": "warn"},
        "streams": sources,
    }
    file = directory / "go2rtc-player.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    process = Process(go2rtc(), "-config", str(file), port=port)
    await process.start()
    try:
        yield f"rtsp://127.0.0.1:{port}/"
    finally:
        await process.kill()
