"""Smaller pictures on the page, from the camera to the browser's decoder: what they save, how soon they are exchanged,
and what a viewer on a narrow line sees.
"""

from __future__ import annotations

import asyncio
import contextlib
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
LASTS: Final = 2.0
"""Seconds for which a quality lasts."""
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
SEEN: Final = """
() => {
  const video = document.querySelector(".tile video");
  const context = new OffscreenCanvas(80, 45).getContext("2d", {willReadFrequently: true});
  const began = performance.now();
  let last = null;
  window.seen = [];
  setInterval(() => {
    context.drawImage(video, 0, 0, 80, 45);
    const {data} = context.getImageData(0, 0, 80, 45);
    const other = last === null || data.some((value, index) => Math.abs(value - last[index]) > 8);
    if (!other) return;
    last = data;
    window.seen.push([(performance.now() - began) / 1000, 0]);
  }, 50);
}
"""
"""When something else is to be seen: pictures of keyframes are repeated, which counts for nothing."""
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


async def until_stays(page: Page, small: int, full: int, within: float = 60.0) -> float:
    """Like `until_widths`, for what lasts: seconds until it began. A picture that was on its way counts for nothing."""
    began = time.monotonic()
    while True:
        await until_widths(page, small, full, within - (time.monotonic() - began))
        since = time.monotonic()
        while time.monotonic() < since + LASTS:
            await asyncio.sleep(0.1)
            found = [numbers.get("width", 0) for numbers in (await stats(page)).values()]
            if found.count(640) != full:
                break
        else:
            return since - began


async def until_enlarged(page: Page, within: float = 30.0) -> float:
    """Wait for what `ENLARGED` measures. (Playwright's own waiting evaluates in the page, which its policy forbids.)"""
    deadline = time.monotonic() + within
    while not (took := await page.evaluate("window.enlarged")):
        assert time.monotonic() < deadline, "the large view does not show the full picture"
        await asyncio.sleep(0.02)
    return float(took)


def judge(subject: str, *figures: tuple[str, float, float]) -> None:
    """Print figures (what, measured, at most) beside their bars, with the machine's load; fail where one is over it."""
    print(f"\n{subject} (load {os.getloadavg()[0]:.1f})")
    for what, measured, most in figures:
        print(f"  {'ok  ' if measured <= most else 'OVER'} {what}: {measured:.2f}, at most {most:.2f}")
    assert [what for what, measured, most in figures if measured > most] == []


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
    span = 8.0
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
            took.append(await until_enlarged(page))
            if len(took) < (4 if long else 2):
                await page.get_by_role("button", name="Close").click()
                await until_widths(page, 6, 0)
        large = await egress(page, span)
        judge(
            f"six tiles, {mode}, beside {today / 1e6:.2f} Mbit/s of full ones",
            ("all small, share", small / today, all_small),
            ("one enlarged, share", large / today, one_large),
            # A keyframe's interval and 300 ms, on a machine that is quiet.
            ("seconds until one is enlarged", max(took), GOP + (0.3 if long else 0.6)),
        )


async def alone(page: Page, relay: RunningRelay, rate: float) -> float:
    """Open the page with one tile on a line of `rate` bit/s; seconds until the first picture."""
    await relay.until_live(within=45.0)
    await relay.sfu("faults", {"downstream_rate": rate})
    opened = time.monotonic()
    await page.goto(relay.supervisor.url, wait_until="commit")
    while not any(numbers.get("framesDecoded", 0) for numbers in (await stats(page)).values()):
        assert time.monotonic() - opened < 60
        await asyncio.sleep(0.02)
    took = time.monotonic() - opened
    await page.evaluate(SHOWN)
    await page.evaluate(SEEN)
    return took


def seconds(spans: list[float]) -> str:
    return ", ".join(f"{span:.1f}" for span in spans) + " s"


def longest(pictures: list[list[float]], until: float) -> float:
    """The longest time without a picture, from the first one to the end."""
    times = [0.0, *(at for at, _ in pictures), until]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def one_camera(mode: str, estimate: str) -> contextlib.AbstractAsyncContextManager[RunningRelay]:
    """A relay of a camera of 2 Mbit/s, and an SFU that estimates viewers' lines, or leaves that to the page."""
    sections, variant = {"cameras": {"renditions": mode}}, {"viewer_estimate": estimate}
    return running_relay(1, size="640x360", sections=sections, options=("--bitrate", "2000000"), sfu_variant=variant)


