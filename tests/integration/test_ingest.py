"""The ingest against stock aiortc cameras: real ICE, DTLS, SRTP and media, into the real pipeline."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_common.clock import SystemClock
from relay_common.protocol import Protocol, Stage
from relay_common.secrets import Secret
from relay_worker import native
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.ingest_keeper import MAX_OFFERS, IngestKeeper
from relay_worker.camera.webrtc_source import STALL, IngestError, IngestSettings, WebRtcSource
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from tests.fixtures.lateness import Lateness
from tests.fixtures.stock_camera import StockCamera
from tests.fixtures.stock_publisher import encoded_loop

pytestmark = pytest.mark.media

UNITS = encoded_loop()


class Home:
    """A keeper with its pipeline, and cameras that answer its offers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.frames: list[tuple[float, Frame]] = []
        self.failed: list[tuple[int, IngestError]] = []
        self.cameras: list[StockCamera] = []
        self.pipeline = Pipeline()
        self.pipeline.attach(self, time.monotonic())
        self.keeper = IngestKeeper(
            self.pipeline,
            SystemClock(),
            IngestSettings(loopback=True),
            lambda stream, error: self.failed.append((stream.generation, error)),
        )

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append((now, frame))

    async def play(self, generation: int, *, begin: int = 0) -> StockCamera:
        """The part of supervisor and Google: offer, answer, play."""
        offer = await self.keeper.offer(generation)
        camera = StockCamera(self._monkeypatch, UNITS, begin=begin)
        self.cameras.append(camera)
        answer = Secret(await camera.answer(offer))
        self.keeper.play(GrantedStream(generation, Protocol.WEB_RTC, Secret(""), 0.0, answer=answer, offer=generation))
        return camera

    def count(self, kind: Kind) -> int:
        return sum(frame.kind is kind for _, frame in self.frames)

    async def until(self, frames: int, kind: Kind = Kind.VIDEO, within: float = 15.0) -> None:
        end = time.monotonic() + within
        while self.count(kind) < frames:
            self.keeper.check(time.monotonic())
            assert time.monotonic() < end, f"{self.count(kind)} of {frames} frames; {self.keeper.state}; {self.failed}"
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.keeper.close()
        for camera in self.cameras:
            await camera.close()


