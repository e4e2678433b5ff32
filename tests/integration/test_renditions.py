"""Small pictures on their way out: as the second layer of a track at the simulated SFU, and to local viewers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import aioice.ice
import pytest

from relay_common.causes import Cause
from relay_common.clock import LoopClock
from relay_common.protocol import PublishAnswer, SinkTarget, Stage, TrackOffer
from relay_common.rendition_messages import SetRendition
from relay_common.simulation.sfu.options import SfuTimings, SfuVariant
from relay_common.simulation.sfu.simulator import SfuSimulator
from relay_worker.local.viewers import LocalViewers
from relay_worker.media.stream import Frame
from relay_worker.pipeline import Pipeline
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.publications import Publications
from relay_worker.small_pictures import CameraRendition
from tests.fixtures.coded_pictures import FPS, camera_frames
from tests.fixtures.direct_signaling import DirectSignaling
from tests.fixtures.local_rig import LocalRig, StockViewer, local_rig
from tests.fixtures.media_rig import media_rig

pytestmark = pytest.mark.media


class Rig:
    """A camera's publications and small pictures, without the camera: its pictures come from a loop of a second."""

    def __init__(self, sfu: SfuSimulator) -> None:
        self.sfu, self.clock, self.pipeline = sfu, LoopClock(), Pipeline(audio=False)
        self.offers: list[tuple[str, list[TrackOffer]]] = []
        self.lost: list[str] = []
        self.live: list[bool] = []
        """Whether the small layer had begun, each time that a publication was announced."""
        self.asked = 0
        self.publications = Publications(
            "porch",
            self.pipeline,
            self,
            self.clock,
            PublisherSettings(loopback=True),
            on_live=lambda sink, publication: self.live.append(self.small_flows()),
            on_lost=lambda sink, publication, reason: self.lost.append(reason),
            on_problem=self._problem,
            on_keyframe_request=self._keyframe_requested,
            on_small_request=lambda: self.rendition.request_keyframe(),
            on_connected=lambda: self.rendition.check_outputs(),
        )
        self.publications.configure([SinkTarget()])
        local = LocalViewers(self.pipeline, self.clock, self._keyframe_requested)
        self.rendition = CameraRendition(self.pipeline, self.publications, local, self.clock, self._keyframe_requested)

    def _problem(self, stage: Stage, reason: str, cause: Cause) -> None:
        raise AssertionError(f"{stage}: {reason}")

    def _keyframe_requested(self) -> None:
        self.asked += 1

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> PublishAnswer:
        self.offers.append((offer, tracks))
        answer = await DirectSignaling(self.sfu).publish(offer, tracks)
        return PublishAnswer(request=0, publication=f"publication {len(self.offers)}", answer=answer)

    async def play(self) -> None:
        loop, begin, index = camera_frames(count=FPS, group=FPS), time.monotonic(), 0
        while True:
            frame, now = loop[index % FPS], self.clock.now()
            self.pipeline.deliver(Frame(frame.kind, frame.payloads, begin + index / FPS), now)
            if index % FPS == 0:
                self.publications.check(now)
                self.rendition.check(now)
            index += 1
            await asyncio.sleep(max(0.0, begin + index / FPS - time.monotonic()))

    def small_flows(self) -> bool:
        publisher = self.publications.first.publisher
        return publisher is not None and publisher.small_flows

    def layers(self) -> dict[str, Any]:
        """What the SFU has of each layer."""
        published = self.sfu.published("video") or {}
        found: dict[str, Any] = published.get("layers", {})
        return found


@asynccontextmanager
async def playing(sfu: SfuSimulator, mode: str, *, watched: bool = True) -> AsyncIterator[Rig]:
    rig = Rig(sfu)
    rig.rendition.configure(SetRendition(mode=mode, watched=watched, budget=1000.0))
    rig.publications.start(audio=False, profile_idc=77)
    task = asyncio.create_task(rig.play())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        rig.rendition.made.close()
        await rig.publications.close()


async def until(condition: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["keyframes", "smooth"])
async def test_both_layers_reach_the_sfu_whole(mode: str) -> None:
    async with SfuSimulator(timings=SfuTimings(report_interval=0.2)) as sfu, playing(sfu, mode) as rig:
        wanted = 4 if mode == "keyframes" else 20
        await until(lambda: rig.layers().get("b", {}).get("frames", 0) >= wanted)
        await until(lambda: rig.layers()["b"]["sender_reports"] > 0)
        assert {rid: layer["lost"] for rid, layer in rig.layers().items()} == {"a": 0, "b": 0}
        stats = rig.rendition.stats(rig.clock.now())
        assert stats is not None
        assert (stats.mode, stats.active, stats.reason, stats.refusals) == (mode, mode, "", 0)
        assert (stats.width, stats.height) == ((320, 180) if mode == "keyframes" else (480, 270))
        assert rig.rendition.published("") == ("a", "b")
        assert [track.rids for track in rig.offers[0][1]] == [["a", "b"]]
        assert len(rig.offers) == 1
        assert rig.live == [True]
        publisher = rig.publications.first.publisher
        assert publisher is not None
        await until(lambda: publisher.stats().tracks["video"].packets > 60)  # the original's figures are its own


