"""The demo in Chromium: what its NetEq had to conceal, of WebRTC cameras beside cameras that send AAC."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from playwright.async_api import Page

from tests.benchmarks.table import Report
from tests.fixtures.chromium import chromium
from tests.fixtures.running_relay import running_relay

CAMERAS: Final = 6
WEBRTC: Final = 2
SETTLE: Final = 10.0
"""Seconds in which jitter buffers find their length: every stream is concealed now and then until they have."""
_START: Final = 60.0
_HEARD: Final = 48_000 / 2
"""Samples a second from which an element counts as played: NetEq runs only for what is listened to."""

Numbers = dict[str, dict[str, Any]]


async def measure_demo(report: Report, seconds: float) -> None:
    """One row for each camera, and one that compares both kinds."""
    report.progress("the demo's sound in Chromium")
    try:
        async with chromium() as browser, running_relay(CAMERAS, size="640x360", options=("--webrtc", "2")) as relay:
            await relay.until_live(within=_START)
            page = await browser.new_page()
            await page.goto(relay.supervisor.url)
            await _listen(page)
            await asyncio.sleep(SETTLE)
            before, began = await _heard(page), time.monotonic()
            await asyncio.sleep(seconds)
            after, lasted = await _heard(page), time.monotonic() - began
            names = {camera.id: (camera.name, camera.lease.protocol) for camera in relay.supervisor.status().cameras}
    except Exception as error:
        report.failed("the demo's sound", error)
        return
    compare(report, names, {camera: _growth(before[camera], after[camera]) for camera in after}, lasted)


def compare(report: Report, names: dict[str, tuple[str, str]], heard: Numbers, seconds: float) -> None:
    """Rows; a camera that was not listened to would conceal nothing, and makes the part fail."""
    worst = {True: 0.0, False: 0.0}
    for camera, (name, protocol) in sorted(names.items(), key=lambda item: item[1]):
        numbers, webrtc = heard[camera], protocol.lower().startswith("web")
        if numbers["totalSamplesReceived"] < _HEARD * seconds:
            report.failed(f"the demo's sound: {name}", RuntimeError(f"was not played: {numbers}"))
            return
        kind = "WebRTC" if webrtc else "AAC"
        samples = f"{numbers['concealedSamples']:.0f} of {numbers['totalSamplesReceived']:.0f} samples"
        events = float(numbers["concealmentEvents"])
        report.add(f"concealment events in {seconds:.0f} s, {name} ({kind})", events, "", note=samples)
        worst[webrtc] = max(worst[webrtc], events)
    note = "no more than the worst AAC camera of this run"
    report.add("concealment events, worst WebRTC camera", worst[True], "", most=worst[False], note=note)


async def _listen(page: Page) -> None:
    """Wait until every camera plays, and unmute all of them."""
    async with asyncio.timeout(_START):
        while len(found := await _heard(page)) < CAMERAS or not all(one.get("framesDecoded") for one in found.values()):
            await asyncio.sleep(0.2)
    await page.evaluate("for (const element of document.querySelectorAll('video')) element.muted = false")


async def _heard(page: Page) -> Numbers:
    found: Numbers = await page.evaluate("window.relay ? window.relay.stats() : {}")
    return found


def _growth(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    names = ("concealmentEvents", "concealedSamples", "silentConcealedSamples", "totalSamplesReceived")
    return {name: after[name] - before[name] for name in names}
