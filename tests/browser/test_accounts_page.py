"""The page of several accounts: who commands each, how its cameras are, and the way to its own page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from relay_common.causes import Cause
from relay_supervisor.status.model import SeatStatus
from relay_supervisor.status.verdict import verdict
from tests.fixtures.accounts_world import TOKEN, accounts_world
from tests.fixtures.dashboard import until

pytestmark = pytest.mark.browser

ROWS = "[...document.querySelectorAll('.account')].map((one) => one.innerText.replace(/\\s+/g, ' '))"


async def test_it_shows_all_accounts_and_leads_to_each(chromium_page: Page, tmp_path: Path) -> None:
    page = chromium_page
    async with accounts_world(tmp_path) as world:
        world.relays["home"].budget.hold = 8.2
        world.relays["shop"].problems.append(verdict(Cause.DISK_FULL, state="degraded", wall=0.0))
        world.relays["shop"].cameras[1].state, world.relays["shop"].cameras[1].reason = "offline", "it is <b>off</b>"
        await page.goto(world.url)
        await page.fill("#token", TOKEN)
        await page.click("button")
        await until(page, "document.getElementById('live').textContent === '3 of 4'")
        home, shop = await page.evaluate(ROWS)
        held = "3 of 10 commands in the last minute, 0 waiting, held for 9 s"
        assert home == f"home 2 of 2 live, commanded by a {held} Front door of home live Driveway of home live"
        assert "0 waiting The disk" in shop, "each has its own problems"
        assert shop.endswith("Front door of shop live Driveway of shop offline: it is <b>off</b>")
        assert await page.text_content("#seat") == "a"
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert await page.evaluate(wide)
        # What does not change stays, and with it the keyboard's place.
        await page.focus(".account li a")
        await page.wait_for_timeout(2500)
        assert await page.evaluate("document.activeElement.textContent") == "Front door of home"
        await world.stand_by(SeatStatus(replica="a", state="standing by", commands=False, holder="b"))
        await until(page, f"{ROWS}[1] === 'shop b commands it and does not answer'")
        await page.click(".account h2 a")
        await until(page, "location.pathname === '/accounts/home/'")
        await until(page, "document.getElementById('live')?.textContent === '2 of 2'")
