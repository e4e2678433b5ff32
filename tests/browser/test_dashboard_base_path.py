"""The pages under a path of another site: a real nginx in front, which strips the path or passes it on."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings
from relay_supervisor.http.links import ViewerSettings
from tests.fixtures.dashboard import Dashboard, decoding, first_that, served, until
from tests.fixtures.nginx import PASSED_ON, nginx, nginx_command

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(300)]

TOKEN = "a-token-that-is-long-enough"
SETTINGS = HttpSettings(
    token=Secret(TOKEN),
    viewers=ViewerSettings(access="links", link_secret=Secret("a-secret-that-is-long-enough")),
    trusted_proxies=("127.0.0.1",),
    base_path="/kept",
)
SITE = """
location / {{ return 418; }}
location /kept/ {{ proxy_pass {relay}; {passed_on} }}
location /home/cut/ {{ proxy_pass {relay}/; proxy_set_header X-Forwarded-Prefix /home/cut; {passed_on} }}
"""
"""Whatever the pages ask for outside of their path is answered by nobody."""


async def left(page: Page, dashboard: Dashboard) -> None:
    """Leave the page, which ends its view by itself."""
    await page.goto("about:blank")
    await first_that(lambda: len(dashboard.relay.viewers) == 0, within=30.0)


async def test_signs_in_plays_and_shares_under_a_path(chromium_page: Page, tmp_path: Path) -> None:
    nginx_command()
    page = chromium_page
    outside: list[str] = []
    page.on("response", lambda reply: outside.append(reply.url) if reply.status in (404, 418) else None)
    async with served(1, SETTINGS) as dashboard:
        await dashboard.publish(0)
        (door,) = (camera.id for camera in dashboard.relay.cameras)
        async with nginx(SITE.format(relay=dashboard.server.url, passed_on=PASSED_ON), tmp_path) as site:
            for path in ("/kept", "/home/cut"):
                await page.goto(f"{site}{path}/")
                await page.get_by_label("Token").fill(TOKEN)
                await page.get_by_role("button", name="Sign in").click()
                await page.wait_for_selector(".tile")
                await decoding(page, [door])
                assert page.url == f"{site}{path}/"
                assert [cookie["path"] for cookie in await page.context.cookies(page.url)] == [f"{path}/"]
                await until(page, "document.getElementById('link').textContent === 'Connected'")
                await page.get_by_role("button", name="Front door, live").click()
                await page.get_by_role("button", name="Take a snapshot").click()
                await until(page, "document.querySelector('#large-snapshot img')?.naturalWidth === 64")
                await page.get_by_role("button", name="Share a link").click()
                await page.wait_for_selector("#share[open]")
                await page.get_by_role("button", name="Make a link").click()
                await until(page, "document.getElementById('share-link').value !== ''")
                link = await page.input_value("#share-link")
                assert link.startswith(f"{site}{path}/watch/{door}?")
                await left(page, dashboard)
                await page.context.clear_cookies()
                await page.goto(link)
                await decoding(page, [door])
                await left(page, dashboard)
    assert outside == []
