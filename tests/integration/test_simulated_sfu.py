"""Stock aiortc publishes to, and pulls from, the simulated SFU: real ICE, DTLS, SRTP and RTCP over loopback."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aioice.ice
import httpx
import pytest
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)

from relay_common.simulation.sfu.simulator import SfuFaults, SfuSimulator, SfuTimings, SfuVariant
from tests.fixtures.stock_publisher import StockPublisher, encoded_loop

pytestmark = pytest.mark.media

UNITS = encoded_loop((160, 120))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make aioice offer only 127.0.0.1: the tests need no other interface."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as client:
        yield client


def app_of(sfu: SfuSimulator) -> str:
    return f"{sfu.base_url}/apps/app"


async def until(condition: Callable[[], Any], what: str, timeout: float = 20) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)


def packets(sfu: SfuSimulator, name: str) -> int:
    track = sfu.published(name)
    return int(track["packets"]) if track else 0


@pytest.mark.parametrize("profile", ["SRTP_AEAD_AES_128_GCM", "SRTP_AES128_CM_SHA1_80"])
async def test_stock_publisher_is_received_without_loss(api: httpx.AsyncClient, profile: str) -> None:
    async with SfuSimulator(variant=SfuVariant(srtp_profiles=profile)) as sfu:
        sfu.start_recording()
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        try:
            await camera.publish()
            await until(lambda: packets(sfu, "porch-video") > 45 and packets(sfu, "porch-audio") > 60, "packets")
            await until(lambda: sfu.published("porch-video")["sender_reports"] > 0, "a sender report")
            await until(lambda: sfu.published("porch-video")["keyframes"] >= 2, "two key frames")
            (session,) = sfu.sessions()
            assert (session["state"], session["srtp"], session["address"][0]) == ("connected", profile, "127.0.0.1")
            assert [session[key] for key in ("unauthenticated", "unrouted", "malformed")] == [0, 0, 0]
            for track in session["published"]:
                assert [track[key] for key in ("lost", "lost_before_repair", "duplicates", "empty")] == [0] * 4
                assert track["packets"] == (track["last_sequence"] - track["first_sequence"] & 0xFFFF) + 1
                assert track["jitter"] < 1
            # The publisher gets reports on its reception: RR with the round trip of its SR.
            async with asyncio.timeout(20):
                while not (reports := [r for r in await camera.remote_reports() if r.roundTripTime is not None]):
                    await asyncio.sleep(0.05)
            assert all(0 <= report.roundTripTime < 5 and report.packetsLost == 0 for report in reports)
            log = sfu.arrivals()
            assert all(earlier[0] < later[0] + 0.001 for earlier, later in itertools.pairwise(log))
            assert len({ssrc for _, ssrc, *_ in log}) == 2
        finally:
            await camera.close()
        await until(lambda: sfu.sessions()[0]["state"] == "gone", "the publisher's goodbye")


async def test_lost_packets_are_asked_for_and_repaired(api: httpx.AsyncClient) -> None:
    async with SfuSimulator(timings=SfuTimings(nack_give_up=15)) as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        try:
            await camera.publish()
            sfu.faults.upstream_loss = 0.05
            await until(lambda: sfu.published("porch-video")["lost_before_repair"] >= 5, "losses")
            sfu.faults.upstream_loss = 0
            await until(lambda: sfu.published("porch-video")["lost"] == 0, "repair")
            track = sfu.published("porch-video")
            assert track["repaired"] == track["lost_before_repair"]
            # Where an answer takes long it is asked for again.
            assert 0 < track["retransmissions"] <= track["repaired"] + track["duplicates"]
            assert track["gaps"] == []
        finally:
            await camera.close()


async def test_pulled_by_stock_aiortc(api: httpx.AsyncClient) -> None:
    async with SfuSimulator() as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        tracks: list[Any] = []
        viewer.on("track", tracks.append)
        try:
            await camera.publish()
            session = f"{app_of(sfu)}/sessions/{(await api.post(f'{app_of(sfu)}/sessions/new')).json()['sessionId']}"
            wanted = [
                {"location": "remote", "sessionId": camera.session, "trackName": f"porch-{kind}"}
                for kind in ("video", "audio")
            ]
            pulled = (await api.post(f"{session}/tracks/new", json={"tracks": wanted})).json()
            await viewer.setRemoteDescription(RTCSessionDescription(pulled["sessionDescription"]["sdp"], "offer"))
            await viewer.setLocalDescription(await viewer.createAnswer())
            answer = {"type": "answer", "sdp": viewer.localDescription.sdp}
            response = await api.put(f"{session}/renegotiate", json={"sessionDescription": answer})
            assert (response.status_code, response.json()) == (200, {})
            async with asyncio.timeout(20):
                video, audio = await asyncio.gather(*(track.recv() for track in tracks))
            assert (video.width, video.height) == (160, 120)
            assert audio.sample_rate == 48000
            assert sfu.published("porch-video")["subscribers"] == 1
        finally:
            await asyncio.gather(camera.close(), viewer.close())


async def test_delay_and_late_first_check_still_connect(api: httpx.AsyncClient) -> None:
    async with SfuSimulator(faults=SfuFaults(delay=0.02, ice_delay=0.3)) as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        try:
            await camera.publish()
            await until(lambda: packets(sfu, "porch-video") > 10, "packets")
            assert sfu.published("porch-video")["duplicates"] == 0
            assert sfu.published("porch-video")["reordered"] == 0
        finally:
            await camera.close()


async def test_a_session_that_never_connects_expires(api: httpx.AsyncClient) -> None:
    timings = SfuTimings(connect_wait=0.1, unconnected_expiry=0.5, report_interval=0.05)
    async with SfuSimulator(faults=SfuFaults(never_connect=1.0), timings=timings) as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        publishing = asyncio.create_task(camera.publish())
        try:
            await until(lambda: sfu.sessions() and sfu.sessions()[0]["state"] == "gone", "expiry")
            response = await api.get(f"{app_of(sfu)}/sessions/{sfu.sessions()[0]['session']}")
            assert (response.status_code, response.json()["errorCode"]) == (410, "session_error")
            assert sfu.sessions()[0]["checks"] == 0
        finally:
            publishing.cancel()
            await camera.close()


async def test_candidates_in_the_first_section_catch_max_bundle(api: httpx.AsyncClient) -> None:
    """aiortc#1437: with MAX_BUNDLE it keeps the last section's candidates, and the SFU puts none there."""
    async with SfuSimulator() as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS, bundle=RTCBundlePolicy.MAX_BUNDLE)
        publishing = asyncio.create_task(camera.publish())
        try:
            await until(lambda: camera.answer, "the answer")
            await asyncio.sleep(0.5)
            assert sfu.sessions()[0]["checks"] == 0
            assert sfu.sessions()[0]["state"] == "connecting"
        finally:
            publishing.cancel()
            await camera.close()


