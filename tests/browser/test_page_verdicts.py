"""Faults inflicted on a running relay, and what its page says of them: the relay's own verdict.

One relay and one page for all; each fault is taken away again, but for the last.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Page

from relay_common.causes import Cause
from relay_supervisor.status.verdict import StatusVerdict
from tests.fixtures.chromium import chromium
from tests.fixtures.dashboard import picture, until
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay
from tests.fixtures.sqlite_state import sqlite_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.media,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

LEASE: Final = 24
"""Seconds that a stream lives: commands are due at any time, so that what refuses them is met soon."""
WITHIN: Final = 60.0
"""Seconds for a fault to be met and told, on a busy machine; how soon it has to be told is held elsewhere."""
DOOR: Final = "Front Door"
WALL: Final = "document.querySelectorAll('.tile[data-playing=\"yes\"]').length === 3"
TEXT: Final = '(selector) => document.querySelector(selector)?.innerText ?? ""'


class Watched(NamedTuple):
    """The relay and its page."""

    relay: RunningRelay
    page: Page

    async def says(self, selector: str, found: Callable[[], StatusVerdict | None], code: Cause) -> str:
        """Wait until the relay's verdict is `code` and the page has its words; returns the page's text."""
        deadline = time.monotonic() + WITHIN
        while True:
            verdict = found()
            text: str = await self.page.evaluate(TEXT, selector)
            if verdict is not None and verdict.code == code.value and verdict.cause in text:
                return text
            assert time.monotonic() < deadline, (code, verdict, text)
            await self.page.wait_for_timeout(100)

    def camera(self) -> StatusVerdict:
        return self.relay.camera(DOOR).verdict

    def problem(self) -> StatusVerdict | None:
        problems = self.relay.supervisor.status().problems
        return problems[0] if problems else None

    async def photographed(self, name: str) -> None:
        """Pictures at both widths, where they are wanted."""
        for width, height in ((390, 844), (1280, 800)):
            await self.page.set_viewport_size({"width": width, "height": height})
            await picture(self.page, f"{name}-{width}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched() -> AsyncIterator[Watched]:
    options = (*SMALL, "--unlimited", "--lease", str(LEASE))
    async with running_relay(3, options=options, sections=UNLIMITED) as relay, chromium() as browser:
        await relay.until_live(within=60.0)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(relay.supervisor.url)
        await until(page, WALL, within=60.0)
        found = Watched(relay, page)
        await found.photographed("live")
        yield found


def words(text: str) -> str:
    """The text in one line, as texts wrap, without the marks of what is to be typed."""
    return " ".join(text.replace("`", "").split())


async def test_a_stalled_camera(watched: Watched) -> None:
    relay, page = watched.relay, watched.page
    tile = f'[data-camera="{relay.camera(DOOR).id}"]'
    await relay.nest(f"cameras/{DOOR}/fault", {"kind": "stall"})
    await watched.says(f"{tile} .why", watched.camera, Cause.CAMERA_STALLED)
    await until(
        page, f"/video \\(for\\s0:\\d\\d\\)/.test(document.querySelector('{tile} .why')?.innerText)", within=WITHIN
    )
    # What a person can do is on the tile, too; where the banner says it, once is enough (below).
    assert watched.camera().advice in await page.inner_text(f"{tile} .why small")
    await watched.photographed("stalled")
    await page.locator(f"{tile} .open").click()
    await watched.says("#large-why", watched.camera, Cause.CAMERA_STALLED)
    assert watched.camera().advice in await page.inner_text("#large-advice")
    await watched.photographed("stalled-large")
    await page.keyboard.press("Escape")
    await relay.nest(f"cameras/{DOOR}/clear", {})
    await until(page, WALL, within=WITHIN)


async def test_viewers_that_cloudflare_refuses(watched: Watched) -> None:
    relay, page = watched.relay, watched.page
    tile = f'[data-camera="{relay.camera(DOOR).id}"]'
    await relay.sfu("faults", {"api": [{"operation": "sessions/new", "times": -1, "correlation": "view"}]})
    await page.reload()
    text = words(await watched.says("#banner", watched.problem, Cause.VIEWERS_REFUSED))
    assert text.count("Cloudflare refuses viewers: 500") == 1, "once for relay and page"
    await until(page, f"document.querySelector('{tile} .why')?.innerText.includes('Cloudflare refuses viewers: 500')")
    await watched.photographed("refused")
    await relay.sfu("faults", {"clear": True})
    await until(page, f"{WALL} && document.getElementById('banner').hidden", within=WITHIN)


async def test_a_full_disk(watched: Watched) -> None:
    relay, page = watched.relay, watched.page
    database = sqlite_of(relay.supervisor._store)
    await database.flush(5.0)
    connection = database._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    text = words(await watched.says("#banner", watched.problem, Cause.DISK_FULL))
    problem = watched.problem()
    assert problem is not None
    assert words(problem.advice) in text
    await watched.photographed("disk")
    connection.execute("PRAGMA max_page_count = 1000000")
    await until(page, "document.getElementById('banner').hidden", within=WITHIN)


async def test_a_revoked_grant(watched: Watched) -> None:
    relay, page = watched.relay, watched.page
    await relay.nest("oauth", {"revoked": True, "expire_tokens": True})
    text = words(await watched.says("#banner", watched.problem, Cause.TOKEN_REVOKED))
    problem = watched.problem()
    assert problem is not None
    assert words(problem.advice) in text
    # Once the streams have run out, each tile says why, too.
    tile = f'[data-camera="{relay.camera(DOOR).id}"] .why'
    await watched.says(tile, watched.camera, Cause.TOKEN_REVOKED)
    await until(page, f"document.querySelector('{tile}')?.checkVisibility()", within=WITHIN)
    assert await page.text_content(f"{tile} small") == ""
    await watched.photographed("revoked")