ESTIMATES: Final = pytest.mark.parametrize("estimate", ["", "transport-cc"], ids=["the page alone", "with the SFU"])


@LONG
@ESTIMATES
async def test_a_viewer_on_a_narrow_line_sees_live_pictures(chromium_page: Page, estimate: str) -> None:
    """500 kbit/s; one page of each mode, watched for the same minute, as neither has much to do."""
    assert chromium_page.context.browser is not None
    other = await chromium_page.context.browser.new_page()
    async with one_camera("smooth", estimate) as smooth, one_camera("keyframes", estimate) as keyframes:
        first = [await alone(chromium_page, smooth, 500_000), await alone(other, keyframes, 500_000)]
        await asyncio.sleep(60)
        figures = []
        for page, mode, took, until_first, pause in (
            (chromium_page, "smooth", first[0], 3.0, 2.0),
            (other, "keyframes", first[1], GOP + 1.0, GOP + 1.0),
        ):
            which = "pictures" if mode == "smooth" else "seen"
            pictures, end = await page.evaluate(f"[window.{which}, (performance.now() - window.began) / 1000]")
            figures.append((f"{mode}: seconds until the first picture", took, until_first))
            figures.append((f"{mode}: longest pause, of {len(pictures)} pictures", longest(pictures, end), pause))
        judge(f"500 kbit/s, {'with the SFU' if estimate else 'the page alone'}", *figures)
    await other.close()


@LONG
@ESTIMATES
async def test_a_viewer_follows_a_line_that_varies(chromium_page: Page, estimate: str) -> None:
    """300 kbit/s and 5 Mbit/s, each for 20 s."""
    page = chromium_page
    async with one_camera("smooth", estimate) as relay:
        await alone(page, relay, 5e6)
        await until_widths(page, 0, 1)
        down, up = [], []
        for _ in range(2):
            for rate, took, small, full in ((300_000, down, 1, 0), (5_000_000, up, 0, 1)):
                began = time.monotonic()
                await relay.sfu("faults", {"downstream_rate": rate})
                took.append(await until_stays(page, small, full, within=40))
                await asyncio.sleep(max(0.0, 20 - (time.monotonic() - began)))
        print(f"\ndown after {seconds(down)}, up after {seconds(up)}")
        judge(
            f"300 kbit/s and 5 Mbit/s, {'with the SFU' if estimate else 'the page alone'}",
            ("seconds down", max(down), 5.0),
            ("seconds up", max(up), 15.0),
        )


@LONG
async def test_an_sfu_that_switches_at_once_breaks_no_picture(chromium_page: Page) -> None:
    """Of the other layer nothing is decoded before its keyframe: what is seen until then is the last whole picture."""
    page = chromium_page
    sections, variant = {"cameras": {"renditions": "smooth"}}, {"switch_at_keyframes": False}
    async with running_relay(1, size="640x360", sections=sections, sfu_variant=variant) as relay:
        await relay.until_live(within=45.0)
        await page.goto(relay.supervisor.url)
        await pin_all(page, relay, "small")
        await page.get_by_role("button", name="Front Door, live", exact=False).click()
        await until_widths(page, 1, 0)
        mixed = []
        for quality, width in (("full", 640), ("small", 480)) * 3:
            (before,) = (await stats(page)).values()
            await page.get_by_label("Quality").select_option(quality)
            mixed.append(await mixed_up(page, relay, before["keyFramesDecoded"], width))
        # Some are on their way when the SFU counts.
        judge("an SFU that switches at once", ("pictures decoded before the layer's keyframe", max(mixed), 2.0))


async def mixed_up(page: Page, relay: RunningRelay, keyframes: int, width: int) -> int:
    """How many pictures are decoded from the SFU's switch to the keyframe of this width."""
    sessions = (await relay.sfu("sessions"))["sessions"]
    before = sum(track["switches"] for session in sessions for track in session["pulled"])
    at_switch: int | None = None
    decoded, began = 0, time.monotonic()
    while True:
        sessions = (await relay.sfu("sessions"))["sessions"]
        switched = sum(track["switches"] for session in sessions for track in session["pulled"]) > before
        (numbers,) = (await stats(page)).values()
        if numbers["keyFramesDecoded"] > keyframes and numbers["width"] == width:
            return decoded - at_switch if at_switch is not None else 0
        decoded = numbers["framesDecoded"]
        if switched and at_switch is None:
            at_switch = decoded
        assert time.monotonic() - began < 60, numbers
        await asyncio.sleep(0.02)
