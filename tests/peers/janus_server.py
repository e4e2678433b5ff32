"""Janus (Debian's), whose VideoRoom takes publishers: a WHIP front of ours speaks its HTTP API."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.server import HttpServer
from tests.fixtures.ports import free_port
from tests.peers.packages import program
from tests.peers.whip_peers import Process, Received

ROOM: Final = 1234
_SECRET: Final = "janus-admin"
_SETTINGS: Final = """
general: {{ admin_secret = "{secret}" }}
nat: {{ ice_ignore_list = "vmnet" }}
plugins: {{ disable = "libjanus_lua.so,libjanus_duktape.so,libjanus_sip.so" }}
transports: {{ disable = "libjanus_pfunix.so,libjanus_websockets.so" }}
"""
_HTTP: Final = """
general: {{ json = "plain", base_path = "/janus", http = true, port = {port}, ip = "127.0.0.1", https = false }}
admin: {{ admin_base_path = "/admin", admin_http = true, admin_port = {admin}, admin_ip = "127.0.0.1" }}
"""
_ROOM: Final = """
room-{room}: {{ description = "cameras", publishers = 20, bitrate = 0, audiocodec = "opus", videocodec = "h264" }}
"""


class JanusServer:
    """Janus and its front. The front stays when Janus is killed, and answers 502 until it is back."""

    name = "janus"

    def __init__(self, directory: Path) -> None:
        self._port, self._admin = free_port(), free_port()
        settings = directory / "janus"
        settings.mkdir()
        (settings / "janus.jcfg").write_text(_SETTINGS.format(secret=_SECRET))
        (settings / "janus.transport.http.jcfg").write_text(_HTTP.format(port=self._port, admin=self._admin))
        (settings / "janus.plugin.videoroom.jcfg").write_text(_ROOM.format(room=ROOM))
        self._process = Process(program("janus"), "-F", str(settings), port=self._port)
        self._numbers = itertools.count(1)
        self._sessions: dict[str, str] = {}
        """Handles of Janus by the path of ours."""
        routes = [
            Route("/whip/{name}", self._publish, methods=["POST"]),
            Route("/sessions/{number}", self._end, methods=["DELETE"]),
        ]
        self._front = HttpServer(Starlette(routes=routes), "127.0.0.1", 0)
        self._http = httpx.AsyncClient(timeout=10.0)
        self.url = ""

    async def open(self) -> None:
        await self._front.start()
        self.url = f"{self._front.url}/whip/{{name}}"
        await self.start()

    async def close(self) -> None:
        await self.kill()
        await self._front.stop()
        await self._http.aclose()

    async def start(self) -> None:
        await self._process.start()

    async def kill(self) -> None:
        await self._process.kill()
        self._sessions.clear()

    async def received(self) -> Received:
        if not self._sessions:
            return Received()
        handle = next(reversed(self._sessions.values()))
        body = {"janus": "handle_info", "admin_secret": _SECRET, "transaction": secrets.token_hex(8)}
        try:
            answer = await self._http.post(f"http://127.0.0.1:{self._admin}/admin{handle}", json=body)
        except httpx.HTTPError:
            return Received()
        return _counted(answer.json())

    async def _ask(self, path: str, **body: Any) -> dict[str, Any]:
        body["transaction"] = secrets.token_hex(8)
        answer = await self._http.post(f"http://127.0.0.1:{self._port}/janus{path}", json=body)
        found: dict[str, Any] = answer.json()
        if found["janus"] == "error":
            raise ValueError(found["error"]["reason"])
        return found

    async def _publish(self, request: Request) -> Response:
        offer = (await request.body()).decode()
        try:
            session = f"/{(await self._ask('', janus='create'))['data']['id']}"
            attached = await self._ask(session, janus="attach", plugin="janus.plugin.videoroom")
            handle = f"{session}/{attached['data']['id']}"
            join = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM}
            await self._ask(handle, janus="message", body=join, jsep={"type": "offer", "sdp": offer})
            answer = await self._event(session)
        except httpx.HTTPError:
            return Response("Janus is not there", 502)
        location = f"/sessions/{next(self._numbers)}"
        self._sessions[location] = handle
        return Response(answer, 201, {"Location": location}, media_type="application/sdp")

    async def _event(self, session: str) -> str:
        """The answer's SDP: the plugin's events are fetched one by one."""
        async with asyncio.timeout(10):
            while True:
                answer = await self._http.get(f"http://127.0.0.1:{self._port}/janus{session}", params={"maxev": 1})
                event = answer.json()
                if "jsep" in event:
                    return str(event["jsep"]["sdp"])
                if "error" in (said := event.get("plugindata", {}).get("data", {})):
                    raise ValueError(said["error"])

    async def _end(self, request: Request) -> Response:
        handle = self._sessions.pop(request.url.path, "")
        if not handle:
            return Response(status_code=404)
        await self._ask(f"/{handle.split('/')[1]}", janus="destroy")
        return Response(status_code=200)


def _counted(answer: dict[str, Any]) -> Received:
    media = {one["type"]: one for one in answer["info"].get("webrtc", {}).get("media", {}).values()}
    packets = {kind: one["stats"]["in"]["packets"] for kind, one in media.items()}
    lost = sum(one["rtcp"]["main"]["lost"] for one in media.values())
    return Received(packets.get("video", 0), packets.get("audio", 0), lost)
