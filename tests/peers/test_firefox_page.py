"""The dashboard in Firefox, towards the SFU: a fresh one has no H.264 until its plugin has been downloaded."""

from __future__ import annotations

import asyncio

import pytest

from relay_worker.webrtc.addresses import default_host_addresses
from tests.fixtures.dashboard import served
from tests.peers.whep_players import Lines, firefox

pytestmark = [pytest.mark.media, pytest.mark.browser, pytest.mark.serial, pytest.mark.timeout(180)]

SAID = "document.querySelector('{}')?.innerText.includes('This browser has no H.264')"
HEARD = "window.relay.stats().then((all) => all.cam00000?.audioPacketsReceived > 50)"


async def until_true(browser: Lines, expression: str) -> None:
    async with asyncio.timeout(60.0):
        while not await browser.ask(evaluate=expression):
            await asyncio.sleep(0.2)


async def test_firefox_without_its_plugin_is_told_so_and_hears_the_camera() -> None:
    # Firefox tries no address of loopback without its user's consent to a microphone.
    (host,) = [address for address in default_host_addresses() if ":" not in address][:1]
    async with served(1, sfu_host=host) as dashboard, firefox() as browser:
        await dashboard.publish(0)
        await browser.ask(goto=dashboard.server.url)
        codecs = await browser.ask(evaluate="RTCRtpReceiver.getCapabilities('video').codecs.map((one) => one.mimeType)")
        assert "video/H264" not in codecs, "its plugin is there: it can be shown the picture, too"
        for part in ("#banner", ".why"):
            await until_true(browser, SAID.format(part))
        assert "OpenH264" in await browser.ask(evaluate="document.getElementById('banner').innerText")
        await until_true(browser, HEARD)
