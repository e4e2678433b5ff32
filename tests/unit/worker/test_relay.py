"""One camera's relay: what it offers the SFU for what the camera has, and what it says of a stream it cannot show."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from relay_common.causes import Cause
from relay_common.errors import Remedy
from relay_common.protocol import PublishAnswer, SinkTarget, Stage, TrackOffer, WorkerState
from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import RtpTrack, audio_track, video_track
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.signaling import PublishRefused
from relay_worker.publish.simulcast import SimulcastRefused
from relay_worker.relay import CameraRelay, RelaySettings
from tests.fixtures import pcapng
from tests.fixtures.manual_camera import ManualCamera

SMALL: dict[str, Any] = {"width": 64, "height": 64, "seconds": 2.0}
SOUND = audio_track(AudioSpec())


class World:
    """Signalling, listener and output of a relay."""

    def __init__(self) -> None:
        self.asked: asyncio.Future[tuple[str, list[str]]] | None = None
        self.refuses = False
        self.frames: list[Frame] = []

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> PublishAnswer:
        assert self.asked is not None
        self.asked.set_result((offer, [track.kind for track in tracks]))
        if not self.refuses:
            await asyncio.Event().wait()
        raise PublishRefused("no SFU here", retry_after=3600.0)

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def state_changed(self, state: WorkerState, stage: Stage, reason: str) -> None: ...
    def source_failed(self, generation: int, stage: Stage, remedy: Remedy, reason: str) -> None: ...
    def published(self, publication: str, sink: str = "", rids: Sequence[str] = ()) -> None: ...
    def unpublished(self, publication: str, reason: str, sink: str = "") -> None: ...

    def relay(self) -> CameraRelay:
        return CameraRelay(RelaySettings(name="Porch", publisher=PublisherSettings(loopback=True)), self, self)

    async def offer(self, *tracks: RtpTrack) -> tuple[str, list[str]]:
        """The offer, and the kinds it names, for a camera with these tracks."""
        self.asked = asyncio.get_running_loop().create_future()
        relay = self.relay()
        ManualCamera(relay.pipeline, *tracks).connect()
        try:
            return await asyncio.wait_for(self.asked, 10.0)
        finally:
            await relay.close()


async def test_a_camera_that_is_published_nowhere_holds_nothing_for_a_sink() -> None:
    relay = World().relay()
    assert relay.pipeline.holds
    relay.publications.configure([])
    assert not relay.pipeline.holds
    relay.publications.configure([SinkTarget()])
    assert relay.pipeline.holds
    await relay.close()


async def test_a_camera_without_sound_is_published_without_it() -> None:
    picture = video_track(VideoSpec(**SMALL))
    assert (await World().offer(picture, SOUND))[1] == ["video", "audio"]
    offer, kinds = await World().offer(picture)
    assert kinds == ["video"]
    assert "m=audio" not in offer


async def test_captures_at_the_same_time_hold_what_came_in_their_own_time() -> None:
    relay = World().relay()
    camera = ManualCamera(relay.pipeline, video_track(VideoSpec(**SMALL)))
    camera.connect()
    short, long = relay.start_capture(), relay.start_capture()
    camera.run(3.0)  # it begins at its next keyframe
    relay.finish_capture(short)
    first = len(pcapng.read(short.file()))
    camera.run(1.0)
    relay.finish_capture(long)
    camera.run(1.0)
    assert 0 < first == len(pcapng.read(short.file())) < len(pcapng.read(long.file()))
    relay.finish_capture(late := relay.start_capture())
    assert pcapng.read(late.file()) == []
    await relay.close()


async def test_a_publication_that_a_plain_one_follows_at_once_has_not_ended() -> None:
    """People were told so for a second where the SFU does not take two layers."""
    relay = World().relay()
    layers = relay.keeper.layers
    layers.configure("keyframes")
    assert layers.begin()
    assert layers.failed(SimulcastRefused("the answer takes one layer"), answered=True)
    relay._unpublished("", "first", layers.why_plain)
    assert relay.cause is Cause.NONE
    relay._unpublished("", "second", "the SFU closed it")
    assert relay.cause is Cause.SFU_LOST
    await relay.close()


async def test_closing_in_the_moment_of_the_answer_ends_it() -> None:
    world = World()
    world.refuses = True
    async with asyncio.timeout(10.0):
        await world.offer(video_track(VideoSpec(**SMALL)))
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("profile", "label"), [("baseline", "42e01f"), ("main", "4d001f"), ("high", "4d001f")])
async def test_the_label_that_stands_first_follows_the_cameras_own_sps(profile: Any, label: str) -> None:
    offer, _ = await World().offer(video_track(VideoSpec(profile=profile, **SMALL)))
    labels = [line.rpartition("=")[2] for line in offer.splitlines() if "profile-level-id=" in line]
    assert labels[0] == label
    assert not any(one.startswith("64") for one in labels)


def watched(spec: VideoSpec, *others: RtpTrack) -> tuple[CameraRelay, World]:
    world = World()
    relay = world.relay()
    relay.publish_to(world)
    camera = ManualCamera(relay.pipeline, video_track(spec), *others)
    camera.connect()
    camera.run(4.0)
    return relay, world


def test_b_frames_are_passed_on_in_decoding_order_and_said() -> None:
    relay, world = watched(VideoSpec(profile="main", b_frames=2, **SMALL))
    stats = relay.stats(1004.0)
    assert stats.video.b_frames
    assert stats.stage is Stage.DECODE
    assert "B-frames" in stats.reason
    assert stats.video.frames > 60, "relayed all the same"
    times = [frame.media_time for frame in world.frames if frame.kind is Kind.VIDEO]
    assert all(b >= a for a, b in itertools.pairwise(times))


def test_a_stream_without_b_frames_is_not_accused_of_them() -> None:
    relay, _ = watched(VideoSpec(profile="main", **SMALL))
    stats = relay.stats(1004.0)
    assert not stats.video.b_frames
    assert stats.reason == ""


def test_a_camera_whose_sound_stops_is_live_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    relay, _ = watched(VideoSpec(profile="main", **SMALL), SOUND)
    monkeypatch.setattr(CameraRelay, "state", WorkerState.LIVE)
    heard = relay.pipeline.last_media[Kind.AUDIO]
    assert relay.stats(heard + 9.0).reason == ""
    stats = relay.stats(heard + 12.0)
    assert (stats.state, stats.stage) == (WorkerState.LIVE, Stage.STREAMING)
    assert "no sound has come from the camera for 12 s" in stats.reason
