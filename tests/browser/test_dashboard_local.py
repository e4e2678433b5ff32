"""The dashboard plays from the relay itself where the browser reaches it, and from Cloudflare otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page

import relay_supervisor.http
from relay_common.worker_stats import SinkStats
from relay_supervisor.status.model import LocalStatus
from relay_supervisor.viewing.decoding import BROWSERS_FAULT
from tests.fixtures.chromium import BLINDFOLD
from tests.fixtures.dashboard import Dashboard, decoding, first_that, picture, served, until
from tests.fixtures.local_responder import StockLocal
from tests.fixtures.running_relay import SMALL, running_relay

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(400)]

NO_COST = r"document.getElementById('egress').textContent === '0 · 0 GB a month · free'"
STATIC = Path(relay_supervisor.http.__file__).parent / "static"
AFRESH = "window.relay.tracks.some((track) => track.publication === '{publication}')"


COLLECT = """
window.made = [];
const Original = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(...args) { super(...args); made.push(this); }
};
"""
GIVEN_UP = "JSON.parse(sessionStorage.getItem('relay.local.unreachable') ?? '[]')"


def tile_says(camera: str, words: str) -> str:
    return f"document.querySelector('[data-camera=\"{camera}\"]').innerText.includes({json.dumps(words)})"


def way(camera: str) -> str:
    return f"document.querySelector('[data-camera=\"{camera}\"] .way').textContent"


async def patient(page: Page, seconds: int = 30) -> None:
    """Have the page wait so long for a direct connection: what plays here shares the machine with other tests."""
    source, constant = (STATIC / "local.js").read_text(), "CONNECT_WITHIN = {}000;"
    assert source.count(constant.format(3)) == 1
    body = source.replace(constant.format(3), constant.format(seconds))
    await page.route("**/static/local.js", lambda route: route.fulfill(body=body, content_type="text/javascript"))


@contextlib.asynccontextmanager
async def answering(cameras: int, *, sfu: bool) -> AsyncIterator[tuple[Dashboard, StockLocal]]:
    """A dashboard whose cameras can be watched at the relay itself; `sfu`: at Cloudflare, too."""
    local = StockLocal()
    async with served(cameras, local=local) as dashboard:
        for camera in dashboard.relay.cameras:
            camera.local, camera.sfu = LocalStatus(on=True, publication="worker-1"), sfu
            camera.viewable = sfu
        try:
            yield dashboard, local
        finally:
            await local.aclose()


async def test_without_cloudflare_everything_is_played_direct_and_costs_nothing(chromium_page: Page) -> None:
    page = chromium_page
    await patient(page)
    async with answering(2, sfu=False) as (dashboard, local):
        await dashboard.sfu.stop()
        first, second = (camera.id for camera in dashboard.relay.cameras)
        await page.goto(dashboard.server.url)
        await decoding(page, [first, second])
        for camera in (first, second):
            await until(page, f"{way(camera)} === 'direct'")
        await until(page, NO_COST)
        await picture(page, "direct")
        assert len(dashboard.relay.viewers) == 0
        assert dashboard.relay.viewers.outcomes["opened"] == 0

        # A worker is replaced: the camera is connected afresh at once, the other is left alone.
        others = [viewer for viewer, asked in zip(local.connections, local.asked, strict=True) if asked == second]
        dashboard.relay.cameras[0].local = LocalStatus(on=True, publication="worker-2")
        await until(page, "window.relay.tracks.filter((track) => track.publication === 'worker-2').length === 2")
        await decoding(page, [first, second])
        assert local.asked.count(second) == 1
        assert not {viewer for viewer, _ in local.closed} & set(others)

        await page.goto("about:blank")
        deadline = time.monotonic() + 30.0
        while len(local.closed) < 3:
            assert time.monotonic() < deadline, "sessions stay open when the page is left"
            await page.wait_for_timeout(50)


def chosen_small(dashboard: Dashboard) -> str:
    """What a person has chosen on this page before, for its init script."""
    pins = {camera.id: "small" for camera in dashboard.relay.cameras}
    return f"localStorage.setItem('relay.quality', {json.dumps(json.dumps(pins))})"


async def test_a_picture_that_was_chosen_small_is_small_from_the_first_connection_on(chromium_page: Page) -> None:
    """A direct connection keeps the picture that it was made for."""
    page = chromium_page
    await patient(page)
    async with answering(1, sfu=False) as (dashboard, local):
        (camera,) = dashboard.relay.cameras
        camera.renditions = "keyframes"
        await page.add_init_script(chosen_small(dashboard))
        await page.goto(dashboard.server.url)
        await decoding(page, [camera.id])
        await until(page, tile_says(camera.id, "small, as chosen"))
        assert local.qualities == ["small"]


async def test_who_asks_for_a_small_picture_where_none_is_made_is_told_so(chromium_page: Page) -> None:
    page = chromium_page
    async with answering(1, sfu=False) as (dashboard, local):
        (camera,) = dashboard.relay.cameras
        camera.renditions, local.sent = "smooth", "full"
        await page.add_init_script(chosen_small(dashboard))
        await page.goto(dashboard.server.url)
        await decoding(page, [camera.id])
        await until(page, tile_says(camera.id, "full: no small picture is made"))
        local.sent = "small"
        await until(page, tile_says(camera.id, "small, as chosen"))


async def test_what_is_chosen_while_a_direct_connection_is_being_made_is_not_lost(chromium_page: Page) -> None:
    page = chromium_page
    await patient(page)
    async with answering(1, sfu=False) as (dashboard, local):
        (camera,) = dashboard.relay.cameras
        await page.add_init_script(chosen_small(dashboard))
        local.answers.clear()
        await page.goto(dashboard.server.url)
        await first_that(lambda: local.qualities == [""])
        camera.renditions = "keyframes"
        await until(page, tile_says(camera.id, "small, as chosen"))
        local.answers.set()
        await first_that(lambda: local.qualities == ["", "small"])
        await until(page, "window.relay.tracks.length === 2")
        await decoding(page, [camera.id])
        assert local.qualities == ["", "small"]


async def test_where_nothing_can_be_watched_the_page_says_where_the_camera_goes(chromium_page: Page) -> None:
    page = chromium_page
    async with served(1) as dashboard:
        (camera,) = dashboard.relay.cameras
        camera.sfu = camera.viewable = False
        camera.sinks = [SinkStats(name="studio", live=True, bitrate=1.2e6), SinkStats(name="barn", reason="it is full")]
        await page.goto(f"{dashboard.server.url}/#{camera.id}")
        await until(page, "document.querySelector('.tile').innerText.includes('It is published at studio')")
        await until(page, "document.getElementById('large-facts').innerText.includes('barn: it is full')")
        assert await page.evaluate("document.getElementById('large-facts').innerText.includes('studio: 1.2 Mb/s')")
        assert dashboard.relay.viewers.outcomes["refused"] == dashboard.relay.viewers.outcomes["opened"] == 0


async def test_what_cannot_be_reached_or_is_full_comes_from_cloudflare(chromium_page: Page) -> None:
    page = chromium_page
    await patient(page, 10)
    async with answering(3, sfu=True) as (dashboard, local):
        near, far, full = (camera.id for camera in dashboard.relay.cameras)
        local.unreachable, local.full = {far}, {full}
        for number in (1, 2):
            await dashboard.publish(number)
        await page.goto(dashboard.server.url)
        await decoding(page, [near, far, full])
        await until(page, f"{way(near)} === 'direct'")
        for camera in (far, full):
            await until(page, f"{way(camera)} === 'Cloudflare'")
        assert local.asked.count(far) == 1
        await until(page, r"/^[\d.]+ [kM]b\/s/.test(document.getElementById('egress').textContent)")

        # What was out of reach is not tried again in this tab.
        await page.reload()
        await decoding(page, [near, far, full])
        assert local.asked.count(far) == 1
        assert local.asked.count(near) == 2


async def test_a_page_that_slept_while_it_connected_does_not_give_the_direct_way_up(chromium_page: Page) -> None:
    """On the page's own clock: a laptop that was closed meanwhile has fired its timers once.

    It stands still from the beginning: of the three seconds, none may pass as slowly as this machine happens to work.
    """
    page = chromium_page
    await page.clock.install(time=time.time())
    await page.clock.pause_at(time.time() + 3600.0)
    await page.add_init_script(COLLECT)
    async with answering(1, sfu=True) as (dashboard, local):
        (camera,) = (camera.id for camera in dashboard.relay.cameras)
        local.unreachable = {camera}
        await page.goto(dashboard.server.url)
        # Nothing that the page does before it connects waits for its clock.
        await until(page, "made.length && made[0].remoteDescription !== null", within=60.0)
        await page.clock.fast_forward(600_000)
        await page.clock.run_for(500)
        assert await page.evaluate(GIVEN_UP) == []
        assert await page.evaluate("made.map((pc) => pc.signalingState)") == ["stable"], "it still waits for that one"
        await page.clock.run_for(4000)
        assert await page.evaluate(GIVEN_UP) == [camera], "three seconds awake are enough"


async def test_a_page_that_plays_direct_tells_whether_it_decodes(chromium_page: Page) -> None:
    """On the real relay: a page that decodes nothing of what it gets, alone, and beside one that decodes."""
    await chromium_page.add_init_script(BLINDFOLD)
    sections = {"local": {"listen": "127.0.0.1"}}
    async with running_relay(1, options=SMALL, sections=sections, sfu=False) as relay:
        await relay.until_live(within=45.0)
        (camera,) = (camera.id for camera in relay.supervisor.status().cameras)

        def decodable(verdict: str) -> bool:
            return relay.supervisor.status().cameras[0].decodable == verdict

        assert decodable("unknown"), "nobody watches"
        await chromium_page.goto(relay.supervisor.url)
        await relay.until(lambda: decodable("no"), 90.0, "the page reports bytes without pictures")
        assert "browsers get its bytes" in relay.supervisor.status().cameras[0].reason
        await until(chromium_page, tile_says(camera, "Live, not decodable"), within=60.0)
        sessions = relay.supervisor.local.outcomes["opened"]

        browser = chromium_page.context.browser
        assert browser is not None
        other = await browser.new_page()
        await other.goto(relay.supervisor.url)
        await decoding(other, [camera])
        await relay.until(lambda: decodable("yes"), 30.0, "the other page reports pictures")
        await until(chromium_page, tile_says(camera, BROWSERS_FAULT), within=60.0)
        assert relay.supervisor.local.outcomes["opened"] - sessions <= 3, "to connect again does not help"


async def test_the_real_relay_without_an_sfu_plays_on_its_page_and_on_a_guests(chromium_page: Page) -> None:
    page = chromium_page
    sections = {"local": {"listen": "127.0.0.1"}}
    async with running_relay(2, options=(*SMALL, "--webrtc", "1"), sections=sections, sfu=False) as relay:
        await relay.until_live(within=45.0)
        cameras = [camera.id for camera in relay.supervisor.status().cameras]
        await page.goto(relay.supervisor.url)
        await decoding(page, cameras)
        for camera in cameras:
            await until(page, f"{way(camera)} === 'direct'")
        await until(page, NO_COST)
        await until(page, "document.getElementById('viewers').textContent === '2'")

        # A worker dies, and with it its viewers' connections: the page connects to the next one.
        worker = relay.camera("Front Door").worker.pid
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        await relay.until(lambda: relay.camera("Front Door").worker.pid not in (0, worker), 30.0, "another worker")
        await relay.until(lambda: bool(relay.camera("Front Door").local.publication), 30.0, "it has said hello")
        publication = relay.camera("Front Door").local.publication
        await until(page, AFRESH.format(publication=publication), within=30.0)
        await decoding(page, cameras)
        print(f"playing again {time.monotonic() - killed:.1f} s after the worker was killed")

        made = await relay.http.post(f"{relay.supervisor.url}/api/cameras/{cameras[1]}/link", json={"seconds": 600})
        await page.goto(f"{relay.supervisor.url}{made.json()['path']}")
        await decoding(page, cameras[1:])
        await until(page, "document.getElementById('state').title === 'direct'")
        await relay.until(lambda: len(relay.supervisor.local) == 1, 30.0, "the dashboard's sessions have ended")
        assert relay.supervisor.viewers.outcomes["opened"] == 0
