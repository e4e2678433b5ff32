"""Other people's WebRTC stacks as cameras: ICE, DTLS, SRTP and media of each, into the real ingest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol as Interface

import pytest
from playwright.async_api import Page

from relay_common.clock import SystemClock
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.ingest_keeper import IngestKeeper
from relay_worker.camera.webrtc_source import IngestError, IngestSettings
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from tests.fixtures.chromium import chromium
from tests.fixtures.ports import free_udp_ports
from tests.peers.packages import FOLDER, node
from tests.peers.rtp_feed import RtpFeed

pytestmark = [pytest.mark.media, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
SECONDS = 10
"""How long each has to play without a loss."""


class Camera(Interface):
    """A peer that answers one offer and then sends."""

    async def answer(self, offer: str) -> str: ...


class NodeCamera:
    """A script of this folder, and the media it sends on."""

    def __init__(self, process: asyncio.subprocess.Process, feed: RtpFeed) -> None:
        self._process, self._feed = process, feed

    async def answer(self, offer: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"offer": offer}).encode() + b"\n")
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        self._feed.start()
        return str(json.loads(line)["answer"])


@contextlib.asynccontextmanager
async def node_camera(script: str) -> AsyncIterator[NodeCamera]:
    command = [node()]
    video, _, audio, _ = free_udp_ports(4)  # each with its RTCP's beside it, for FFmpeg
    # Modules are looked for beside the script, so it is copied to where they are.
    place = FOLDER / script
    place.write_text((HERE / script).read_text())
    command += [str(place), str(video), str(audio)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    feed = RtpFeed(video, audio)
    try:
        yield NodeCamera(process, feed)
    finally:
        feed.stop()
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


class ChromiumCamera:
    """The page of this folder."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def answer(self, offer: str) -> str:
        return str(await self._page.evaluate("answer", offer))


class Home:
    """The relay's ingest with its pipeline, and what comes out."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.failed: list[IngestError] = []
        self.pipeline = Pipeline()
        self.pipeline.attach(self, time.monotonic())
        settings = IngestSettings(loopback=True)
        self.keeper = IngestKeeper(self.pipeline, SystemClock(), settings, lambda _, error: self.failed.append(error))

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def count(self, kind: Kind) -> int:
        return sum(frame.kind is kind for frame in self.frames)

    async def play(self, camera: Camera) -> None:
        offer = await self.keeper.offer(1)
        answer = Secret(await camera.answer(offer))
        self.keeper.play(GrantedStream(1, Protocol.WEB_RTC, Secret(""), 0.0, answer=answer, offer=1))

    async def until(self, kind: Kind, frames: int, within: float = 40.0) -> None:
        end = time.monotonic() + within
        while self.count(kind) < frames:
            self.keeper.check(time.monotonic())
            assert time.monotonic() < end, f"{self.count(kind)} of {frames} {kind}; {self.keeper.state}; {self.failed}"
            await asyncio.sleep(0.05)


async def plays_without_loss(camera: Camera) -> None:
    """The picture and the sound of `camera` arrive whole, at their rates, with nothing lost."""
    home = Home()
    try:
        await home.play(camera)
        await home.until(Kind.VIDEO, 30)
        await home.until(Kind.AUDIO, 50)
        began, video, audio = time.monotonic(), home.count(Kind.VIDEO), home.count(Kind.AUDIO)
        await home.until(Kind.VIDEO, video + SECONDS * 25)
        await home.until(Kind.AUDIO, audio + SECONDS * 45)
        took = time.monotonic() - began
        tracks = {kind: home.pipeline.track_stats(kind) for kind in (Kind.VIDEO, Kind.AUDIO)}
        assert (tracks[Kind.VIDEO].codec, tracks[Kind.AUDIO].codec) == ("H264", "OPUS")
        assert tracks[Kind.VIDEO].lost_in == tracks[Kind.AUDIO].lost_in == 0
        assert home.failed == []
        print(f"{home.count(Kind.VIDEO) - video} pictures, {home.count(Kind.AUDIO) - audio} of sound in {took:.1f} s")
    finally:
        await home.keeper.close()


@pytest.mark.parametrize("script", ["werift_camera.mjs", "libdatachannel_camera.mjs"])
async def test_a_camera_of_node(script: str) -> None:
    async with node_camera(script) as camera:
        await plays_without_loss(camera)


@pytest.mark.browser
async def test_a_camera_of_chromium() -> None:
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto((HERE / "chromium_camera.html").as_uri())
        await plays_without_loss(ChromiumCamera(page))
