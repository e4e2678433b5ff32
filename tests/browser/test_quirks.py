"""Every quirk of docs/quirks.md that concerns the picture, in Chromium: it plays, or the relay says that it does not.

One browser takes the SFU's place for all cameras at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Page

from relay_common import protocol
from relay_common.protocol import PublishAnswer, TrackOffer, WorkerState
from relay_common.secrets import Secret
from relay_common.worker_stats import WorkerStats
from relay_worker.camera.granted import GrantedStream
from relay_worker.media.stream import Kind
from relay_worker.publish.publication import PublisherSettings
from relay_worker.relay import CameraRelay, RelaySettings
from tests.fixtures.media_rig import Listener
from tests.fixtures.quirk_server import QuirkCamera
from tests.fixtures.quirks import QUIRKS, Quirk

pytestmark = [pytest.mark.serial, pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(180)]

ORIGIN: Final = "http://localhost/quirks"
PAGE: Final = Path(__file__).parents[1] / "fixtures" / "quirk_matrix.html"
SECONDS: Final = 8.0
TRIES: Final = 4
"""One good watch of several is enough: the machine may have been busy in the others."""
SHARE: Final = 0.9
"""Share of the frames sent that must be decoded."""


class Row:
    """One camera, its relay and its place on the page."""

    def __init__(self, page: Page, name: str, quirk: Quirk) -> None:
        self.name, self.quirk, self._page = name, quirk, page
        self.camera = QuirkCamera(quirk.clip(), quirk.habit, sprop=quirk.sprop)
        settings = RelaySettings(name=name, publisher=PublisherSettings(loopback=True))
        self.relay = CameraRelay(settings, self, Listener())
        self.stats: WorkerStats | None = None
        self.live = False
        """Whether it was live at every check."""

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> PublishAnswer:
        """Signalling: have the page answer."""
        answer = await self._page.evaluate("answer", {"name": self.name, "offer": offer})
        return PublishAnswer(request=0, publication=f"seat-{id(answer)}", answer=answer)

    async def start(self) -> None:
        """Play."""
        url = Secret(await self.camera.start())
        self.relay.play(GrantedStream(1, protocol.Protocol.RTSP, url, time.time() + 3600))

    def look(self, now: float) -> None:
        """The worker's periodic task."""
        self.relay.tick(now)
        self.stats = self.relay.stats(now)
        self.live = self.live and self.relay.state is WorkerState.LIVE

    def outcome(self, decoded: int, sent: int) -> str:
        """The outcome: "plays", "not decodable", "not live", or what is wrong."""
        assert self.stats is not None
        if not self.live:
            return "not live"
        if self.stats.requests_in_vain:
            return "not decodable"
        if decoded < SHARE * sent:
            return f"called live, and {decoded} of {sent} pictures were decoded"
        return "plays"

    async def stop(self) -> None:
        """End camera and relay."""
        await self.relay.close()
        await self.camera.stop()


async def ticking(rows: Sequence[Row]) -> None:
    while True:
        for row in rows:
            row.look(time.monotonic())
        await asyncio.sleep(1.0)


async def test_every_quirk_plays_or_is_honestly_called_what_it_is(chromium_page: Page) -> None:
    page = chromium_page
    await page.route(ORIGIN, lambda route: route.fulfill(path=PAGE, content_type="text/html"))
    await page.goto(ORIGIN)
    rows = await asyncio.to_thread(lambda: [Row(page, name, quirk) for name, quirk in QUIRKS.items()])
    watching = asyncio.create_task(ticking(rows))
    try:
        for row in rows:
            await row.start()
        await playing(page, [row for row in rows if row.quirk.expected == "plays"])
        wrong = dict.fromkeys(QUIRKS, "not looked at")
        for _ in range(TRIES):
            for name, outcome in (await watch(page, rows)).items():
                if outcome == QUIRKS[name].expected:
                    wrong.pop(name, None)
                elif name in wrong:
                    wrong[name] = outcome
            if not wrong:
                break
        tolerated = {}
        for row in rows:
            counted = row.relay.pipeline.track_stats(Kind.VIDEO).tolerated
            tolerated[row.name] = row.quirk.tolerated if counted.get(row.quirk.tolerated) else ""
    finally:
        watching.cancel()
        await asyncio.gather(*(row.stop() for row in rows))
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert wrong == {}
    assert tolerated == {name: quirk.tolerated for name, quirk in QUIRKS.items()}


async def watch(page: Page, rows: Sequence[Row]) -> dict[str, str]:
    """The outcome of each row's picture over the next seconds."""
    before, sent = await page.evaluate("decoded()"), {row.name: row.camera.pictures for row in rows}
    for row in rows:
        row.live = True
    await asyncio.sleep(SECONDS)
    after = await page.evaluate("decoded()")
    return {
        row.name: row.outcome(after.get(row.name, 0) - before.get(row.name, 0), row.camera.pictures - sent[row.name])
        for row in rows
    }


async def playing(page: Page, rows: Sequence[Row], within: float = 30.0) -> None:
    """Wait until each of them has shown some pictures, or time is up; the outcome tells them apart."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        decoded = await page.evaluate("decoded()")
        if all(decoded.get(row.name, 0) >= 15 for row in rows):
            return
        await asyncio.sleep(0.25)
