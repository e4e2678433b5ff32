"""Other people's clients of Google's and Cloudflare's APIs, against our simulators of both."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from relay_common.simulation.google.quota import UNLIMITED
from relay_common.simulation.world import World, WorldConfig, camera_name
from tests.fixtures.chromium import chromium
from tests.peers.packages import FOLDER, nest_client, node

pytestmark = [pytest.mark.media, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
CONFIG = WorldConfig(
    workdir=Path(), cameras=2, width=160, height=120, loop=2.0, webrtc=1, shared_clip=True, tls=False, limits=UNLIMITED
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(dataclasses.replace(CONFIG, workdir=tmp_path)) as world:
        yield world


async def an_offer(monkeypatch: pytest.MonkeyPatch) -> str:
    """As Google wants it: audio, video, application, with a candidate."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", direction="recvonly")
    pc.addTransceiver("video", direction="recvonly")
    pc.createDataChannel("dataSendChannel")
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp
    await pc.close()
    return str(offer)


async def test_google_nest_sdm_finds_cameras_and_leads_their_streams(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"nest": world.endpoints()["nest"], "offer": await an_offer(monkeypatch)}
    process = await asyncio.create_subprocess_exec(
        nest_client(),
        str(HERE / "nest_client.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(json.dumps(given).encode() + b"\n")
    assert process.returncode == 0, errors.decode()
    report: dict[str, Any] = json.loads(out)
    assert report["structures"] == 1
    assert report["devices"] == {camera_name(0): ["RTSP"], camera_name(1): ["WEB_RTC"]}
    assert all(report["parents"].values()), "a device without a room"
    assert report["rtsp"][1], "not longer"
    assert report["webrtc"] == [True, True]
    assert report["answer"].startswith("v=0")


PUSH_AND_PULL = """async () => {
    const canvas = document.getElementById("picture");
    const drawing = canvas.getContext("2d");
    let count = 0;
    setInterval(() => {
        drawing.fillStyle = `hsl(${(count += 7) % 360} 60% 40%)`;
        drawing.fillRect(0, 0, canvas.width, canvas.height);
    }, 33);
    const [track] = canvas.captureStream(30).getVideoTracks();
    const options = {prefix: "/partytracks", iceServers: []};
    const sender = new party.PartyTracks(options), receiver = new party.PartyTracks(options);
    const video = document.getElementById("video");
    const metadata$ = sender.push(party.of(track), {
        sendEncodings$: party.of([{}]),
        callback: () => {},
    });
    window.pulled = receiver.pull(metadata$).subscribe((track) => {
        video.srcObject = new MediaStream([track]);
        video.play();
    });
    const began = performance.now();
    while (performance.now() - began < 40000) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        const {totalVideoFrames} = video.getVideoPlaybackQuality();
        if (totalVideoFrames >= 150) return totalVideoFrames;
    }
    return video.getVideoPlaybackQuality().totalVideoFrames;
}"""


@pytest.mark.browser
async def test_partytracks_pushes_a_track_and_pulls_it_again(world: World) -> None:
    script = FOLDER / "party_server.mjs"
    at, command = world.endpoints()["cloudflare"], node()
    script.write_text((HERE / "party_server.mjs").read_text())
    process = await asyncio.create_subprocess_exec(
        command,
        str(script),
        at["api_base_url"],
        at["app_id"],
        at["app_secret"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with chromium() as browser:
            page = await browser.new_page()
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            await page.goto(f"http://127.0.0.1:{port}/")
            frames = await page.evaluate(PUSH_AND_PULL)
            assert frames >= 150, said
    finally:
        process.kill()
        await process.wait()
