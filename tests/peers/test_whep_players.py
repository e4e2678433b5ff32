"""Other people's players of `[local]`: each plays a camera from the relay itself, without the SFU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relay_worker.webrtc.addresses import default_host_addresses
from tests.fixtures.chromium import chromium
from tests.fixtures.lateness import Lateness
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.peers.rtsp_reader import decode, probe
from tests.peers.whep_players import firefox, go2rtc_player, plain_page, script

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.media,
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.timeout(180),
]

WATCHED = 60.0 if os.environ.get("RELAY_PEERS_LONG") == "1" else 10.0
"""Seconds for which each has to play."""
TRIES = 3
"""Of what the machine was too busy for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[str]:
    async with plain_page() as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(page: str) -> AsyncIterator[RunningRelay]:
    # Firefox tries no address of loopback, without its user's consent to a microphone.
    local = {"listen": default_host_addresses(loopback_too=True), "viewers": 8, "allowed_origins": [page.rstrip("/")]}
    async with running_relay(1, sections={"local": local}) as relay:
        await relay.until_live()
        yield relay


def whep(relay: RunningRelay) -> str:
    return f"{relay.supervisor.url}/whep/front-door"


async def playing(received: Callable[[], Awaitable[Any]], *kinds: str) -> Any:
    """Wait until packets of these kinds came; the player's counts, which are packets or `inbound-rtp` statistics."""
    async with asyncio.timeout(60):
        while True:
            got = await received()
            if all(
                got[kind].get("packets") or got[kind].get("packetsReceived") for kind in kinds or ("video", "audio")
            ):
                return got
            await asyncio.sleep(0.1)


async def left(relay: RunningRelay) -> None:
    """Wait until nobody watches any more."""
    await relay.until(lambda: relay.camera("Front Door").local.viewers == 0, 60.0, "nobody watches")


async def link_of(relay: RunningRelay) -> str:
    """A signed link's WHEP address: what a player elsewhere is given."""
    camera = relay.camera("Front Door").id
    reply = await relay.http.post(f"{relay.supervisor.url}/api/cameras/{camera}/link", json={"seconds": 600})
    return f"{relay.supervisor.url}/whep/{camera}?{reply.json()['path'].partition('?')[2]}"


async def test_go2rtc_hands_it_on_by_rtsp(relay: RunningRelay, tmp_path: Path) -> None:
    """How Frigate and Home Assistant get it."""
    sources = {"front-door": f"webrtc:{whep(relay)}", "by-link": f"webrtc:{await link_of(relay)}"}
    async with go2rtc_player(tmp_path, sources) as server:
        assert set(await probe(f"{server}by-link")) == {"video", "audio"}
        streams = await probe(f"{server}front-door")
        assert (streams["video"]["codec_name"], streams["audio"]["codec_name"]) == ("h264", "opus")
        assert (streams["video"]["width"], streams["video"]["height"]) == (320, 180)
        got = await decode(f"{server}front-door", WATCHED, tmp_path / "recorded.mp4")
        recorded = await probe(str(tmp_path / "recorded.mp4"))
    assert got.complaints == []
    assert got.pictures >= (WATCHED - 0.5) * 30
    assert got.sound >= WATCHED - 0.5
    assert float(recorded["video"]["duration"]) >= WATCHED - 0.5
    assert float(recorded["audio"]["duration"]) >= WATCHED - 0.5


async def test_werift_plays_it_without_a_loss(relay: RunningRelay) -> None:
    async with script("werift_player.mjs", whep(relay)) as player:
        await playing(player.read)
        await asyncio.sleep(WATCHED)
        for _ in range(int(2 * WATCHED)):
            got = await player.read()
        assert got["state"] == "connected"
        assert got["video"]["lost"] == got["audio"]["lost"] == 0
        assert got["video"]["packets"] > 30 * WATCHED
        assert got["audio"]["packets"] > 45 * WATCHED
    await left(relay)


