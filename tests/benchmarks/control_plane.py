"""Cold start and whole days of the control plane, on the manual clock: the worlds of tests/simulation."""

from __future__ import annotations

import time
from typing import Final

from relay_supervisor.google.quota.command import Verb
from tests.benchmarks.table import Report
from tests.simulation import test_leases_day as days
from tests.simulation.world import DAY, World

MAX_COLD: Final = 65.0


def measure_cold_start(report: Report, cameras: int = 20) -> None:
    """How long Google's published limits let a cold start take."""
    world = World(cameras)
    while world.live() < cameras and world.now < days.START + 4 * MAX_COLD:
        world.run(1.0)
    report.add(f"cold start of {cameras} cameras, all generated", world.now - days.START, "s", most=MAX_COLD)
    report.add(f"cold start of {cameras} cameras: limits exceeded", len(world.ledger.violations()), "", most=0)


def measure_day(report: Report, cameras: int = 40) -> None:
    """A day without faults."""
    began = time.monotonic()
    world = World(cameras)
    world.run(DAY)
    note = (
        f"{world.count(Verb.GENERATE)} Generate, {len(world.commands)} commands; took {time.monotonic() - began:.0f} s"
    )
    report.add(f"{cameras} cameras, 24 h: leases lapsed", world.lapses(), "", most=0, note=note)
    report.add(f"{cameras} cameras, 24 h: limits exceeded", len(world.ledger.violations()), "", most=0)


def measure_faulty_day(report: Report) -> None:
    """The test of a day with faults, as it stands: it passes, or it does not."""
    try:
        days.test_thirty_cameras_for_a_day_with_faults()
    except AssertionError as error:
        note = " ".join(str(error).split())[:120]
        report.add("30 cameras, 24 h of faults: test failures", 1, "", most=0, note=note)
    else:
        report.add("30 cameras, 24 h of faults: test failures", 0, "", most=0, note="no lapse, no limit exceeded")