@pytest.mark.parametrize("answer", ["first", "refused"])
async def test_an_sfu_that_refuses_layers_gets_a_plain_publication_once(answer: Literal["first", "refused"]) -> None:
    async with SfuSimulator(variant=SfuVariant(simulcast=answer)) as sfu, playing(sfu, "keyframes") as rig:
        await until(lambda: rig.publications.live)
        assert ["a=simulcast:send a;b" in offer for offer, _ in rig.offers] == [True, False]
        stats = rig.rendition.stats(rig.clock.now())
        assert stats is not None
        assert (stats.active, stats.refusals) == ("off", 1)
        assert "the answer" in stats.reason
        assert rig.lost == [stats.reason]
        assert rig.pipeline.rendition is None, "nothing is made for nobody"
        rig.publications.first.republish("the test asks for it")
        await until(lambda: len(rig.offers) == 3 and rig.publications.live)
        assert "simulcast" not in rig.offers[2][0]


async def test_a_publication_keeps_the_rendition_that_it_was_made_with() -> None:
    async with SfuSimulator() as sfu, playing(sfu, "keyframes") as rig:
        await until(lambda: rig.layers().get("b", {}).get("packets", 0) > 0)
        rig.rendition.configure(SetRendition(mode="off"))
        before = rig.layers()["b"]["packets"]
        rig.rendition.request_keyframe()
        await until(lambda: rig.layers()["b"]["packets"] > before)
        rig.publications.first.republish("the test asks for it")
        await until(lambda: len(rig.offers) == 2 and rig.publications.live)
        await until(lambda: rig.pipeline.rendition is None)
        assert "simulcast" not in rig.offers[1][0]


async def _checked(rig: LocalRig, rendition: CameraRendition) -> None:
    while True:
        rendition.check(time.monotonic())
        await asyncio.sleep(0.2)


async def test_local_viewers_get_the_quality_that_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    async with SfuSimulator() as sfu, local_rig(width=640, height=360) as rig:
        publications = Rig(sfu).publications  # never started: this camera is watched locally alone
        rendition = CameraRendition(rig.pipeline, publications, rig.local, LoopClock(), rig._keyframe_requested)
        rendition.configure(SetRendition(mode="keyframes"))
        checking = asyncio.create_task(_checked(rig, rendition))
        assert rig.pipeline.rendition is None, "nobody has asked for it"
        large, small = StockViewer(rig, "large", ("video",)), StockViewer(rig, "small", ("video",))
        await large.watch()
        rig.quality = "small"
        await small.watch()
        await until(lambda: len(small.frames) >= 3 and len(large.frames) >= 60)
        assert (small.width, large.width) == (320, 640)
        assert len(small.frames) < 20
        rendition.configure(SetRendition(mode="off"))
        await until(lambda: small.width == 640)
        await until(lambda: rig.pipeline.rendition is None)
        monkeypatch.setattr("relay_worker.local.viewers.SMALL_AGAIN", 1.0)
        rendition.configure(SetRendition(mode="keyframes"))
        await until(lambda: small.width == 320)
        seen, full = len(small.frames), len(large.frames)
        await until(lambda: len(small.frames) > seen + 1 and len(large.frames) > full + 30)
        assert (small.width, large.width) == (320, 640)
        checking.cancel()
        await small.close()
        await large.close()
        assert rig.local.failures == 0


async def test_what_a_camera_does_wrong_is_counted_on_a_live_relay() -> None:
    """A real stream: B-frames, other resolutions, pictures that are too large. The original passes untouched."""
    async with media_rig() as rig:
        rig.relay.rendition.configure(SetRendition(mode="smooth", watched=True, budget=1000.0))
        rig.relay.keeper.republish("the test asks for layers")

        def counted(name: str) -> int:
            return rig.relay.rendition.made.counters()[name]

        def made() -> int:
            stats = rig.relay.rendition.stats(time.monotonic())
            return stats.pictures if stats is not None else 0

        await rig.until(lambda: made() > 5, "small pictures", within=60.0)
        for fault, name in (
            ({"kind": "b_frames"}, "refused_b_frames"),
            ({"kind": "parameters", "width": 320, "height": 240}, "resolution_changes"),
            ({"kind": "parameters", "width": 2592, "height": 1584}, "refused_too_large"),
        ):
            before = rig.stats[-1].video.frames
            await rig.camera("fault", fault)
            await rig.until(lambda name=name: counted(name) > 0, name, within=60.0)  # type: ignore[misc]
            await rig.camera("clear", {})
            await rig.until(lambda before=before: rig.stats[-1].video.frames > before + 30, "pictures")  # type: ignore[misc]
        assert rig.listener.failures == []
