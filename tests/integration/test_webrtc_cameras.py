"""Cameras that speak WebRTC, against the simulated Google with all the defects of its answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay

pytestmark = pytest.mark.media

SHORT = (*SMALL, "--lease", "12", "--unlimited")
"""Leases of 12 s: extended, or renewed, several times in a test, with six seconds for a machine that is late."""
ALWAYS = {"cameras": {"Driveway": {"mode": "always"}, "Back Garden": {"mode": "always"}}}
"""Settings that keep doorbells streaming while nobody watches."""
DISTURBED = ("reordered", "nacked", "retransmitted")
"""What the simulator counts of packets that did not arrive in order."""


async def report(relay: RunningRelay, name: str) -> dict[str, Any]:
    """The simulator's report on a camera."""
    cameras = (await relay.nest("cameras"))["cameras"]
    found: dict[str, Any] = next(camera for camera in cameras if camera["name"] == name)
    return found


async def test_cameras_are_relayed_extended_and_renewed_without_a_gap() -> None:
    """A camera that is extended and battery doorbells that cannot be, over four leases; one may have two streams."""
    options = (*SHORT, "--webrtc", "3", "--doorbells", "2")
    async with running_relay(3, options=options, sections=UNLIMITED | ALWAYS) as relay:
        camera, doorbell, single = "Front Door", "Driveway", "Back Garden"
        await relay.nest(f"cameras/{single}/device", {"max_streams": 1})
        await relay.until_live()
        await relay.until(lambda: relay.camera(doorbell).source_sessions >= 4, 90.0, "the doorbell is renewed")
        await relay.until_live()
        await relay.until(lambda: relay.camera(camera).lease.extends >= 3, 30.0, "the camera is extended")

        for name in (camera, doorbell):
            status, said = relay.camera(name), (await report(relay, name))["webrtc"]
            assert (status.video.codec, status.audio.codec) == ("H264", "OPUS")
            assert status.worker.restarts == 0
            (video,) = await relay.published(name)
            assert video["lost"] == 0
            assert video["gaps"] == [], f"{name}'s picture stood still"
            assert said["firs"] >= 1
            assert said["plis"] == said["firs"]
            assert said["request_gap"] is None or said["request_gap"] > 0.9
            assert 3_900_000 < said["remb_bitrate"] <= 4_000_000
            assert said["malformed"] == 0
            assert said["failures"] == 0
        assert relay.camera(camera).lease.generates == 1
        assert relay.camera(camera).source_sessions == 1, "an extension leaves the session alone"
        assert relay.camera(doorbell).lease.generates >= 4
        assert (await report(relay, doorbell))["stops"] == 0, "the old stream is left to run out"
        assert relay.camera(single).lease.generates >= 2
        assert (await report(relay, single))["stops"] >= 1, "where only one is granted it is stopped first"
        assert len(await relay.published(single)) == 1, "filler held the publication meanwhile"


@pytest.mark.serial
async def test_loss_disorder_and_pauses_do_not_end_a_session_or_the_picture() -> None:
    async with running_relay(1, options=(*SMALL, "--webrtc", "1")) as relay:
        await relay.until_live()
        await asyncio.sleep(1.0)
        await relay.nest("cameras/Front Door/fault", {"kind": "reorder", "rate": 0.05})
        await relay.nest("cameras/Front Door/fault", {"kind": "loss", "rate": 0.03})
        await asyncio.sleep(4.0)
        # Which packets are lost is chance: four seconds of such small pictures can do without a loss.
        async with asyncio.timeout(60.0):
            said = (await report(relay, "Front Door"))["webrtc"]
            while not all(said[name] for name in DISTURBED):
                await asyncio.sleep(0.2)
                said = (await report(relay, "Front Door"))["webrtc"]
        await relay.nest("cameras/Front Door/clear", {})
        await asyncio.sleep(1.0)
        said = (await report(relay, "Front Door"))["webrtc"]
        assert relay.camera("Front Door").video.lost_in == 0, "everything lost was sent again"
        (video,) = await relay.published("Front Door")
        assert video["gaps"] == []
        firs = said["firs"]

        await relay.nest("cameras/Front Door/fault", {"kind": "silence", "track": "video", "seconds": 6})
        await asyncio.sleep(6.5)
        await relay.until_live(within=5.0)
        said = (await report(relay, "Front Door"))["webrtc"]
        assert said["connected"] == 1, "a pause of six seconds is no reason to spend a command"
        assert said["firs"] - firs <= 8
        assert said["request_gap"] > 0.9
        assert relay.camera("Front Door").source_sessions == 1
        assert relay.camera("Front Door").lease.generates == 1


