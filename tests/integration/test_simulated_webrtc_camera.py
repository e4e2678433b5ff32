"""Stock aiortc plays simulated WebRTC cameras through Google's API: real ICE, DTLS, SRTP and RTCP over loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aioice.ice
import httpx
import pytest

from relay_common.simulation.camera.faults import parse_fault
from relay_common.simulation.google.quota import UNLIMITED
from relay_common.simulation.world import World, WorldConfig, camera_name
from tests.fixtures.lateness import Lateness
from tests.fixtures.stock_camera_client import Google, StockClient

pytestmark = pytest.mark.media

RTSP_CAMERA, CAMERA, DOORBELL = (camera_name(index) for index in range(3))
CONFIG = WorldConfig(
    workdir=Path(),
    cameras=3,
    width=160,
    height=120,
    loop=2.0,
    webrtc=2,
    doorbells=1,
    shared_clip=True,
    tls=False,
    only="nest",
    limits=UNLIMITED,
)
PSFB, RTPFB, PLI, FIR, REMB, NACK = 206, 205, 1, 4, 15, 1


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make aioice offer only 127.0.0.1: the tests need no other interface."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(dataclasses.replace(CONFIG, workdir=tmp_path)) as world:
        yield world


@pytest.fixture
async def google(world: World) -> AsyncIterator[Google]:
    async with httpx.AsyncClient(timeout=30) as http:
        yield Google(http, world)


@pytest.fixture
async def viewers(google: Google) -> AsyncIterator[Callable[[str], StockClient]]:
    clients: list[StockClient] = []

    def make(camera: str) -> StockClient:
        clients.append(StockClient(google, camera))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def until(condition: Callable[[], Any], what: str, timeout: float = 20) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)


async def playing(client: StockClient) -> None:
    """Connect and wait for pictures and sound."""
    await client.connect()
    await until(lambda: client.frames["video"] > 3 and client.frames["audio"] > 3, "pictures and sound")


async def until_still(client: StockClient, seconds: float = 0.5) -> None:
    """Wait until nothing has come for so long: what was under way when the stream ended may come late."""
    deadline = time.monotonic() + 20.0
    while True:
        count = dict(client.frames)
        await asyncio.sleep(seconds)
        if client.frames == count:
            return
        assert time.monotonic() < deadline, "media come on"


async def next_keyframe(world: World, request: Awaitable[None]) -> None:
    """Request a keyframe and wait until one more is sent."""
    before = report(world)["keyframes"]
    await request
    await until(lambda: report(world)["keyframes"] > before, "the key frame that was asked for")


def report(world: World, camera: str = CAMERA) -> dict[str, Any]:
    return next(entry for entry in world.home.report() if entry["name"] == camera)


async def test_pictures_sound_and_what_the_client_asks_for(world: World, viewers: Callable[[str], StockClient]) -> None:
    client = viewers(CAMERA)
    await playing(client)
    picture, sound = client.last["video"], client.last["audio"]
    assert (picture.width, picture.height) == (160, 120)
    assert sound.sample_rate == 48_000
    samples = memoryview(bytes(sound.planes[0])).cast("h")
    assert max(samples) > 4000
    assert [report(world)["webrtc"][key] for key in ("sessions", "connected", "malformed", "failures")] == [1, 1, 0, 0]

    ssrc = next(iter(client.video.getSynchronizationSources())).source.to_bytes(4, "big")
    await client.send_feedback(PSFB, REMB, bytes(4) + b"REMB" + bytes([1, 4 << 2 | 3, 0xD0, 0x90]) + ssrc)
    await client.send_feedback(PSFB, PLI, ssrc)
    for number in (1, 1, 2):
        await client.send_feedback(PSFB, FIR, bytes(4) + ssrc + bytes([number, 0, 0, 0]))
    await client.send_feedback(RTPFB, NACK, ssrc + bytes([0x12, 0x34, 0, 1]))
    await until(lambda: report(world)["webrtc"]["nacked"] >= 2, "the feedback")
    seen = report(world)["webrtc"]
    assert (seen["plis"], seen["firs"], seen["firs_repeated"], seen["requests"]) == (1, 2, 1, 3)
    assert (seen["rembs"], seen["remb_bitrate"]) == (1, 4_000_000)
    assert seen["request_gap"] < 1.0
    for number in range(3, 15, 4):
        async with Lateness() as lateness:
            began = time.monotonic()
            for fir in range(number, number + 4):
                await next_keyframe(world, client.send_feedback(PSFB, FIR, bytes(4) + ssrc + bytes([fir, 0, 0, 0])))
            took = time.monotonic() - began
        if took < 6 or not lateness.busy:
            break
    assert took < 6, "key frames came once in 2 s, as they do unasked"
    await until(lambda: report(world)["webrtc"]["receiver_reports"], "a receiver report")


async def test_without_a_remb_the_first_picture_takes_long(world: World, viewers: Callable[[str], StockClient]) -> None:
    world.home.set_webrtc(CAMERA, first_keyframe_rate=1_000)  # tens of seconds
    client = viewers(CAMERA)
    await client.connect()
    await until(lambda: client.frames["audio"] > 50, "sound")
    assert client.frames["video"] == 0
    await client.send_feedback(PSFB, REMB, bytes(4) + b"REMB" + bytes([1, 4 << 2 | 3, 0xD0, 0x90]) + bytes(4))
    await until(lambda: client.frames["video"] > 0, "a picture")


async def test_loss_is_repaired_by_retransmission(world: World, viewers: Callable[[str], StockClient]) -> None:
    client = viewers(CAMERA)
    await playing(client)
    await world.home.inflict(CAMERA, parse_fault("loss", rate=0.1))
    await until(lambda: report(world)["webrtc"]["retransmitted"] > 5, "retransmissions")
    seen = report(world)
    assert seen["dropped"] > 0
    assert seen["webrtc"]["nacked"] >= seen["webrtc"]["retransmitted"]
    world.home.clear(CAMERA)
    count = client.frames["video"]
    await until(lambda: client.frames["video"] > count + 10, "pictures after loss")


async def test_a_stream_ends_at_its_expiry_unless_it_is_extended(
    world: World, google: Google, viewers: Callable[[str], StockClient]
) -> None:
    client = viewers(CAMERA)
    await playing(client)
    world.home.set_device(CAMERA, lease=2.5, renews_session_id=True)
    extended = await google.results(CAMERA, "ExtendWebRtcStream", mediaSessionId=client.session)
    assert set(extended) == {"mediaSessionId", "expiresAt"}
    assert extended["mediaSessionId"] != client.session
    assert (await google.execute(CAMERA, "ExtendWebRtcStream", mediaSessionId=client.session)).status_code == 404
    await asyncio.sleep(0.5)
    world.home.set_device(CAMERA, renews_session_id=False)
    again = await google.results(CAMERA, "ExtendWebRtcStream", mediaSessionId=extended["mediaSessionId"])
    assert again["mediaSessionId"] == extended["mediaSessionId"]
    await until(lambda: not report(world)["sessions_open"], "the end")
    assert time.time() >= datetime.datetime.fromisoformat(again["expiresAt"]).timestamp()
    await until(lambda: client.pc.connectionState == "closed", "the client's end")
    assert report(world)["sessions_cut"] == {"expired": 1}


async def test_a_second_session_is_granted_and_stop_ends_one(
    world: World, google: Google, viewers: Callable[[str], StockClient]
) -> None:
    first, second = viewers(DOORBELL), viewers(DOORBELL)
    await playing(first)
    refusal = await google.error(DOORBELL, "ExtendWebRtcStream", mediaSessionId=first.session)
    assert refusal == "FAILED_PRECONDITION: Extending the stream is not supported for doorbell."
    await playing(second)
    await google.results(DOORBELL, "StopWebRtcStream", mediaSessionId=first.session)
    assert report(world, DOORBELL)["sessions_cut"] == {"stopped": 1}
    await until(lambda: first.pc.connectionState == "closed", "the end of the first")
    count = second.frames["video"]
    await until(lambda: second.frames["video"] > count + 5, "more of the second")
    world.home.set_device(DOORBELL, max_streams=1)
    third = viewers(DOORBELL)
    with pytest.raises(AssertionError, match="409"):
        await third.connect()


async def test_a_camera_that_moves_to_webrtc_works_at_once(
    world: World, google: Google, viewers: Callable[[str], StockClient]
) -> None:
    results = await google.results(RTSP_CAMERA, "GenerateRtspStream")
    world.home.set_device(RTSP_CAMERA, protocol="WEB_RTC")
    refusal = await google.error(RTSP_CAMERA, "ExtendRtspStream", streamExtensionToken=results["streamExtensionToken"])
    assert refusal.startswith("INVALID_ARGUMENT: ")
    assert (await google.error(RTSP_CAMERA, "GenerateWebRtcStream", offerSdp="v=0")).startswith("INVALID_ARGUMENT: ")
    assert report(world, RTSP_CAMERA)["streams"] == pytest.approx([300], abs=5)  # the refused offer left none
    client = viewers(RTSP_CAMERA)
    await playing(client)


async def test_the_end_can_be_silent_and_habits_are_set_over_http(
    world: World, viewers: Callable[[str], StockClient]
) -> None:
    control = world.endpoints()["control"]["nest"]
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{control}/cameras/{CAMERA}/webrtc", json={"goodbye": False, "idle_gop": 1.0})
        assert answer.status_code == 200
        answer = await http.post(f"{control}/cameras/{CAMERA}/webrtc", json={"manners": True})
        assert (answer.status_code, "unknown habit" in answer.json()["error"]) == (400, True)
    client = viewers(CAMERA)
    await playing(client)
    world.home.expire(CAMERA)
    assert not report(world)["sessions_open"]
    await until_still(client)
    assert client.pc.connectionState == "connected"
