"""200 seeds of the simulation lane; a failure prints its seed and how to replay it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.lane import Lane

SEEDS = 200
TOGETHER = 20
"""Seeds of one test: enough to be worth one, few enough to be spread over the processes."""


@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_seeds(first: int) -> None:
    for seed in range(first, first + TOGETHER):
        Lane(seed).run()


def test_a_seed_decides_everything() -> None:
    """Also from process to process, where hashes, and with them the order in sets, differ."""
    script = "from tests.simulation.lane import Lane; lane = Lane(7); lane.run(); print(lane.loop.steps, lane.loop.now)"
    ran = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2", "3")
    }
    assert len(ran) == 1
