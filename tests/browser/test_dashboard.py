"""The dashboard in a real Chromium, with pictures from the simulated SFU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from relay_common.clock import SystemClock
from relay_common.simulation.sfu import SfuSimulator
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.server import HttpServer
from tests.fixtures.fake_relay import BrokeredCamera, FakeRelay, connected, live_camera
from tests.fixtures.stock_publisher import encoded_loop

pytestmark = [pytest.mark.browser, pytest.mark.media]


class Dashboard:
    """A served dashboard over a fake relay and a real media plane."""

    def __init__(self, cameras: int) -> None:
        self._count = cameras
        self.cameras: list[BrokeredCamera] = []
        self._units = encoded_loop()

    async def start(self) -> None:
        self.sfu = SfuSimulator()
        await self.sfu.start()
        clock = SystemClock()
        self.relay = FakeRelay(clock, cameras=self._count, sfu_url=self.sfu.base_url)
        self.server = HttpServer(
            create_app(self.relay, HttpSettings(), clock), "127.0.0.1", 0, on_stop=self.relay.events.close
        )
        await self.server.start()
        self._ticking = asyncio.create_task(self.relay.events.run(self.relay.status))

    async def publish(self, number: int) -> BrokeredCamera:
        status = self.relay.cameras[number]
        camera = BrokeredCamera(self.relay.broker, status.id, status.name, self._units)
        self.cameras.append(camera)
        await camera.publish()
        await connected(camera)
        return camera

    async def stop(self) -> None:
        self._ticking.cancel()
        await self.server.stop()
        for camera in self.cameras:
            await camera.close()
        await self.relay.aclose()
        await self.sfu.stop()


@contextlib.asynccontextmanager
async def served(cameras: int) -> AsyncIterator[Dashboard]:
    dashboard = Dashboard(cameras)
    await dashboard.start()
    try:
        yield dashboard
    finally:
        await dashboard.stop()


async def stats(page: Page) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = await page.evaluate("window.relay.stats()")
    return result


async def decoding(page: Page, cameras: list[str], more: int = 10, within: float = 30.0) -> None:
    """Wait until every one of `cameras` has decoded `more` frames than at the first look."""
    first: dict[str, int] = {}
    deadline = time.monotonic() + within
    while True:
        now = await stats(page)
        done = []
        for camera in cameras:
            frames = now.get(camera, {}).get("framesDecoded", 0)
            # A replaced connection starts counting anew.
            first[camera] = min(first.get(camera, frames), frames)
            done.append(frames >= first[camera] + more)
        if all(done):
            return
        assert time.monotonic() < deadline, f"not decoding: {now}"
        await asyncio.sleep(0.2)


async def until(page: Page, expression: str, within: float = 15.0) -> None:
    """Wait for a truthy `expression`. (Playwright's own waiting needs `eval`, which the page's policy forbids.)"""
    deadline = time.monotonic() + within
    while not await page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        await asyncio.sleep(0.1)


async def first_that(condition: Callable[[], bool], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.1)


async def follows(page: Page, camera: BrokeredCamera) -> None:
    """Wait until the page knows both tracks of the camera's new publication."""
    await until(
        page, f"window.relay.tracks.filter((track) => track.publication === '{camera.publication}').length === 2"
    )


def watch_console(page: Page) -> list[str]:
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("requestfailed", lambda r: problems.append(f"{r.url}: {r.failure}"))
    return problems


async def picture(page: Page, name: str) -> None:
    directory = os.environ.get("RELAY_SCREENSHOTS")
    if directory:
        await page.screenshot(path=Path(directory) / f"{name}.png")