async def test_keyframes_are_asked_for_when_viewers_want_them_at_most_once_a_second() -> None:
    async with running_relay(1, options=(*SMALL, "--webrtc", "1")) as relay:
        await relay.until_live()
        await asyncio.sleep(1.2)
        began = time.monotonic()
        before = (await report(relay, "Front Door"))["webrtc"]["firs"]
        (video,) = await relay.published("Front Door")
        camera = relay.camera("Front Door").id
        for _ in range(30):
            await relay.supervisor.keyframe(camera)
            await asyncio.sleep(0.1)
        async with asyncio.timeout(30.0):
            while (await relay.published("Front Door"))[0]["keyframes"] < video["keyframes"] + 2:
                await asyncio.sleep(0.1)
        said = (await report(relay, "Front Door"))["webrtc"]
        # 3 s of requests, and as much longer as this machine took for them.
        assert 3 <= said["firs"] - before <= time.monotonic() - began + 1
        assert said["firs_repeated"] == 0, "the sequence number rises"
        assert said["request_gap"] > 0.9


async def test_a_camera_that_is_moved_to_webrtc_is_followed_by_the_same_worker_in_the_same_publication() -> None:
    async with running_relay(1, options=SHORT, sections=UNLIMITED) as relay:
        await relay.until_live()
        before = relay.camera("Front Door")
        assert before.lease.protocol == "RTSP"
        said = len((await relay.nest("commands"))["commands"])
        await relay.nest("cameras/Front Door/device", {"protocol": "WEB_RTC"})
        await relay.until(lambda: relay.camera("Front Door").lease.protocol == "WEB_RTC", 30.0, "it is followed")
        sent = [(one["command"], one["status"]) for one in (await relay.nest("commands"))["commands"][said:]]
        while sent[:1] == [("ExtendRtspStream", 200)]:  # before it was moved
            del sent[0]
        assert sent == [("ExtendRtspStream", 400), ("GenerateWebRtcStream", 200)], "no command is wasted"
        assert relay.camera("Front Door").lease.failures == 0
        await relay.until(lambda: relay.camera("Front Door").audio.codec == "OPUS", 30.0, "it comes over WebRTC")
        await relay.until_live()
        after = relay.camera("Front Door")
        assert after.lease.protocol == "WEB_RTC"
        assert (after.worker.pid, after.publication) == (before.worker.pid, before.publication)
        assert len(await relay.published("Front Door")) == 1


async def test_a_lost_session_and_a_killed_worker_bring_a_new_stream() -> None:
    """A WebRTC session cannot be rejoined: unlike with an RTSP URL, each loss costs a Generate."""
    async with running_relay(1, options=(*SMALL, "--webrtc", "1", "--unlimited"), sections=UNLIMITED) as relay:
        await relay.until_live()
        await relay.nest("cameras/Front Door/expire", {})
        await relay.until(lambda: relay.camera("Front Door").lease.generates == 2, 30.0, "a new stream")
        await relay.until_live()
        assert len(await relay.published("Front Door")) == 1, "the publication survived"
        await relay.supervisor.restart(relay.camera("Front Door").id)
        await relay.until(lambda: relay.camera("Front Door").lease.generates == 3, 30.0, "a stream for the new worker")
        await relay.until_live()
