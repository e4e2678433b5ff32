"""Where several supervisors stand by for each other, the page says which one commands, and what keeps it from that."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, Route

from relay_supervisor.status.model import SeatStatus
from tests.fixtures.dashboard import served, until

pytestmark = pytest.mark.browser


async def test_it_says_which_supervisor_commands(chromium_page: Page) -> None:
    page = chromium_page
    async with served(1) as dashboard:
        await page.goto(dashboard.server.url)
        await until(page, "document.getElementById('live').textContent !== '–'")
        assert await page.is_hidden("#several"), "there is but one"
        dashboard.relay.seat = SeatStatus(replica="relay-a", state="in command", holder="relay-a", others=["relay-b"])
        await page.reload()
        await until(page, "document.getElementById('seat').textContent === 'relay-a, then relay-b'")
        assert await page.is_visible("#several")
        assert await page.is_hidden("#banner")

        async def through_another(route: Route) -> None:
            await route.fulfill(json={"replica": "relay-b"})

        await page.route("**/api/seat", through_another)
        await page.reload()
        await until(page, "document.getElementById('seat').textContent === 'relay-a, then relay-b, through relay-b'")
        await page.unroute("**/api/seat")
        away = {"state": "in command under promises", "problem": "the API server does not answer"}
        dashboard.relay.seat = SeatStatus(replica="relay-a", holder="relay-a", **away)
        await page.reload()
        await until(page, "document.getElementById('seat').textContent === 'relay-a, alone'")
        await until(page, "document.getElementById('banner').textContent.includes('the API server does not answer')")
