"""Chromium in the SFU's seat: a minute of each pairing of what cameras send and what the seat agrees to."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.benchmarks.table import Report
from tests.fixtures.chromium import chromium
from tests.fixtures.sfu_seat import FPS_BAR, ROWS, SYNC_BAR, seat_rig

SETTLE: Final = 5.0
BAR: Final = f"≥ {FPS_BAR:.0f} fps, 0 freezes, 0 lost, A/V ± {SYNC_BAR * 1e3:.0f} ms"


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
        report.add(f"Chromium as SFU: {row}", str(seen), BAR, seen.good)