async def test_a_plain_page_plays_it_in_chromium(relay: RunningRelay, page: str) -> None:
    async with chromium() as browser:
        tab = await browser.new_page()
        await tab.goto(page)
        made = await tab.evaluate(f"play('{whep(relay)}')")
        assert made["status"] == 201

        async def received() -> Any:
            return await tab.evaluate("received()")

        await playing(received)
        for _ in range(TRIES):
            async with Lateness() as lateness:
                before = await received()
                await asyncio.sleep(WATCHED)
                got = await received()
            decoded = got["video"]["framesDecoded"] - before["video"]["framesDecoded"]
            if decoded >= 28 * WATCHED or not lateness.busy:
                break
        assert decoded >= 28 * WATCHED
        assert got["video"]["packetsLost"] == got["audio"]["packetsLost"] == 0
        assert got["audio"]["totalAudioEnergy"] > before["audio"]["totalAudioEnergy"]
        assert await tab.evaluate("end()") == 200
    await left(relay)


async def test_a_page_that_trickles_its_candidates_plays_it_and_restarts_ice(relay: RunningRelay, page: str) -> None:
    """The offer has no candidate; those that follow name the ICE session by its tag, which a restart changes."""
    async with chromium() as browser:
        tab = await browser.new_page()
        await tab.goto(page)
        made = await tab.evaluate(f"trickle('{whep(relay)}')")
        assert made["status"] == 201
        patched = await tab.evaluate("patched")
        assert len(patched) > 1, "a candidate, and the end of them"
        assert set(patched) == {204}

        async def received() -> Any:
            return await tab.evaluate("received()")

        await playing(received)
        first = await tab.evaluate("pair()")
        again = await tab.evaluate("restart()")
        assert (again["status"], again["stale"], again["none"]) == (200, 412, 428)
        assert again["before"] != again["after"]
        async with asyncio.timeout(30):
            while (pair := await tab.evaluate("pair()"))["ufrag"] == first["ufrag"] or pair["ice"] != "connected":
                await asyncio.sleep(0.1)
        before = await received()
        async with asyncio.timeout(30):
            while (got := await received())["video"]["framesDecoded"] < before["video"]["framesDecoded"] + 60:
                await asyncio.sleep(0.2)
        assert got["video"]["packetsLost"] == got["audio"]["packetsLost"] == 0
        assert await tab.evaluate("end()") == 200
    await left(relay)


async def test_firefox_connects_and_hears_it(relay: RunningRelay, page: str) -> None:
    """A fresh one has no H.264 until its plugin has been downloaded; its ClientHello spans two datagrams."""
    async with firefox() as browser:
        await browser.ask(goto=page)
        codecs = await browser.ask(evaluate="RTCRtpReceiver.getCapabilities('video').codecs.map((one) => one.mimeType)")
        assert "video/H264" not in codecs, "its plugin is there: it can be shown the picture, too"
        refused = await browser.ask(evaluate=f"play('{whep(relay)}')")
        assert refused["status"] == 406
        assert "H264" in refused["body"]
        made = await browser.ask(evaluate=f"play('{whep(relay)}', ['audio'])")
        assert made["status"] == 201

        async def received() -> Any:
            return await browser.ask(evaluate="received()")

        before = await playing(received, "audio")
        assert before["state"] == "connected"
        await asyncio.sleep(WATCHED)
        got = await received()
        assert got["audio"]["packetsReceived"] - before["audio"]["packetsReceived"] > 45 * WATCHED
        assert got["audio"]["packetsLost"] == 0
        assert got["audio"]["totalAudioEnergy"] > before["audio"]["totalAudioEnergy"]
        assert await browser.ask(evaluate="end()") == 200
    await left(relay)


async def test_our_page_in_firefox_says_what_is_missing_and_is_heard(relay: RunningRelay) -> None:
    async with firefox() as browser:
        await browser.ask(goto=relay.supervisor.url)

        async def shown() -> str:
            return str(await browser.ask(evaluate="document.body.innerText"))

        async with asyncio.timeout(60):
            while "no H.264" not in await shown():
                await asyncio.sleep(0.2)
        await relay.until(lambda: relay.camera("Front Door").local.viewers == 1, 60.0, "the page is connected")
        before = relay.camera("Front Door").local.packets_sent
        await relay.until(lambda: relay.camera("Front Door").local.packets_sent > before + 100, 60.0, "it gets sound")
    await left(relay)