async def test_plays_every_camera_over_one_connection_with_sound(chromium_page: Page) -> None:
    page = chromium_page
    async with served(3) as dashboard:
        for number in range(2):
            await dashboard.publish(number)
        ids = [camera.id for camera in dashboard.relay.cameras]
        dashboard.relay.cameras[2].state = "offline"
        dashboard.relay.cameras[2].viewable = False
        dashboard.relay.cameras[2].reason = "Google says that the camera is offline"
        dashboard.relay.events.publish("camera", "is offline", ids[2])
        problems = watch_console(page)
        await page.goto(dashboard.server.url)
        await decoding(page, ids[:2])
        assert len(await page.evaluate("window.relay.pcs.map((pc) => pc.connectionState)")) == 1
        await page.wait_for_selector(f'[data-camera="{ids[0]}"][data-playing="yes"]')
        assert await page.inner_text(f'[data-camera="{ids[0]}"] .pill') == "Live"
        assert "Google says that the camera is offline" in await page.inner_text(f'[data-camera="{ids[2]}"]')
        await page.get_by_role("button", name="Sound of Front door").click()
        await until(page, f"window.relay.stats().then((all) => all['{ids[0]}'].totalAudioEnergy > 0)")
        await picture(page, "desktop")
        # By keyboard: open large, Escape back.
        await page.get_by_role("button", name="Driveway, live").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#large[open]")
        assert await page.inner_text("#large-name") == "Driveway"
        assert not await page.evaluate("document.getElementById('large-video').muted")
        await until(page, "document.getElementById('large-video').videoWidth > 0")
        await picture(page, "large")
        await page.get_by_role("button", name="Restart this camera").click()
        await until(page, "document.getElementById('large-said').textContent !== ''")
        assert dashboard.relay.calls == [("restart", ids[1])]
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#large", state="hidden")
        # A camera that comes later joins the same connection.
        await dashboard.publish(2)
        dashboard.relay.cameras[2] = live_camera(2, dashboard.relay.clock)
        await decoding(page, ids)
        assert len(await page.evaluate("window.relay.pcs.map((pc) => pc.connectionState)")) == 1
        assert not problems


async def test_follows_a_camera_that_is_published_anew_and_a_restarted_relay(chromium_page: Page) -> None:
    page = chromium_page
    async with served(2) as dashboard:
        for number in range(2):
            await dashboard.publish(number)
        ids = [camera.id for camera in dashboard.relay.cameras]
        await page.goto(dashboard.server.url)
        await decoding(page, ids)
        before = await stats(page)
        again = await dashboard.publish(0)
        await follows(page, again)
        await decoding(page, ids)
        after = await stats(page)
        # The other camera was on the same connection and went on.
        assert after[ids[1]]["framesDecoded"] > before[ids[1]]["framesDecoded"]
        outcomes = dashboard.relay.viewers.outcomes
        assert (outcomes["repointed"], outcomes["opened"], outcomes["reopened"]) == (1, 1, 0)
        # A restarted supervisor knows no views, while the SFU goes on: the page opens another by itself.
        dashboard.relay.viewers._views.clear()
        dashboard.relay.uptime = 1.0
        await first_that(lambda: outcomes["opened"] == 2 and outcomes["answered"] == 2)
        await decoding(page, ids, more=30)
        assert await page.evaluate("window.relay.pcs.length") == 1


async def test_pulls_a_camera_anew_when_its_worker_has_died(chromium_page: Page) -> None:
    page = chromium_page
    async with served(2) as dashboard:
        first, _ = [await dashboard.publish(number) for number in range(2)]
        ids = [camera.id for camera in dashboard.relay.cameras]
        await page.goto(dashboard.server.url)
        await decoding(page, ids)
        await first.close()
        again = await dashboard.publish(0)
        await follows(page, again)
        await decoding(page, ids)
        outcomes = dashboard.relay.viewers.outcomes
        assert (outcomes["repointed"], outcomes["opened"], outcomes["reopened"], outcomes["answered"]) == (0, 1, 0, 2)


async def test_phone_width_and_a_hundred_tiles(chromium_page: Page) -> None:
    page = chromium_page
    async with served(6) as dashboard:
        for camera in dashboard.relay.cameras:
            camera.viewable = False
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.goto(dashboard.server.url)
        await page.wait_for_selector(".budget svg circle")
        await picture(page, "phone")
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await page.get_by_role("button", name="Driveway, live").click()
        await page.wait_for_selector("#large[open]")
        await picture(page, "phone-large")
        assert await page.evaluate("document.getElementById('large').scrollWidth <= window.innerWidth")
        await page.keyboard.press("Escape")
        dashboard.relay.cameras = [live_camera(number, dashboard.relay.clock) for number in range(100)]
        await page.set_viewport_size({"width": 1440, "height": 900})
        await page.emulate_media(color_scheme="light")
        await until(page, "document.querySelectorAll('.tile').length === 100")
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await picture(page, "hundred")