async def test_garbage_on_the_media_port_is_counted_and_harmless(api: httpx.AsyncClient) -> None:
    async with SfuSimulator() as sfu:
        camera = StockPublisher(api, app_of(sfu), "porch", UNITS)
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            await camera.publish()
            rng = random.Random(1)
            # From a stranger, and forged to come from the camera's own address.
            samples = [bytes([first]) + rng.randbytes(size) for first in range(256) for size in (0, 11, 12, 60)]
            for sample in [b"", *samples]:
                stranger.sendto(sample, sfu.media_address)
            await until(lambda: sfu.port_counters()["unknown"] >= 1024, "strangers counted")
            place = sfu.sessions()[0]["address"]
            for sample in samples:
                if sample[0] >= 64:
                    sfu.inject(sample, (place[0], place[1]))
            await until(lambda: packets(sfu, "porch-video") > 30, "packets")
            assert sfu.sessions()[0]["unauthenticated"] > 100
            assert sfu.published("porch-video")["lost_before_repair"] == 0
        finally:
            stranger.close()
            await camera.close()


async def test_losing_a_session_stops_its_media_alone(api: httpx.AsyncClient) -> None:
    async with SfuSimulator() as sfu:
        porch, yard = (StockPublisher(api, app_of(sfu), name, UNITS) for name in ("porch", "yard"))
        try:
            await asyncio.gather(porch.publish(), yard.publish())
            await until(lambda: packets(sfu, "porch-video") and packets(sfu, "yard-video"), "packets of both")
            url = f"{sfu.control_url}/sessions/{porch.session}"
            assert (await api.post(url, json={"end": True})).status_code == 200
            before = packets(sfu, "yard-video")
            await until(lambda: packets(sfu, "yard-video") > before + 20, "packets of the other")
            assert packets(sfu, "porch-video") == 0
            assert sfu.published("yard-video")["lost_before_repair"] == 0
        finally:
            await asyncio.gather(porch.close(), yard.close())
