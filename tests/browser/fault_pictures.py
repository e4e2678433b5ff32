"""Takes pictures of the page under each fault of the matrix, at the width of a desk and of a phone, to be looked at.

`python -m tests.browser.fault_pictures DIRECTORY` inflicts what tests/integration/test_verdict_matrix.py does, and
takes each picture when every surface names the fault: of one camera its large view and its tile, of the whole relay
the page. Three minutes. Nothing is compared: words are held by tests, looks by whoever looks.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.async_api import Browser, Page

from relay_common.causes import Cause
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.google.errors import NestError
from tests.chaos.world import SteppedClock
from tests.fixtures.chromium import chromium
from tests.fixtures.dashboard import until
from tests.fixtures.no_names import google_by_name, no_names
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay
from tests.fixtures.verdict_surfaces import Surfaces, surfaces_of
from tests.integration import test_verdict_matrix as matrix

LOOKS: Final = {1280: (800, "light"), 390: (844, "dark")}
"""Widths, each with its height and colour scheme."""
PATIENCE: Final = 120.0
"""Seconds for a fault to be named: how soon it has to be is held by the tests."""
SETTLED: Final = 1.5
"""Seconds for the page to draw what the relay has told."""


class Photographer:
    """Takes the pictures; `told` stands in for that of the matrix's surfaces, which it calls."""

    def __init__(self, browser: Browser, directory: Path) -> None:
        self._browser, self._directory = browser, directory
        self._told = Surfaces.told
        self._one_at_a_time = asyncio.Lock()
        self._page: Page | None = None
        self._url = ""

    async def told(self, surfaces: Surfaces, cause: Cause, camera: str = "", **options: Any) -> str:
        """Wait until every surface names the cause, then take its pictures."""
        options["within"] = PATIENCE
        sentence, relay = await self._told(surfaces, cause, camera, **options), surfaces.relay
        async with self._one_at_a_time:
            page = await self._opened(relay)
            if cause is Cause.VIEWERS_REFUSED:
                await page.reload()  # the views of this page are open: who comes now is refused
            name = f"{cause.value}-{camera.lower().replace(' ', '-')}" if camera else cause.value
            await (self._camera(page, relay, camera, name) if camera else self._whole(page, name))
            print(f"{name}: {sentence}", flush=True)
        return sentence

    async def _opened(self, relay: RunningRelay) -> Page:
        """The dashboard of this relay."""
        if self._page is None or self._url != relay.supervisor.url:
            self._page, self._url = await self._browser.new_page(), relay.supervisor.url
            await self._page.goto(self._url)
        await until(self._page, "document.querySelectorAll('.tile').length > 0", within=60.0)
        return self._page

    async def _camera(self, page: Page, relay: RunningRelay, camera: str, name: str) -> None:
        tile = page.locator(f'[data-camera="{relay.camera(camera).id}"]')
        await tile.locator(".open").click()
        await page.wait_for_selector("#large[open]")
        await self._photograph(page, f"{name}-large")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#large", state="hidden")
        for width in LOOKS:
            await self._look(page, width)
            await tile.screenshot(path=self._directory / f"{name}-tile-{width}.png")

    async def _whole(self, page: Page, name: str) -> None:
        await page.evaluate("scrollTo(0, 0)")
        await asyncio.sleep(3.0)
        await self._photograph(page, name)

    async def _photograph(self, page: Page, name: str) -> None:
        for width in LOOKS:
            await self._look(page, width)
            await page.screenshot(path=self._directory / f"{name}-{width}.png")

    async def _look(self, page: Page, width: int) -> None:
        height, scheme = LOOKS[width]
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await asyncio.sleep(SETTLED)


async def of_the_machine() -> None:
    """A clock that is wrong, and names that are not resolved: inflicted on this process, for the page alone."""
    async with demo_world(3, "320x180", (*SMALL, "--unlimited")) as world, httpx.AsyncClient(timeout=30) as http:
        clock = SteppedClock()
        supervisor = Supervisor(world.config(**UNLIMITED, **google_by_name(world)), clock=clock)
        relay = RunningRelay(supervisor, world, http)
        try:
            await supervisor.start()
            await relay.until_live(within=90.0)
            async with surfaces_of(relay) as surfaces:
                clock.offset = 3600.0
                await supervisor.verbs.discover()
                sentence = await surfaces.told(Cause.CLOCK_WRONG)
                clock.offset = 0.0
                await supervisor.verbs.discover()
                await surfaces.over(sentence)
                with no_names():
                    await relay.nest("oauth", {"expire_tokens": True})
                    with pytest.raises(NestError, match="name"):
                        await supervisor.verbs.discover()
                    await surfaces.told(Cause.NAMES_UNRESOLVED, ready=503)
        finally:
            await supervisor.stop()


async def make(directory: Path) -> None:
    """Write all pictures into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    async with chromium() as browser:
        photographer = Photographer(browser, directory)
        with pytest.MonkeyPatch.context() as patch:

            async def told(surfaces: Surfaces, cause: Cause, camera: str = "", **options: Any) -> str:
                return await photographer.told(surfaces, cause, camera, **options)

            patch.setattr(Surfaces, "told", told)
            await matrix.test_every_surface_names_the_cause()
            await matrix.test_a_short_budget_says_so()
            await of_the_machine()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1] if len(sys.argv) > 1 else "build/faults")))
