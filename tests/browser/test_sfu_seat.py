"""Chromium in place of the SFU: how an independent media stack receives the relay, with each kind of feedback.

Each pairing has its own relay, simulators and page; the three that only watch are watched at the same time, in
one browser. All pairs of settings, for a minute each and alone: `make bench ARGS="--parts seat"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import pytest
from playwright.async_api import Page

from tests.fixtures.at_once import AtOnce, Case, Played
from tests.fixtures.lateness import Lateness
from tests.fixtures.link_emulator import Link, LinkEmulator
from tests.fixtures.sfu_seat import Feedback, Row, SeatRig, seat_rig

pytestmark = [pytest.mark.serial, pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(600)]

SECONDS: Final = 20.0
TRIES: Final = 3
"""One good watch of several is enough: the machine may have been busy in the others."""


CASES = AtOnce(most=3)
ROWS: Final = (
    # It sends estimates anyway, of a hundredth of the rate that arrives.
    Row("720p", "mono", Feedback(False, False, False)),
    Row("720p", "opus", Feedback(True, False, False)),
    Row("720p", "none", Feedback()),
)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Played:
    return CASES.play(request)


async def never_freezes(row: Row, rig: SeatRig) -> None:
    await asyncio.sleep(3.0)
    seen = []
    for _ in range(TRIES):
        seen.append(await rig.seat.watch(SECONDS))
        assert rig.stats[-1].video.thinned == 0, "there is room for all"
        if seen[-1].good:
            break
    else:
        pytest.fail("; ".join(map(str, seen)))
    publisher = rig.relay.keeper.publisher
    assert publisher is not None
    stats = publisher.stats()
    agreed = row.feedback.abs_send_time or row.feedback.remb
    assert (publisher.counters().get("sender.unagreed_feedback", 0) > 0) is not agreed
    assert (stats.estimate.received_bitrate is not None) is row.feedback.transport_cc


for row in ROWS:
    size, options = row.camera
    scene = partial(seat_rig, feedback=row.feedback, size=size, options=options)
    CASES.add(f"test_the_picture_never_freezes[{row}]", Case(scene, partial(never_freezes, row)))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_picture_never_freezes(row: Row, request: pytest.FixtureRequest, played: Played) -> None:
    played.judge(request)


@contextlib.asynccontextmanager
async def behind_a_link(page: Page) -> AsyncIterator[tuple[SeatRig, Link]]:
    link = LinkEmulator(up=Link(delay=0.020, queue=100_000), down=Link(delay=0.020))
    async with seat_rig(page, Feedback(True, False, False), link=link) as rig:
        yield rig, link.up


@CASES.case(behind_a_link)
async def test_from_80_percent_to_full_takes_ten_seconds_at_most(behind: tuple[SeatRig, Link]) -> None:
    for _ in range(TRIES):
        async with Lateness() as lateness:
            said = await widened(*behind)
        if not said:
            return
        assert lateness.busy, said
    pytest.fail(said)


async def widened(rig: SeatRig, up: Link) -> str:
    """Narrow the link and widen it again; what is wrong with the picture, or nothing."""
    await asyncio.sleep(4.0)
    up.rate = 0.8 * 1.04 * statistics.median(s.video.bitrate_out for s in rig.stats[-3:])
    await asyncio.sleep(12.0)
    narrow = rig.stats[-1].video
    assert narrow.thinned > 0
    assert narrow.ceiling > 0
    thin = await rig.seat.watch(6.0)
    up.rate, began, wide = 0.0, time.monotonic(), rig.stats[-1].video.thinned
    await asyncio.sleep(10.0)
    thinned = rig.stats[-1].video.thinned
    seen = await rig.seat.watch(5.0)
    said = f"{time.monotonic() - began:.0f} s on: {seen}; {thinned - wide} pictures left out meanwhile"
    well = thin.fps >= 8.0 and rig.stats[-1].video.thinned == thinned and seen.fps >= 26.0
    return "" if well else f"while it was narrow {thin}; {said}"
