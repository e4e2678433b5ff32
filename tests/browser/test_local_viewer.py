"""Chromium by a plain WHEP page at a worker that answers it itself: how soon there is a picture, and how old it is."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from playwright.async_api import Browser, Page

from relay_common.local_messages import LocalAnswer
from tests.fixtures.chromium import chromium
from tests.fixtures.lateness import BUSY, Lateness
from tests.fixtures.local_rig import LocalRig, local_rig

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.serial, pytest.mark.timeout(300)]

PAGE: Final = Path(__file__).parents[1] / "fixtures" / "whep_viewer.html"
ORIGIN: Final = "http://localhost/viewer"
GROUP: Final = 4.0
FIRST_PICTURE: Final = 0.3
"""Seconds from the connection to the first decoded picture."""
PAST: Final = 1.0
"""With the camera's timestamps the player would begin with the age of the group: here 1.6 and 3.6 s."""
APART: Final = 0.05
"""Seconds by which a late joiner may be behind who has been watching, five seconds after it joined."""
TRIES: Final = 4
"""Of what the machine was too busy for."""


class ChromiumViewer:
    def __init__(self, page: Page, rig: LocalRig, name: str) -> None:
        self._page, self._rig, self._name = page, rig, name
        self._connection: Any = rig.local._viewers[name]

    @classmethod
    async def join(cls, browser: Browser, rig: LocalRig) -> ChromiumViewer:
        page = await browser.new_page()
        await page.route(ORIGIN, lambda route: route.fulfill(path=PAGE, content_type="text/html"))
        await page.goto(ORIGIN)
        said = rig.ask(await page.evaluate("offer()"))
        assert isinstance(said, LocalAnswer), said
        viewer = cls(page, rig, said.viewer)
        await page.evaluate("accept", said.answer)
        await page.wait_for_function("at.decoded && shown.length")
        return viewer

    async def leave(self) -> None:
        """Make room for the next one, of whom no more than four are served, and who needs the processor."""
        self._rig.close(self._name)
        await self._page.close()

    async def first_picture(self) -> float:
        """Seconds from the connection to the first decoded picture."""
        at = await self._page.evaluate("at")
        return float(at["decoded"] - at["connected"]) / 1000

    async def delay(self, seconds: float) -> float:
        """How old the pictures are that are shown in the next `seconds`: the median, in seconds."""
        await self._page.evaluate("shown.length = 0")
        await asyncio.sleep(seconds)
        return statistics.median(await self.ages())

    async def ages(self) -> list[float]:
        """By how many seconds each picture was shown later than its timestamp says that it was taken."""
        since_boot = time.time() - time.monotonic()
        base = self._connection._video.timestamp_base
        shown = await self._page.evaluate("shown")
        return [shown_at / 1000 - since_boot - _media_time(rtp - base) for rtp, shown_at in shown]

    async def late(self) -> float:
        """Seconds by which something came late in the page."""
        return float(await self._page.evaluate("late")) / 1000

    async def received(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._page.evaluate("received('video')")
        return found


def _media_time(ticks: int) -> float:
    """The media time, about now, of an RTP timestamp less its base."""
    wraps = round((time.monotonic() * 90_000 - ticks % 2**32) / 2**32)
    return (ticks % 2**32 + wraps * 2**32) / 90_000


class Joined(NamedTuple):
    """How a late joiner fared; times in seconds."""

    first_picture: float
    first_age: float
    behind: float
    """By how much its picture is older than that of who has been watching."""
    late: float
    """By how much its page got the processor late."""
    received: dict[str, Any]

    @property
    def well(self) -> bool:
        return self.first_picture <= FIRST_PICTURE and self.first_age < PAST and self.behind <= APART


async def joins(browser: Browser, rig: LocalRig, old: ChromiumViewer, part: float) -> Joined:
    """Join when that part of a group of pictures is over, and watch for seven seconds."""
    await asyncio.sleep((part * GROUP - (time.monotonic() - rig.started)) % GROUP)
    assert rig.report().held_bytes > 0
    new = await ChromiumViewer.join(browser, rig)
    joined = time.monotonic()
    first_picture, first_age = await new.first_picture(), (await new.ages())[0]
    await asyncio.sleep(max(0.0, joined + 5 - time.monotonic()))
    behind, before = await asyncio.gather(new.delay(1.5), old.delay(1.5))
    late, received = await new.late(), await new.received()
    await new.leave()
    return Joined(first_picture, first_age, behind - before, late, received)


async def test_a_late_joiner_sees_the_present_at_once() -> None:
    """In the middle of a group of pictures: at once, and as it is now rather than as it was when the group began."""
    async with local_rig(gop=GROUP, bitrate=2_000_000, width=1280, height=720) as rig, chromium() as browser:
        old = await ChromiumViewer.join(browser, rig)
        for part in (0.4, 0.9):
            for _ in range(TRIES):
                async with Lateness() as lateness:
                    joined = await joins(browser, rig, old, part)
                if joined.well or not (lateness.busy or joined.late > BUSY):
                    break
            assert joined.well, joined
            received = joined.received
            assert received["packetsLost"] == 0
            assert received.get("pliCount", 0) == 0
            assert received["framesDecoded"] > part * GROUP * 0.9 * 30
        assert rig.keyframe_requests == 0
        assert rig.counters()["failures"] == 0