@pytest.fixture
async def home(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    made = Home(monkeypatch)
    yield made
    await made.close()


async def test_video_and_opus_arrive_on_one_clock_without_transcoding(home: Home) -> None:
    await home.play(1)
    await home.until(45)
    await home.until(60, Kind.AUDIO)
    assert home.keeper.playing
    assert home.keeper.state == "playing"
    video, audio = home.pipeline.track_stats(Kind.VIDEO), home.pipeline.track_stats(Kind.AUDIO)
    assert (video.codec, audio.codec) == ("H264", "OPUS")
    assert (video.width, video.height) == (320, 240)
    assert video.lost_in == audio.lost_in == 0
    for kind, step in ((Kind.VIDEO, 1 / 30), (Kind.AUDIO, 0.02)):
        times = [frame.media_time for _, frame in home.frames if frame.kind is kind]
        distinct = sorted(set(times))
        assert times == sorted(times)
        steps = [b - a for a, b in itertools.pairwise(distinct[-20:])]
        assert abs(sum(steps) / len(steps) - step) < step / 5


class Viewers:
    """Stands for viewers that the worker answers itself."""

    def send(self, frame: Frame, now: float) -> None:
        pass


@pytest.mark.skipif(bool(native.missing()), reason=native.missing())
async def test_media_that_is_plain_is_taken_without_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_in_use", native.decide("compiled"))  # whatever this process has tested before
    by_python = Counter[Kind]()
    came = WebRtcSource._came

    def noted(self: WebRtcSource, *frames: Any) -> None:
        before = {kind: home.count(kind) for kind in Kind}
        came(self, *frames)
        for kind in Kind:
            by_python[kind] += home.count(kind) - before[kind]

    monkeypatch.setattr(WebRtcSource, "_came", noted)
    home = Home(monkeypatch)
    home.pipeline.viewers = Viewers()
    try:
        await home.play(1)
        end = time.monotonic() + 60.0
        # Each second the camera is told what has come, ten times a second clocks are compared, and a machine that is
        # late reads sound and pictures together.
        while any(home.count(kind) - by_python[kind] < 60 for kind in Kind):
            home.keeper.check(time.monotonic())
            assert time.monotonic() < end, f"by the Python {by_python} of {[home.count(kind) for kind in Kind]}"
            await asyncio.sleep(0.3)
        assert home.pipeline.track_stats(Kind.AUDIO).lost_in == 0
    finally:
        await home.close()


@pytest.mark.serial
async def test_a_second_session_takes_over_at_its_keyframe_and_the_first_is_left(home: Home) -> None:
    handovers: list[float] = []
    home.keeper.on_handover = lambda: handovers.append(time.monotonic())
    first = await home.play(1)
    await home.until(20)
    async with Lateness() as lateness:
        await home.play(2, begin=8)  # its first keyframe comes a second after it has connected
        stream = home.keeper.stream
        assert stream is not None
        assert stream.generation == 2
        end = time.monotonic() + 15.0
        while not handovers:
            assert time.monotonic() < end, "no handover"
            await asyncio.sleep(0.02)
        await home.until(home.count(Kind.VIDEO) + 30)
    assert len(handovers) == home.keeper.handovers == 1
    assert home.pipeline.sessions == 2
    sent = [at for at, frame in home.frames if frame.kind is Kind.VIDEO]
    # The cameras are in this process, too: both were as late as it was.
    assert max(b - a for a, b in itertools.pairwise(sent)) < 0.6 + lateness.worst, "the picture stood still"
    times = [frame.media_time for _, frame in home.frames if frame.kind is Kind.VIDEO]
    assert times == sorted(times)
    async with asyncio.timeout(20.0):
        while first.pc.connectionState not in ("closed", "failed"):
            await asyncio.sleep(0.05)
    assert home.failed == []


async def test_a_replacement_that_fails_leaves_the_session_that_plays(home: Home) -> None:
    await home.play(1)
    await home.until(10)
    await home.keeper.offer(2)
    home.keeper.play(GrantedStream(2, Protocol.WEB_RTC, Secret(""), 0.0, answer=Secret("v=0\nnonsense"), offer=2))
    async with asyncio.timeout(10.0):
        while not home.failed:
            await asyncio.sleep(0.01)
    ((generation, error),) = home.failed
    assert (generation, error.stage) == (2, Stage.OFFER)
    stream = home.keeper.stream
    assert stream is not None
    assert stream.generation == 1
    await home.until(home.count(Kind.VIDEO) + 20)


async def test_a_camera_that_hangs_up_fails_its_stream_once(home: Home) -> None:
    camera = await home.play(1)
    await home.until(10)
    await camera.close()
    end = time.monotonic() + 10.0
    while not home.failed:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    ((generation, error),) = home.failed
    assert (generation, error.stage) == (1, Stage.STREAMING)
    assert home.keeper.stream is None
    assert home.keeper.state == "idle"


async def test_a_camera_that_falls_silent_fails_after_its_patience(home: Home) -> None:
    camera = await home.play(1)
    await home.until(10)
    camera.fall_silent()
    await asyncio.sleep(0.5)  # what is under way arrives
    home.keeper.check(time.monotonic())
    assert home.failed == []
    home.keeper.check(time.monotonic() + STALL)
    assert "no video for" in home.failed[0][1].message


async def test_a_stream_whose_offer_is_gone_fails_at_once_and_offers_are_bounded(home: Home) -> None:
    for request in range(1, MAX_OFFERS + 2):
        await home.keeper.offer(request)
    for generation in (1, 99):
        home.keeper.play(
            GrantedStream(generation, Protocol.WEB_RTC, Secret(""), 0.0, answer=Secret("v=0"), offer=generation)
        )
    assert [generation for generation, _ in home.failed] == [1, 99]
    assert home.keeper.stream is None


async def test_a_fault_of_our_own_while_connecting_asks_for_another_stream(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(answer: str) -> None:
        raise KeyError("on purpose")

    monkeypatch.setattr("relay_worker.camera.webrtc_source.parse_ingest_answer", fault)
    await home.play(1)
    async with asyncio.timeout(10):
        while not home.failed:
            await asyncio.sleep(0.01)
    ((generation, error),) = home.failed
    assert generation == 1
    assert "internal error" in error.message
    assert home.keeper.stream is None
