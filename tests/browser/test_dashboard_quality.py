"""The page asks for the picture that it needs: small in small tiles, full where it is large and the line carries it."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from playwright.async_api import Page

from relay_common.simulation.sfu.simulator import SfuVariant
from tests.fixtures.dashboard import Dashboard, decoding, picture, served, stats, until
from tests.fixtures.simulcast_cameras import FULL, SMALL, publish_layers

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.serial, pytest.mark.timeout(300)]

LONG = pytest.mark.skipif("RELAY_LONG_LINES" not in os.environ, reason="takes minutes: make lines")


async def widths(page: Page, expected: list[int]) -> None:
    """Wait until the pictures of the cameras, by id, arrive with these widths.

    A machine that is busy at the wrong moment fails a try of the full picture, and the next one is later.
    """
    began = time.monotonic()
    while True:
        now = {camera: numbers.get("width") for camera, numbers in sorted((await stats(page)).items())}
        if list(now.values()) == expected:
            return
        assert time.monotonic() - began < 120, now
        await page.wait_for_timeout(50)


def viewing(dashboard: Dashboard) -> dict[str, Any]:
    """The SFU's session of the page."""
    (session,) = (one for one in dashboard.sfu.sessions() if one["pulled"] and one["state"] == "connected")
    return session


async def test_tiles_are_small_and_the_large_view_is_full(chromium_page: Page) -> None:
    page = chromium_page
    assert page.context.browser is not None
    publishing = await page.context.browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    async with served(3) as dashboard:
        await publish_layers(dashboard, publishing)
        cameras = [camera.id for camera in dashboard.relay.cameras]
        await page.goto(dashboard.server.url)
        await decoding(page, cameras, more=5)
        await widths(page, [SMALL[0]] * 3)
        assert {track["quality"] for track in await page.evaluate("window.relay.tracks")} == {"small"}

        await page.get_by_role("button", name="Driveway", exact=False).first.click()
        await widths(page, [SMALL[0], FULL[0], SMALL[0]])
        await until(page, "document.getElementById('large-video').videoWidth === 640")
        await picture(page, "quality-large")
        await page.get_by_label("Quality").select_option("small")
        await widths(page, [SMALL[0]] * 3)
        await until(page, "/small, as chosen/.test(document.getElementById('large-controls').textContent)")
        await page.reload()
        await decoding(page, cameras, more=5)
        await widths(page, [SMALL[0]] * 3)
        assert await page.get_by_label("Quality").input_value() == "small", "kept, and the large view is open again"
        await page.get_by_label("Quality").select_option("full")
        await widths(page, [SMALL[0], FULL[0], SMALL[0]])
        await page.get_by_role("button", name="Close").click()
        await page.wait_for_timeout(1500)
        await widths(page, [SMALL[0], FULL[0], SMALL[0]])
        await until(page, "document.querySelectorAll('.tile .quality')[1].textContent === 'full, as chosen'")
        await picture(page, "quality-tiles")
    await publishing.close()


@pytest.mark.parametrize("estimate", ["", pytest.param("transport-cc", marks=LONG)], ids=["the page", "the SFU"])
async def test_a_narrow_line_gets_the_small_picture_and_says_so(chromium_page: Page, estimate: Any) -> None:
    """By the page's own statistics; and with an SFU that estimates the line as well, together with it."""
    page = chromium_page
    assert page.context.browser is not None
    publishing = await page.context.browser.new_page()
    async with served(1, variant=SfuVariant(transport_cc=True, viewer_estimate=estimate)) as dashboard:
        await publish_layers(dashboard, publishing)
        (camera,) = (camera.id for camera in dashboard.relay.cameras)
        await page.goto(dashboard.server.url)
        await decoding(page, [camera], more=5)
        await widths(page, [FULL[0]])
        dashboard.sfu.narrow(viewing(dashboard)["session"], 350_000)
        await widths(page, [SMALL[0]])
        await until(page, "document.querySelector('.tile .quality').textContent === 'small: line too narrow'")
        await picture(page, "quality-narrow")
        dashboard.sfu.narrow(viewing(dashboard)["session"], None)
        await widths(page, [FULL[0]])
        await until(page, "document.querySelector('.tile .quality').textContent === ''")
    await publishing.close()
