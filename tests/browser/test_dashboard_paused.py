"""A browser pauses an element with sound when its page is hidden: once visible, it plays, or the page says why not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import pytest
from playwright.async_api import Locator, Page

from tests.fixtures.chromium import chromium
from tests.fixtures.dashboard import decoding, picture, served, until

pytestmark = [pytest.mark.browser, pytest.mark.media]

HIDE: Final = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
REFUSE_SOUND: Final = """() => {
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    return this.muted ? play.call(this) : Promise.reject(new DOMException("no gesture", "NotAllowedError"));
  };
  addEventListener("pointerdown", () => { HTMLMediaElement.prototype.play = play; }, true);
}"""
"""Imitate Safari after the page was hidden; Chromium remembers that the user clicked before."""

SEEN_AGAIN: Final = """(event) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
  document.dispatchEvent(new Event(event, { bubbles: true }));
  return !document.querySelector(".tile video").paused;
}"""
NEVER_PLAYS: Final = """() => {
  HTMLMediaElement.prototype.play = () => Promise.reject(new DOMException("", "AbortError"));
}"""

TILE: Final = ".tile video"
LARGE: Final = "#large-video"


def element(selector: str, expression: str) -> str:
    return f"((video) => {expression})(document.querySelector('{selector}'))"


async def shown(page: Page, selector: str) -> None:
    """Wait until the element plays and presents a new picture."""
    await until(page, element(selector, "!video.paused"))
    await page.evaluate(
        element(selector, "{ window.presented = 0; video.requestVideoFrameCallback(() => { window.presented = 1; }); }")
    )
    await until(page, "window.presented === 1")


async def opaque(button: Locator) -> None:
    """Wait until it has been faded in."""
    async with asyncio.timeout(30):
        while await button.evaluate("(button) => getComputedStyle(button).opacity") != "1":
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def heard(page: Page, path: str, selector: str) -> AsyncIterator[Page]:
    """A camera on the page at `path`, with its sound on."""
    async with served(1) as dashboard:
        await dashboard.publish(0)
        await page.goto(dashboard.server.url + path)
        await decoding(page, ["cam00000"])
        if selector == TILE:
            await page.get_by_role("button", name="Sound of Front door").click()
        elif selector == LARGE:
            await page.get_by_role("button", name="Front door, live").click()
        else:
            await page.get_by_role("button", name="Sound off").click()
        await shown(page, selector)
        assert not await page.evaluate(element(selector, "video.muted"))
        yield page


PLAYERS: Final = pytest.mark.parametrize(
    ("path", "selector"), [("/", TILE), ("/", LARGE), ("/watch/cam00000", "#video")], ids=["tile", "large", "watch"]
)


async def paused_by_the_browser(page: Page, selector: str) -> None:
    await page.evaluate(HIDE, True)
    await page.evaluate(element(selector, "video.pause()"))
    await page.wait_for_timeout(1200)
    assert await page.evaluate(element(selector, "video.paused")), "nobody sees it"


@PLAYERS
async def test_what_the_browser_paused_plays_again_with_its_sound(
    chromium_page: Page, path: str, selector: str
) -> None:
    async with heard(chromium_page, path, selector) as page:
        await paused_by_the_browser(page, selector)
        await page.evaluate(HIDE, False)
        await shown(page, selector)
        assert not await page.evaluate(element(selector, "video.muted"))
        if selector != TILE:
            return
        for event in ("visibilitychange", "pageshow", "focus", "resume"):
            await paused_by_the_browser(page, selector)
            # At once, not at the next periodic check.
            playing = await page.evaluate(SEEN_AGAIN, event)
            assert playing, event
            await shown(page, selector)


@PLAYERS
async def test_sound_that_is_refused_leaves_the_picture_and_a_button(
    chromium_page: Page, path: str, selector: str
) -> None:
    async with heard(chromium_page, path, selector) as page:
        await page.evaluate(REFUSE_SOUND)
        await page.evaluate(HIDE, True)
        await page.evaluate(element(selector, "video.pause()"))
        await page.evaluate(HIDE, False)
        await shown(page, selector)
        assert await page.evaluate(element(selector, "video.muted"))
        button = page.get_by_text("Tap for sound").locator("visible=true")
        assert await button.count() == 1
        await opaque(button)
        await picture(page, f"tap-for-sound-{'tile' if selector == TILE else 'other'}")
        await button.click()
        await until(page, element(selector, "!video.muted"))
        await shown(page, selector)
        assert await button.count() == 0


@PLAYERS
async def test_a_picture_that_the_browser_does_not_show_is_not_called_playing(
    chromium_page: Page, path: str, selector: str
) -> None:
    """Frames are received and decoded throughout; what matters is what the element shows."""
    async with heard(chromium_page, path, selector) as page:
        why = f"document.querySelector('{'#large-why' if selector == LARGE else '.why'}')"
        await until(page, f"!{why}.checkVisibility()")
        await page.evaluate(NEVER_PLAYS)
        await page.evaluate(element(selector, "video.pause()"))
        await until(page, f"{why}.checkVisibility() && {why}.textContent.includes('Paused by the browser')")
        await decoding(page, ["cam00000"])
        await page.reload()
        await decoding(page, ["cam00000"])


async def test_where_frames_do_not_call_back_the_elements_time_tells(chromium_page: Page) -> None:
    await chromium_page.add_init_script("delete HTMLVideoElement.prototype.requestVideoFrameCallback")
    async with served(1) as dashboard:
        await dashboard.publish(0)
        await chromium_page.goto(dashboard.server.url)
        playing = "document.querySelector('.tile')?.dataset.playing"
        await until(chromium_page, f"{playing} === 'yes'")
        # What stands still though it is not paused: an element that is given another stream, without frames.
        await chromium_page.evaluate(element(TILE, "{ video.srcObject = new MediaStream(); }"))
        await until(chromium_page, f"{playing} === 'no' && {element(TILE, '!video.paused')}")
        await decoding(chromium_page, ["cam00000"])


@pytest.fixture
async def strict_page() -> AsyncIterator[Page]:
    """A page in a Chromium that plays sound only after a click, which is its default."""
    async with chromium(flags=["--autoplay-policy=document-user-activation-required"]) as browser:
        yield await browser.new_page()


async def test_a_link_to_a_large_view_plays_without_sound_until_a_tap(strict_page: Page) -> None:
    page = strict_page
    async with served(1) as dashboard:
        await dashboard.publish(0)
        await page.goto(f"{dashboard.server.url}/#cam00000")
        await page.wait_for_selector("#large[open]")
        await shown(page, LARGE)
        assert await page.evaluate(element(LARGE, "video.muted"))
        await page.get_by_role("button", name="Tap for sound").click()
        await shown(page, LARGE)
        assert not await page.evaluate(element(LARGE, "video.muted"))
        assert await page.inner_text("#large-sound") == "Sound on"
