"""A camera's stream is kept playing: a session that delivers nothing is ended, and its URL played again for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay_common.clock import ManualClock, SystemClock
from relay_common.errors import Remedy
from relay_common.protocol import Protocol, Stage
from relay_common.secrets import Secret
from relay_common.simulation.camera.camera import Camera, CameraSettings
from relay_common.simulation.camera.certs import make_server_context
from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.rtsp_server import RtspServer
from relay_common.simulation.camera.rtsp_streams import Admission
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.source_keeper import PROVEN, RETRY_DELAYS, SourceKeeper
from relay_worker.media.stream import Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.errors import RtspError, RtspStage, RtspTimeoutError
from relay_worker.rtsp.source import SourceSettings

pytestmark = pytest.mark.media

VIDEO = VideoSpec(width=64, height=64, seconds=2.0)
STALL = SourceSettings().session.media_timeout


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
            lambda stage, reason, cause: self.problems.append((stage, reason)),
        )

    def play(self) -> None:
        self.keeper.play(GrantedStream(1, Protocol.RTSP, Secret(self._url), time.time() + 300))

    def send(self, frame: Frame, now: float) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("on purpose")
        self.frame.set()

    def _failed(self, stream: GrantedStream, stage: Stage, remedy: Remedy, reason: str) -> None:
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
        assert keeper.next_try == world.pipeline.last_media[Kind.VIDEO] + STALL
        assert keeper.stalls == 0
        keeper.check(time.monotonic() + STALL + 1.0)
        await world.session.wait()
    assert world.pipeline.sessions == 2
    assert keeper.stalls == 1
    assert [stage for stage, _ in world.problems] == [Stage.STREAMING]
    assert "no video" in world.problems[0][1]
    assert world.failed == []
    assert world.camera.counters.describes == 2


async def test_a_stream_that_is_granted_twice_is_connected_to_once(world: World) -> None:
    """Two hellos of one worker are each answered with its stream: a second session would take the first one's place."""
    async with asyncio.timeout(30):
        world.play()
        world.play()
        await world.frame.wait()
        world.play()
        world.frame.clear()
        await world.frame.wait()
    assert world.pipeline.sessions == 1
    assert world.camera.counters.describes == 1
    assert world.problems == []


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


class Mute(SourceKeeper):
    """Each session is answered after `answer` seconds and then gives nothing, on a manual clock."""

    def __init__(self, clock: ManualClock, answer: float) -> None:
        self.pipeline, self.failed, self.tries = Pipeline(), list[Remedy](), 0
        super().__init__(
            self.pipeline,
            clock,
            SourceSettings(),
            lambda stream, stage, remedy, reason: self.failed.append(remedy),
        )
        self._answer = answer

    async def _play(self, stream: GrantedStream, settings: SourceSettings) -> RtspError | None:
        self.tries += 1
        await self._clock.sleep(self._answer)
        self.pipeline.on_playing([Track(Kind.VIDEO, Format(96, "H264", 90000), control="")], self._clock.now())
        await self._clock.sleep(STALL)
        return RtspTimeoutError(RtspStage.STREAMING, "no video")


@pytest.mark.parametrize("answer", [0.1, PROVEN + 1.0])
async def test_a_stream_that_is_answered_and_gives_nothing_is_given_up(answer: float) -> None:
    """However long the answer takes: only pictures prove that a URL is good."""
    clock = ManualClock()
    keeper = Mute(clock, answer)
    keeper.play(GrantedStream(1, Protocol.RTSP, Secret("rtsps://host/x?auth=g.0.abc"), clock.wall() + 300))
    await clock.advance(len(RETRY_DELAYS) * (answer + STALL + max(RETRY_DELAYS)) + answer + STALL)
    assert keeper.tries == len(RETRY_DELAYS) + 1
    assert keeper.failed == [Remedy.REGENERATE]
    await keeper.close()


@pytest.mark.parametrize("end", ["close", "play"])
async def test_a_pause_between_two_tries_delays_nothing(end: str) -> None:
    """Nobody moves the clock: a pause would not end by itself."""
    clock = ManualClock()
    keeper = Mute(clock, 0.1)
    keeper.play(GrantedStream(1, Protocol.RTSP, Secret("rtsps://host/x?auth=g.0.abc"), clock.wall() + 300))
    await clock.advance(0.1 + STALL + 0.1)
    assert keeper.next_try == pytest.approx(clock.now() + RETRY_DELAYS[0] - 0.1)
    async with asyncio.timeout(5):
        if end == "play":
            keeper.play(GrantedStream(2, Protocol.RTSP, Secret("rtsps://host/x?auth=g.0.def"), clock.wall() + 300))
            while keeper.tries < 2:
                await asyncio.sleep(0)
            await clock.advance(0.1 + STALL + 0.1)
        await keeper.close()


async def test_what_rtsp_servers_do_is_counted_over_all_sessions() -> None:
    """A server that numbers each answer 0 and has no stream: the URL is tried again, the counts go on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for status in ("200 OK", "404 Not Found"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"RTSP/1.0 {status}\r\nCSeq: 0\r\n\r\n".encode())
        await reader.read()
        writer.close()

    problems: list[str] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    keeper = SourceKeeper(
        Pipeline(),
        SystemClock(),
        SourceSettings(),
        lambda stream, stage, remedy, reason: None,
        lambda stage, reason, cause: problems.append(reason),
    )
    async with server, asyncio.timeout(30):
        url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        keeper.play(GrantedStream(1, Protocol.RTSP, Secret(url), time.time() + 300))
        while len(problems) < 2:
            await asyncio.sleep(0.01)
        assert keeper.tolerated()["answer_misnumbered"] >= 4
        await keeper.close()
