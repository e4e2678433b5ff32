"""A camera's stream is kept playing: a session that delivers nothing is ended, and its URL played again for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay_common.clock import SystemClock
from relay_common.errors import Remedy
from relay_common.protocol import Protocol, Stage
from relay_common.secrets import Secret
from relay_common.simulation.camera import Camera, CameraSettings
from relay_common.simulation.certs import make_server_context
from relay_common.simulation.media import VideoSpec
from relay_common.simulation.rtsp_server import RtspServer
from relay_common.simulation.rtsp_streams import Admission
from relay_worker.inputs import Frame
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.source import SourceSettings
from relay_worker.source_keeper import STALL, SourceKeeper
from relay_worker.stream import Stream

pytestmark = pytest.mark.media

VIDEO = VideoSpec(width=64, height=64, seconds=2.0)


class World:
    """A camera, and a keeper whose sessions, frames and failures are heard of."""

    def __init__(self, camera: Camera, url: str, ca_file: Path) -> None:
        self.camera, self._url = camera, url
        self.frame, self.session = asyncio.Event(), asyncio.Event()
        self.problems: list[tuple[Stage, str]] = []
        self.failed: list[Stage] = []
        self.faults = 0
        """Frames that are still to be answered by an exception."""
        self.pipeline = Pipeline(on_tracks=self.session.set)
        self.pipeline.output = self
        self.keeper = SourceKeeper(
            self.pipeline,
            SystemClock(),
            SourceSettings(ca_file=str(ca_file)),
            self._failed,
            lambda stage, reason: self.problems.append((stage, reason)),
        )

    def play(self) -> None:
        self.keeper.play(Stream(1, Protocol.RTSP, Secret(self._url), time.time() + 300))

    def send(self, frame: Frame, now: float) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("on purpose")
        self.frame.set()

    def _failed(self, stream: Stream, stage: Stage, remedy: Remedy, reason: str) -> None:
        self.failed.append(stage)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    tls, ca_file = make_server_context(tmp_path)
    camera = Camera(CameraSettings("Test", VIDEO))
    await asyncio.to_thread(camera.prepare)
    server = RtspServer(lambda path, token, wall: Admission(200, camera, path), tls=tls)
    await server.start()
    made = World(camera, f"{server.url}/x?auth=g.0.abc", ca_file)
    yield made
    await made.keeper.close()
    await server.stop()


async def test_a_session_without_video_is_ended_and_its_url_played_again(world: World) -> None:
    keeper = world.keeper
    async with asyncio.timeout(30):
        world.play()
        await world.frame.wait()
        world.session.clear()
        keeper.check(time.monotonic() + STALL - 1.0)
        assert keeper.playing
        assert keeper.stalls == 0
        keeper.check(time.monotonic() + STALL + 1.0)
        await world.session.wait()
    assert world.pipeline.sessions == 2
    assert keeper.stalls == 1
    assert [stage for stage, _ in world.problems] == [Stage.STREAMING]
    assert "no video" in world.problems[0][1]
    assert world.failed == []
    assert world.camera.counters.describes == 2
    assert 5.0 <= STALL <= 10.0


async def test_a_fault_of_our_own_costs_a_session_and_not_the_camera(world: World) -> None:
    world.faults = 1
    async with asyncio.timeout(30):
        world.play()
        await world.frame.wait()
    assert world.pipeline.sessions == 2
    ((stage, reason),) = world.problems
    assert stage is Stage.STREAMING
    assert "a packet could not be handled" in reason
    assert world.failed == []
