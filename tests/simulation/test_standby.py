"""40 seeds of supervisors that stand by for each other; more: `python -m tests.simulation.standby 1000`."""

from __future__ import annotations

import pytest

from tests.simulation.standby import StandbyWorld


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_standby_seeds(first: int) -> None:
    takeovers = under_promises = 0
    for seed in range(first, first + 20):
        world = StandbyWorld(seed)
        world.run()
        takeovers += len(world.takeovers)
        under_promises += world.under_promises
    assert takeovers > 20, "the faults move the command"
    assert under_promises > 20, "and have it go on without the API server"
