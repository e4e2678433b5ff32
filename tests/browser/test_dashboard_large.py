"""A camera's large view: its statistics over time, its events, and its actions."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page

from tests.fixtures.dashboard import Dashboard, picture, served, until

pytestmark = [pytest.mark.browser]

SAID = "document.getElementById('large-said').textContent"


async def opened(page: Page, dashboard: Dashboard, button: str) -> None:
    await page.goto(dashboard.server.url)
    await page.get_by_role("button", name=button).click()
    await page.wait_for_selector("#large[open]")


async def test_plots_events_and_snapshot(chromium_page: Page) -> None:
    page = chromium_page
    async with served(2) as dashboard:
        door, drive = dashboard.relay.cameras
        for camera in (door, drive):
            camera.viewable = False
        door.video.packets_in, door.video.jitter_in, door.video.keyframe_interval = 1000, 0.004, 2.0
        dashboard.relay.events.publish("camera", "was published anew", door.id)
        dashboard.relay.events.publish("camera", "is offline", drive.id)
        await opened(page, dashboard, "Front door, live")
        await until(page, "document.querySelectorAll('#large-plots polyline[points~=\"179,6.3\"]').length > 0")
        door.video.packets_in, door.video.lost_in = 1099, 1
        # Now for a second, and in what is said of the last minutes from then on.
        lost = '/Lost from the camera: [^"]* and 1.0 % in the last/'
        await until(page, f"{lost}.test(document.getElementById('large-plots').innerHTML)")
        labels = await page.eval_on_selector_all(
            "#large-plots svg", "all => all.map(p => p.getAttribute('aria-label'))"
        )
        assert [label.partition(":")[0] for label in labels] == [
            "Bit rate",
            "Frames per second",
            "Lost from the camera",
            "Jitter from the camera",
            "Delay in the relay",
            "Keyframe every",
        ]
        assert "4.0 ms" in labels[3]
        assert "in the last 3 minutes" in labels[0]
        assert await page.inner_text("#large-events span") == "was published anew"

        await page.get_by_role("button", name="Take a snapshot").click()
        await until(page, "document.querySelector('#large-snapshot img')?.naturalWidth === 64")
        await picture(page, "large-snapshot")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Download").click()
        assert (await download.value).suggested_filename.startswith("Front door 20")
        # Another camera shows another picture, or none.
        await page.get_by_role("button", name="Next camera").click()
        await page.wait_for_selector("#large-snapshot", state="hidden")
        await page.get_by_role("button", name="Take a snapshot").click()
        await until(page, f"{SAID} === 'The camera sends no picture now. Try again when it is live'")


async def test_what_others_notice_is_asked_for_first(chromium_page: Page) -> None:
    page = chromium_page
    async with served(1) as dashboard:
        camera = dashboard.relay.cameras[0]
        camera.viewable = False
        calls = dashboard.relay.calls
        await opened(page, dashboard, "Front door, live")
        for answer in ("Escape", "Enter"):  # the safe answer has the focus
            await page.get_by_role("button", name="Disable this camera").focus()
            await page.keyboard.press("Enter")
            assert "Disable Front door?" in await page.inner_text("#confirm[open]")
            await page.keyboard.press(answer)
            await page.wait_for_selector("#confirm", state="hidden")
            await page.wait_for_selector("#large-toggle:enabled")
        await asyncio.sleep(0.3)
        assert calls == []
        await page.get_by_role("button", name="Disable this camera").click()
        await page.get_by_role("button", name="Disable", exact=True).click()
        await until(page, f"{SAID} === 'Disabled until you enable it again.'")
        await page.get_by_role("button", name="Enable this camera").click()
        await until(page, f"{SAID} === 'Enabled: the picture will appear by itself.'")
        assert calls == [("disable", camera.id), ("enable", camera.id)]
