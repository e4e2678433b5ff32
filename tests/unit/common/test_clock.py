"""The system's clock while the machine is suspended."""

from __future__ import annotations

import asyncio
import time

from relay_common.clock import SystemClock


class Suspended(SystemClock):
    """What CLOCK_BOOTTIME shows on a machine that was suspended for `slept` seconds."""

    slept = 0.0

    def now(self) -> float:
        return super().now() + self.slept


async def test_a_long_sleep_ends_soon_after_the_machine_wakes() -> None:
    clock = Suspended()
    sleeping = asyncio.ensure_future(clock.sleep(3600.0))
    await asyncio.sleep(0.05)
    clock.slept = 4000.0
    await asyncio.wait_for(sleeping, 30.0)


async def test_sleeps_last_as_long_as_they_should() -> None:
    clock = SystemClock()
    for seconds in (-1.0, 0.0, 0.05):
        began = time.monotonic()
        await clock.sleep(seconds)
        assert time.monotonic() - began >= seconds - 0.001
    assert abs(clock.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5.0
