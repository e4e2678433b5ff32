"""Makes docs/images from the demo's six cameras, and records what each of them shows.

`python -m tests.browser.images` remakes them; tests/browser/test_demo.py compares the recorded words with those of the
page as it is now, so that an image that has become untrue is found. Pixels are compared nowhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from playwright.async_api import Page

from tests.fixtures.chromium import chromium
from tests.fixtures.dashboard import until
from tests.fixtures.running_relay import running_relay

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
SHOWN: Final = IMAGES / "shown.json"
"""What each image shows, by its file's name."""
VIEWPORTS: Final = {"dashboard.png": (1280, 900), "phone.png": (390, 844)}
CAMERAS: Final = 6
OPTIONS: Final = ("--webrtc", "2")
PLAYING: Final = f"document.querySelectorAll('.tile[data-playing=\"yes\"]').length === {CAMERAS}"

# Words and states, in the order of the page; no figure, as those differ every time.
_WORDS: Final = """() => [...document.querySelectorAll("h1, h2, dt, button, summary, .pill, .link, .banner p")]
  .filter((element) => element.checkVisibility() && !element.querySelector("button"))
  .map((element) => (element.innerText || element.getAttribute("aria-label") || "").replace(/\\d+/g, "").trim())
  .filter(Boolean)"""


async def scenes(page: Page) -> AsyncIterator[tuple[str, list[str]]]:
    """Bring the dashboard, on which all cameras play, into the form of each image: its name, and the words in it."""
    await page.emulate_media(color_scheme="light")
    await page.mouse.move(0, 0)
    for name, (width, height) in VIEWPORTS.items():
        await page.set_viewport_size({"width": width, "height": height})
        await page.evaluate("scrollTo(0, 0)")
        yield name, await page.evaluate(_WORDS)


async def make() -> None:
    """Write the images and what they show."""
    shown: dict[str, list[str]] = {}
    async with running_relay(CAMERAS, size="640x360", options=OPTIONS) as relay, chromium() as browser:
        await relay.until_live(within=60.0)
        page = await browser.new_page()
        await page.set_viewport_size({"width": 1280, "height": 900})
        await page.goto(relay.supervisor.url)
        await until(page, PLAYING, within=60.0)
        await asyncio.sleep(5.0)  # the rates are averages of some seconds
        async for name, words in scenes(page):
            await until(page, "document.querySelectorAll('.tile[data-playing=\"yes\"]').length > 1")
            await page.screenshot(path=IMAGES / name)
            shown[name] = words
    SHOWN.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(make())
