"""Cameras out of sight are not pulled: Cloudflare bills what it sends."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.fixtures.dashboard import decoding, first_that, picture, served, until

pytestmark = [pytest.mark.browser, pytest.mark.media]

PULLED = "[...new Set(window.relay.tracks.map((track) => track.camera))].sort().join()"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_tiles_out_of_sight_stop_and_come_back(chromium_page: Page) -> None:
    page = chromium_page
    await page.set_viewport_size({"width": 390, "height": 480})
    async with served(6) as dashboard:
        for number in (0, 5):
            await dashboard.publish(number)
        for camera in dashboard.relay.cameras[1:5]:
            camera.viewable = False
        first, last = dashboard.relay.cameras[0].id, dashboard.relay.cameras[5].id
        await page.goto(dashboard.server.url)
        await decoding(page, [first])
        assert await page.evaluate(PULLED) == first, "the last tile is far below"
        # The header says what that costs.
        await until(page, r"/^\d+ kb\/s · \d+ GB a month · free$/.test(document.getElementById('egress').textContent)")
        await picture(page, "phone-egress")

        await page.locator(f'[data-camera="{last}"]').scroll_into_view_if_needed()
        await decoding(page, [last])
        await until(page, f"{PULLED} === '{last}'")
        await first_that(lambda: not any(v.has(first) for v in dashboard.relay.viewers._views.values()))
        await page.evaluate("scrollTo(0, 0)")
        await decoding(page, [first])

        # A hidden page pulls nothing except a camera whose sound is on.
        await page.evaluate(HIDE, True)
        await until(page, "window.relay.pcs.length === 0")
        await first_that(lambda: len(dashboard.relay.viewers) == 0)
        await page.evaluate(HIDE, False)
        await decoding(page, [first])
        await page.get_by_role("button", name="Sound of Front door").click()
        await page.evaluate(HIDE, True)
        await page.wait_for_timeout(6500)
        assert await page.evaluate(PULLED) == first
