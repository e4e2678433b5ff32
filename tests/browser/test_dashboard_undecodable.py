"""A picture that Chromium cannot decode: what the page reports to the relay, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page

from relay_common.protocol import WorkerState
from relay_common.worker_stats import TrackStats, WorkerStats
from relay_supervisor.viewing.decoding import BROWSERS_FAULT, Decodable
from tests.fixtures import dashboard as fixture
from tests.fixtures.chromium import BLINDFOLD, chromium
from tests.fixtures.dashboard import Dashboard, served

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(180)]


def without_parameter_sets(units: list[bytes]) -> list[bytes]:
    """The access units without SPS and PPS: they cannot be decoded."""
    stripped = []
    for unit in units:
        nals = [nal for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if nal]
        stripped.append(b"".join(b"\0\0\0\1" + nal for nal in nals if nal[0] & 0x1F not in (7, 8)))
    return stripped


@contextlib.asynccontextmanager
async def judged(dashboard: Dashboard) -> AsyncIterator[None]:
    """The supervisor's part: the camera's worker reports a keyframe a second, and the verdict goes into the status."""
    camera, decoding = dashboard.relay.cameras[0], dashboard.relay.viewers.decoding

    async def judge() -> None:
        keyframes = 0
        while True:
            keyframes += 1
            stats = WorkerStats(
                instance="i",
                camera=camera.id,
                sequence=keyframes,
                at=0.0,
                uptime=0.0,
                state=WorkerState.LIVE,
                video=TrackStats(keyframes=keyframes),
            )
            decoding.worker(camera.id, stats, dashboard.clock.now())
            verdict = decoding.verdict(camera.id, dashboard.clock.now())
            camera.decodable, camera.stage, camera.reason = verdict.decodable.value, verdict.stage, verdict.reason
            await asyncio.sleep(1.0)

    judging = asyncio.create_task(judge())
    try:
        yield
    finally:
        judging.cancel()


async def says(page: Page, camera: str, words: str, within: float = 60.0) -> str:
    deadline = time.monotonic() + within
    while words not in (text := await page.inner_text(f'[data-camera="{camera}"]')):
        assert time.monotonic() < deadline, text
        await asyncio.sleep(0.2)
    return text


async def test_a_camera_that_no_browser_decodes_is_called_so(
    chromium_page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = fixture.encoded_loop
    monkeypatch.setattr(fixture, "encoded_loop", lambda: without_parameter_sets(loop()))
    async with served(1) as dashboard, judged(dashboard):
        await dashboard.publish(0)
        camera = dashboard.relay.cameras[0]
        await chromium_page.goto(dashboard.server.url)
        text = await says(chromium_page, camera.id, "Live, not decodable")
        assert "browsers get its bytes, and decode no picture of them" in text
        await chromium_page.goto(f"{dashboard.server.url}/watch/{camera.id}")
        deadline = time.monotonic() + 30.0
        while "Live, not decodable: browsers cannot decode its picture" not in await chromium_page.inner_text("#why"):
            assert time.monotonic() < deadline, await chromium_page.inner_text("body")
            await asyncio.sleep(0.2)


async def test_one_browser_among_others_that_decode_is_told_on_its_own_tile(chromium_page: Page) -> None:
    async with served(1) as dashboard, judged(dashboard), chromium() as other:
        await dashboard.publish(0)
        camera = dashboard.relay.cameras[0]
        await chromium_page.goto(dashboard.server.url)
        await fixture.decoding(chromium_page, [camera.id])
        blind = await other.new_page()
        await blind.add_init_script(BLINDFOLD)
        await blind.goto(dashboard.server.url)
        await says(blind, camera.id, BROWSERS_FAULT)
        now = dashboard.clock.now()
        assert dashboard.relay.viewers.decoding.verdict(camera.id, now).decodable is Decodable.YES
        tile = f"""document.querySelector('[data-camera="{camera.id}"]')"""
        await fixture.until(chromium_page, f"{tile}.querySelector('.pill').innerText === 'Live'")
        assert BROWSERS_FAULT not in await chromium_page.inner_text(f'[data-camera="{camera.id}"]')
