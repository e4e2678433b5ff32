"""Other people's WHIP servers, each behind one interface: started, killed, and asked what it received."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from typing import Protocol as Interface

import httpx
from playwright.async_api import Browser, Error, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.server import HttpServer
from tests.fixtures.chromium import chromium
from tests.fixtures.ports import free_port
from tests.fixtures.sfu_seat import ORIGIN, PAGE
from tests.peers.packages import FOLDER, go2rtc, node

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Received:
    """Packets of the newest session."""

    video: int = 0
    audio: int = 0
    lost: int = 0
    """Missing between the others, as the server itself counts them."""


class WhipPeer(Interface):
    """A WHIP server."""

    name: str
    url: str
    """As a [[whip]] table has it; known once it is open."""

    async def open(self) -> None:
        """Start for the first time."""

    async def close(self) -> None:
        """Kill it, with all that is ours about it."""

    async def start(self) -> None:
        """Start it, again where it was before; returns when it listens."""

    async def kill(self) -> None:
        """End it without a farewell."""

    async def received(self) -> Received:
        """What its newest session has received; nothing while there is none."""


class Process:
    """A program that listens on a TCP port of 127.0.0.1."""

    def __init__(self, *command: str, port: int) -> None:
        self._command, self._port = command, port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    writer.close()
                    return
                assert self._process.returncode is None, f"{self._command[0]} has ended"
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class _ProcessServer:
    """A WHIP server that is one program."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def open(self) -> None:
        await self.start()

    async def close(self) -> None:
        await self.kill()

    async def start(self) -> None:
        await self._process.start()

    async def kill(self) -> None:
        await self._process.kill()


class Go2rtcServer(_ProcessServer):
    """go2rtc with an empty stream that WHIP fills."""

    name = "go2rtc"

    def __init__(self, directory: Path) -> None:
        port, media = free_port(), free_port()
        config = {
            "api": {"listen": f"127.0.0.1:{port}"},
            # On every address, as it comes: pion offers none of loopback by itself.
            "webrtc": {"listen": f":{media}", "candidates": [f"127.0.0.1:{media}"], "ice_servers": []},
            "rtsp": {"listen": ""},
            "srtp": {"listen": ""},
            "log": {"level": "warn"},
            "streams": {"front-door": ""},
        }
        file = directory / "go2rtc.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        super().__init__(Process(go2rtc(), "-config", str(file), port=port))
        self._api = f"http://127.0.0.1:{port}/api"
        self.url = f"{self._api}/webrtc?dst=front-door"

    async def received(self) -> Received:
        try:
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"{self._api}/streams", params={"src": "front-door"})
        except httpx.HTTPError:
            return Received()
        found: dict[str, Any] = answer.json()
        packets = {
            receiver["codec"]["codec_name"]: receiver["packets"]
            for producer in found["producers"] or []
            for receiver in producer.get("receivers") or []
        }
        return Received(packets.get("h264", 0), packets.get("opus", 0))


class NodeServer(_ProcessServer):
    """A script of this folder: `werift_server.mjs` or `libdatachannel_server.mjs`."""

    def __init__(self, name: str) -> None:
        self.name = name
        command, port = node(), free_port()
        # Modules are looked for beside the script, so it is copied to where they are.
        for script in (f"{name}_server.mjs", "whip_front.mjs"):
            (FOLDER / script).write_text((HERE / script).read_text())
        super().__init__(Process(command, str(FOLDER / f"{name}_server.mjs"), str(port), port=port))
        self._place = f"http://127.0.0.1:{port}"
        self.url = f"{self._place}/whip/{{name}}"

    async def received(self) -> Received:
        try:
            async with httpx.AsyncClient() as http:
                found = (await http.get(f"{self._place}/received")).json()
        except httpx.HTTPError:
            return Received()
        video, audio = found["video"], found["audio"]
        return Received(video["packets"], audio["packets"], video["lost"] + audio["lost"])


class ChromiumServer:
    """A page that answers offers, and plays; the front stays when it is killed, and answers 502 until it is back."""

    name = "chromium"

    def __init__(self) -> None:
        routes = [
            Route("/whip/{name}", self._publish, methods=["POST"]),
            Route("/session", lambda _: Response(status_code=200), methods=["DELETE"]),
        ]
        self._front = HttpServer(Starlette(routes=routes), "127.0.0.1", 0)
        self._stack = contextlib.AsyncExitStack()
        self._browser: Browser | None = None
        self._page: Page | None = None
        self.url = ""

    async def open(self) -> None:
        self._browser = await self._stack.enter_async_context(chromium())
        await self._front.start()
        self.url = f"{self._front.url}/whip/{{name}}"
        await self.start()

    async def close(self) -> None:
        self._page = None
        await self._front.stop()
        await self._stack.aclose()

    async def start(self) -> None:
        assert self._browser is not None
        page = await self._browser.new_page()
        await page.route(ORIGIN, lambda route: route.fulfill(path=PAGE, content_type="text/html"))
        await page.goto(ORIGIN)
        self._page = page

    async def kill(self) -> None:
        if self._page is not None:
            page, self._page = self._page, None
            with contextlib.suppress(Error):  # it says that the page was not loaded
                await page.goto("chrome://crash")

    async def received(self) -> Received:
        if self._page is None:
            return Received()
        found = await self._page.evaluate("received()")
        video, audio = found["video"], found["audio"]
        lost = video.get("packetsLost", 0) + audio.get("packetsLost", 0)
        return Received(video.get("packetsReceived", 0), audio.get("packetsReceived", 0), lost)

    async def _publish(self, request: Request) -> Response:
        if self._page is None:
            return Response("the page is not there", 502)
        try:
            answer = await self._page.evaluate("answer", (await request.body()).decode())
        except Error as error:
            return Response(str(error), 502)
        return Response(answer, 201, {"Location": "/session"}, media_type="application/sdp")
