"""Other people's WHIP servers: the relay publishes a camera there, and comes back to one that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.ports import free_port
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.peers.packages import go2rtc

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]

WATCHED = float(os.environ.get("RELAY_WHIP_SECONDS", "10"))
"""Seconds for which nothing may be lost; 30 were watched by hand."""


class Go2rtc:
    """go2rtc with an empty stream that WHIP fills."""

    def __init__(self, directory: Path) -> None:
        self._binary, self._file = go2rtc(), directory / "go2rtc.yaml"
        self.port, self._media = free_port(), free_port()
        config = {
            "api": {"listen": f"127.0.0.1:{self.port}"},
            # On every address, as it comes: pion offers none of loopback by itself.
            "webrtc": {"listen": f":{self._media}", "candidates": [f"127.0.0.1:{self._media}"]},
            "rtsp": {"listen": ""},
            "srtp": {"listen": ""},
            "log": {"level": "warn"},
            "streams": {"front-door": ""},
        }
        self._file.write_text(json.dumps(config))  # JSON is YAML
        self.url = f"http://127.0.0.1:{self.port}/api/webrtc?dst={{name}}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "-config", str(self._file), stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def packets(self) -> dict[str, int]:
        """Packets received, by codec."""
        try:
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"http://127.0.0.1:{self.port}/api/streams", params={"src": "front-door"})
        except httpx.HTTPError:
            return {}
        found: dict[str, Any] = answer.json()
        return {
            receiver["codec"]["codec_name"]: receiver["packets"]
            for producer in found["producers"] or []
            for receiver in producer.get("receivers") or []
        }


@contextlib.asynccontextmanager
async def published(server: Go2rtc) -> AsyncIterator[RunningRelay]:
    await server.start()
    table = {"name": "go2rtc", "url": server.url}
    try:
        async with running_relay(1, sections={"whip": table}) as relay:
            await relay.until(lambda: _live(relay), 60.0, "live at go2rtc")
            yield relay
    finally:
        await server.kill()


def _live(relay: RunningRelay) -> bool:
    return any(sink.live for camera in relay.supervisor.status().cameras for sink in camera.sinks if sink.name)


async def received(server: Go2rtc, within: float = 30.0) -> float:
    """Wait until go2rtc has picture and sound; returns the seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within):
        while not {"h264", "opus"} <= {codec for codec, packets in (await server.packets()).items() if packets}:
            await asyncio.sleep(0.05)
    return loop.time() - began


async def test_go2rtc_takes_a_camera_without_a_loss(tmp_path: Path) -> None:
    server = Go2rtc(tmp_path)
    async with published(server) as relay:
        await received(server)
        await asyncio.sleep(WATCHED)
        (camera,) = relay.supervisor.status().cameras
        (sink,) = (found for found in camera.sinks if found.name)
        got = await server.packets()
        assert got["h264"] >= sink.video_packets - 5
        assert got["opus"] >= sink.audio_packets - 5
        assert (sink.loss, sink.nacks, sink.dropped, sink.publications) == (0.0, 0, 0, 1)
