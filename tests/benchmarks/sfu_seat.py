"""Chromium in the SFU's seat: a minute of each pairing of what cameras send and what the seat agrees to."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.benchmarks.table import Report
from tests.fixtures.chromium import chromium
from tests.fixtures.sfu_seat import FPS_BAR, ROWS, SYNC_BAR, Seen, seat_rig

SETTLE: Final = 5.0


async def measure_seat(report: Report, seconds: float) -> None:
    """One row for each pairing, `seconds` long, in a fresh browser."""
    for row in ROWS:
        report.progress(f"Chromium as SFU: {row}")
        size, options = row.camera
        try:
            async with chromium() as browser:
                page = await browser.new_page()
                async with seat_rig(page, row.feedback, size=size, options=options) as rig:
                    await asyncio.sleep(SETTLE)
                    seen = await rig.seat.watch(seconds)
        except Exception as error:
            report.failed(f"Chromium as SFU: {row}", error)
            continue
        _judge(report, f"Chromium as SFU: {row}", seen)


def _judge(report: Report, name: str, seen: Seen) -> None:
    """The figures that have a bar, and the others as a note to the first."""
    report.add(f"{name}: pictures", seen.fps, "fps", least=FPS_BAR, note=str(seen))
    report.add(f"{name}: freezes", seen.freezes, "", most=0)
    report.add(f"{name}: lost packets", seen.lost, "", most=0)
    if seen.sync is not None:
        report.add(f"{name}: sound and picture apart", abs(seen.sync) * 1e3, "ms", most=SYNC_BAR * 1e3)
