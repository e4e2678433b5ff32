"""The worker's time is its event loop's: a machine that was suspended must not tear them apart."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SEEN = """
import asyncio

from relay_common.clock import LoopClock, SystemClock


async def main() -> None:
    now = asyncio.get_running_loop().time()
    print(round(SystemClock().now() - now), round(LoopClock().now() - now))


asyncio.run(main())
"""


def test_a_suspended_machine_has_two_times_and_the_worker_goes_by_its_loops() -> None:
    """A time namespace, in which an hour of suspension has passed since the start."""
    unshare = shutil.which("unshare")
    apart = [unshare or "", "--user", "--map-root-user", "--time", "--boottime", "3600"]
    if unshare is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("a time namespace cannot be made here")
    seen = subprocess.run([*apart, sys.executable, "-c", SEEN], capture_output=True, text=True, timeout=60, check=True)
    assert seen.stdout.split() == ["3600", "0"]


def test_nothing_of_a_worker_goes_by_another_clock() -> None:
    worker = Path(__file__).parents[3] / "relay_worker"
    found = {path.name for path in worker.rglob("*.py") if "SystemClock" in path.read_text()}
    assert found == {"debug.py", "debug_sinks.py"}, "debug's clients of the SFU and of WHIP set no timers of the loop"
