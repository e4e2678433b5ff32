"""The dashboard in a real Chromium, with pictures from the simulated SFU."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from relay_supervisor.viewing import view
from tests.fixtures.dashboard import decoding, first_that, follows, picture, served, stats, until, watch_console
from tests.fixtures.fake_relay import live_camera

pytestmark = [pytest.mark.browser, pytest.mark.media]

WATCH_EXCHANGE = """() => {
  const [old] = window.relay.pcs;
  const close = old.close.bind(old);
  window.playedOn = null;
  old.close = () => {
    window.playedOn = old.connectionState === "connected" && window.relay.pcs[0]?.connectionState === "connected";
    close();
  };
}"""
"""Whether both connections were there when the page closed the old one."""


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
        await page.get_by_role("button", name="Restart", exact=True).click()
        await until(page, "document.getElementById('large-said').textContent !== ''")
        assert dashboard.relay.calls == [("restart", ids[1])]
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#large", state="hidden")
        # A camera added later joins the same connection.
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
        # The other camera was on the same connection and continued.
        assert after[ids[1]]["framesDecoded"] > before[ids[1]]["framesDecoded"]
        outcomes = dashboard.relay.viewers.outcomes
        assert (outcomes["repointed"], outcomes["opened"], outcomes["reopened"]) == (1, 1, 0)
        # A restarted supervisor knows no views, while the SFU continues: the page opens a new one by itself.
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
        await first_that(lambda: outcomes["answered"] == 2)
        assert (outcomes["repointed"], outcomes["opened"], outcomes["reopened"]) == (0, 1, 0)


async def test_a_session_that_took_enough_offers_is_replaced_while_it_plays(
    chromium_page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = chromium_page
    monkeypatch.setattr(view, "_MOST_OFFERS", 1)
    async with served(2) as dashboard:
        await dashboard.publish(0)
        ids = [camera.id for camera in dashboard.relay.cameras]
        await page.goto(dashboard.server.url)
        await decoding(page, ids[:1])
        await page.evaluate(WATCH_EXCHANGE)
        await dashboard.publish(1)
        await decoding(page, ids)
        outcomes = dashboard.relay.viewers.outcomes
        await first_that(lambda: outcomes["closed"] == 1)
        assert (outcomes["opened"], outcomes["reopened"], len(dashboard.relay.viewers)) == (2, 1, 1)
        assert await page.evaluate("window.relay.pcs.length") == 1
        assert await page.evaluate("window.playedOn"), "the old one is closed when the new one is connected"


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
