"""Smaller pictures on the page, from the camera to the browser's decoder: what they save, how soon they are exchanged,
and what a viewer on a narrow line sees.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from typing import Any, Final

import pytest
from playwright.async_api import Page

from tests.fixtures.running_relay import RunningRelay, running_relay

pytestmark = [pytest.mark.serial, pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(400)]

LONG: Final = pytest.mark.skipif("RELAY_LONG_LINES" not in os.environ, reason="takes minutes: make lines")
GOP: Final = 2.0
"""Seconds between keyframes of the simulated cameras."""
RECEIVED: Final = """
async () => {
  let total = 0;
  for (const pc of window.relay?.pcs ?? []) {
    const transports = [...(await pc.getStats()).values()].filter((entry) => entry.type === "transport");
    total += transports[0]?.bytesReceived ?? 0;
  }
  return total;
}
"""
SHOWN: Final = """
() => {
  const video = document.querySelector(".tile video");
  Object.assign(window, {pictures: [], began: performance.now()});
  const look = () => {
    window.pictures.push([(performance.now() - window.began) / 1000, video.videoWidth]);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}
"""
ENLARGED: Final = """
() => {
  window.enlarged = 0;
  const large = document.getElementById("large-video");
  addEventListener("click", () => {
    const clicked = performance.now();
    const look = () => {
      if (large.videoWidth === 640) window.enlarged = (performance.now() - clicked) / 1000;
      else large.requestVideoFrameCallback(look);
    };
    large.requestVideoFrameCallback(look);
  }, {capture: true, once: true});
}
"""
"""Seconds from the person's click to the full picture on the screen."""


async def stats(page: Page) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = await page.evaluate("window.relay ? window.relay.stats() : {}")
    return found


async def until_widths(page: Page, small: int, full: int, within: float = 60.0) -> float:
    """Wait until so many cameras are small and so many full (640 wide); how many seconds it took."""
    began = time.monotonic()
    while True:
        found = [numbers.get("width", 0) for numbers in (await stats(page)).values()]
        if (sum(0 < width <= 480 for width in found), found.count(640)) == (small, full):
            return time.monotonic() - began
        assert time.monotonic() - began < within, found
        await asyncio.sleep(0.02)


async def egress(page: Page, seconds: float) -> float:
    """Bits a second that the SFU sends to the page, sound and all."""
    before, began = await page.evaluate(RECEIVED), time.monotonic()
    await asyncio.sleep(seconds)
    after = await page.evaluate(RECEIVED)
    return float(8 * (after - before) / (time.monotonic() - began))


async def pin_all(page: Page, relay: RunningRelay, quality: str) -> None:
    pins = {camera.id: quality for camera in relay.supervisor.status().cameras} if quality else {}
    await page.evaluate(f"localStorage.setItem('relay.quality', {json.dumps(json.dumps(pins))})")
    await page.evaluate("""localStorage.setItem("relay.line", '{"narrow": false, "at": 0}')""")
    await page.reload()


@pytest.mark.parametrize(
    ("mode", "all_small", "one_large"),
    [("keyframes", 1 / 8, 1 / 4), pytest.param("smooth", 1 / 3, 1 / 2, marks=LONG)],
)
async def test_six_tiles_cost_a_part_and_one_is_enlarged_at_once(
    chromium_page: Page, mode: str, all_small: float, one_large: float
) -> None:
    """Beside the same six tiles with full pictures, as they were before there were others."""
    page = chromium_page
    await page.set_viewport_size({"width": 1280, "height": 800})
    long = "RELAY_LONG_LINES" in os.environ
    span = 20.0 if long else 8.0
    sections = {"cameras": {"renditions": mode}}
    async with running_relay(6, size="640x360", options=("--shared-clip", "--webrtc", "2"), sections=sections) as relay:
        await relay.until_live(within=45.0)
        await page.goto(relay.supervisor.url)
        await pin_all(page, relay, "full")
        await until_widths(page, 0, 6)
        today = await egress(page, span)

        await pin_all(page, relay, "")
        await until_widths(page, 6, 0)
        small = await egress(page, span)
        took = []
        for name in ("Driveway", "Garden") * (2 if long else 1):
            await page.evaluate(ENLARGED)
            await page.get_by_role("button", name=f"{name}, live", exact=False).click()
            await until_widths(page, 5, 1)
            await page.wait_for_function("window.enlarged > 0", timeout=30_000)
            took.append(await page.evaluate("window.enlarged"))
            if len(took) < (4 if long else 2):
                await page.get_by_role("button", name="Close").click()
                await until_widths(page, 6, 0)
        large = await egress(page, span)
        print(f"\n{mode}: {today / 1e6:.2f} Mbit/s; all small {small / today:.3f}, one large {large / today:.3f} of it")
        print(f"enlarged within {seconds(took)}")
        assert small <= all_small * today
        assert large <= one_large * today
        assert max(took) <= GOP + (0.3 if long else 0.6), "a keyframe's interval and 300 ms, on a machine that is quiet"


async def alone(page: Page, relay: RunningRelay, rate: float) -> tuple[dict[str, Any], float]:
    """Open the page with one tile on a line of `rate` bit/s; the SFU's session, and seconds until the first picture."""
    await relay.sfu("faults", {"downstream_rate": rate})
    opened = time.monotonic()
    await page.goto(relay.supervisor.url, wait_until="commit")
    while not any(numbers.get("framesDecoded", 0) for numbers in (await stats(page)).values()):
        assert time.monotonic() - opened < 60
        await asyncio.sleep(0.02)
    took = time.monotonic() - opened
    await page.evaluate(SHOWN)
    sessions = (await relay.sfu("sessions"))["sessions"]
    return next(one for one in sessions if one["pulled"] and one["state"] == "connected"), took


def seconds(spans: list[float]) -> str:
    return ", ".join(f"{span:.1f}" for span in spans) + " s"


def longest(pictures: list[list[float]], until: float) -> float:
    """The longest time without a picture, from the first one to the end."""
    times = [0.0, *(at for at, _ in pictures), until]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


@LONG
@pytest.mark.parametrize("estimate", ["", "transport-cc"], ids=["the page alone", "with the SFU"])
@pytest.mark.parametrize(("mode", "freeze"), [("smooth", 2.0), ("keyframes", GOP + 1.0)])
async def test_a_viewer_on_a_narrow_line_sees_live_pictures(
    chromium_page: Page, mode: str, freeze: float, estimate: str
) -> None:
    """500 kbit/s, and a camera of 2 Mbit/s."""
    page = chromium_page
    options: dict[str, Any] = {"options": ("--bitrate", "2000000"), "sfu_variant": {"viewer_estimate": estimate}}
    sections = {"cameras": {"renditions": mode}}
    async with running_relay(1, size="640x360", sections=sections, **options) as relay:
        await relay.until_live(within=45.0)
        _, first = await alone(page, relay, 500_000)
        await asyncio.sleep(60)
        pictures, end = await page.evaluate("[window.pictures, (performance.now() - window.began) / 1000]")
        worst = longest(pictures, end)
        print(f"\n{mode}: first after {first:.2f} s, {len(pictures)} in {end:.0f} s, longest pause {worst:.2f} s")
        assert first <= (3.0 if mode == "smooth" else GOP + 1.0)
        assert worst <= freeze


@LONG
@pytest.mark.parametrize("estimate", ["", "transport-cc"], ids=["the page alone", "with the SFU"])
async def test_a_viewer_follows_a_line_that_varies(chromium_page: Page, estimate: str) -> None:
    """300 kbit/s and 5 Mbit/s, each for 20 s."""
    page = chromium_page
    options: dict[str, Any] = {"options": ("--bitrate", "2000000"), "sfu_variant": {"viewer_estimate": estimate}}
    sections = {"cameras": {"renditions": "smooth"}}
    async with running_relay(1, size="640x360", sections=sections, **options) as relay:
        await relay.until_live(within=45.0)
        session, _ = await alone(page, relay, 5e6)
        await until_widths(page, 0, 1)
        down, up = [], []
        for _ in range(3):
            for rate, took, small, full in ((300_000, down, 1, 0), (5_000_000, up, 0, 1)):
                began = time.monotonic()
                await relay.sfu(f"sessions/{session['session']}", {"downstream_rate": rate})
                took.append(await until_widths(page, small, full, within=40))
                await asyncio.sleep(max(0.0, 20 - (time.monotonic() - began)))
        print(f"\ndown after {seconds(down)}, up after {seconds(up)}")
        assert max(down) <= 5.0
        assert max(up) <= 15.0
