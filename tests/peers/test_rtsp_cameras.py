"""Other people's RTSP servers as cameras: their dialogue and their packets, into the relay's own RTSP session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import av
import pytest

from relay_common.clock import SystemClock
from relay_common.secrets import Secret
from relay_common.simulation.camera.camera import Camera, CameraSettings
from relay_common.simulation.camera.certs import make_server_context
from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.rtsp_server import RtspServer
from relay_common.simulation.camera.rtsp_streams import Admission
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.source import RtspSource
from tests.fixtures.ports import free_port
from tests.peers.packages import go2rtc, gstreamer
from tests.unit.rtp.test_h264_packetize import unpack

pytestmark = [pytest.mark.media, pytest.mark.timeout(120)]

SECONDS = 10
"""How long each has to play without a loss."""
VIDEO = VideoSpec(width=320, height=180, seconds=2.0)


class Screen:
    """What leaves the pipeline, put together and decoded."""

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._decoder = av.CodecContext.create("h264", "r")
        self.decoded = self.sound = 0

    def send(self, frame: Frame, now: float) -> None:
        if frame.kind is Kind.AUDIO:
            self.sound += len(frame.payloads)
            return
        for payload, marker in frame.payloads:
            self._payloads.append(bytes(payload))
            if marker:
                self._decode()

    def _decode(self) -> None:
        unit = b"".join(b"\0\0\0\1" + nal for nal in unpack(self._payloads))
        self._payloads.clear()
        self.decoded += len(self._decoder.decode(av.Packet(unit)))  # type: ignore[attr-defined]


async def plays_without_loss(url: str) -> dict[str, int]:
    """The camera behind `url` is decoded at its rate, with sound, and nothing is lost; what was tolerated."""
    pipeline, screen = Pipeline(), Screen()
    pipeline.attach(screen, time.monotonic())
    source = RtspSource(Secret(url), pipeline, SystemClock())
    running = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(SECONDS + 40):
            while screen.decoded < SECONDS * 30 or screen.sound < SECONDS * 45:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.05)
        source.stop()
        await running
        for kind in (Kind.VIDEO, Kind.AUDIO):
            stats = pipeline.track_stats(kind)
            assert stats.packets_in > 0
            assert stats.lost_in == 0
        return source.tolerated()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def served_by_go2rtc(directory: Path) -> AsyncIterator[str]:
    """The URL at which go2rtc serves the simulated camera: description, dialogue and packets are its own."""
    binary = go2rtc()
    camera = Camera(CameraSettings("Test", VIDEO, needs_range=False))
    await asyncio.to_thread(camera.prepare)
    server = RtspServer(lambda path, token, wall: Admission(200, camera, path), tls=make_server_context(directory)[0])
    await server.start()
    port = free_port()
    config = {
        "api": {"listen": ""},
        "webrtc": {"listen": ""},
        "srtp": {"listen": ""},
        "rtsp": {"listen": f"127.0.0.1:{port}"},
        "log": {"level": "warn"},
        # rtspx is RTSPS without verification.
        "streams": {"camera": f"{server.url.replace('rtsps', 'rtspx')}/x#backchannel=0"},
    }
    path = directory / "go2rtc.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    process = await asyncio.create_subprocess_exec(binary, "-config", str(path), stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"rtsp://127.0.0.1:{port}/camera"
    finally:
        process.kill()
        await process.wait()
        await server.stop()


async def test_go2rtc_as_a_camera(tmp_path: Path) -> None:
    async with served_by_go2rtc(tmp_path) as url:
        tolerated = await plays_without_loss(url)
    assert tolerated["session_renamed"] == 1, "each SETUP is answered with another session"


async def test_gstreamer_as_a_camera() -> None:
    process = await asyncio.create_subprocess_exec(
        gstreamer(), str(Path(__file__).with_name("gst_camera.py")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = (await asyncio.wait_for(process.stdout.readline(), 30)).strip().decode()
        assert port, "it ended: see standard error"
        await plays_without_loss(f"rtsp://127.0.0.1:{port}/camera")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
