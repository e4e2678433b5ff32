"""The system's clock while the machine is suspended."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time

import pytest

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


def test_the_time_that_a_machine_sleeps_counts() -> None:
    """As in a time namespace whose CLOCK_BOOTTIME is ahead, as after a suspension of that length."""
    unshare = [shutil.which("unshare") or "false", "--time", "--boottime", "100000", "--fork"]
    script = "import time; from relay_common.clock import SystemClock; print(SystemClock().now() - time.monotonic())"
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespace here: this needs root and Linux 5.6")
    ahead = subprocess.run([*unshare, sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    assert float(ahead) > 90_000.0
