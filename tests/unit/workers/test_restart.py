"""Restart intensity: at once, then slower, then degraded, and quick again after quiet times."""

from __future__ import annotations

import random

from relay_supervisor.workers.process import Exit
from relay_supervisor.workers.restart import RestartPolicy
from relay_supervisor.workers.slot import WORKER_TABLE, Happening, Phase


def test_the_first_restart_is_immediate_and_a_crash_loop_slows_down() -> None:
    policy = RestartPolicy(intensity=4, window=100.0, base=1.0, ceiling=60.0, rng=random.Random(1))
    assert policy.died(0.0) == 0.0
    delays = [policy.died(float(t)) for t in (1, 2, 3)]
    assert all(a > 0 for a in delays)
    assert delays[0] < delays[1] < delays[2] or policy.degraded(3.0)
    assert policy.degraded(3.0)
    assert policy.died(4.0) == 60.0
    assert policy.restarts == 5


def test_quiet_times_are_forgiven() -> None:
    policy = RestartPolicy(intensity=3, window=10.0)
    for t in (0.0, 1.0, 2.0):
        policy.died(t)
    assert policy.degraded(2.0)
    assert not policy.degraded(13.0)
    assert policy.died(20.0) == 0.0


def test_every_edge_of_the_worker_table_is_reachable_from_the_start() -> None:
    reached = {Phase.ABSENT}
    for _ in Phase:
        reached |= {target for source, _, target in WORKER_TABLE.edges() if source in reached}
    assert reached == set(Phase)
    # Whatever the phase of a live process, its exit must have a place to go.
    for phase in (Phase.STARTING, Phase.RUNNING, Phase.HUNG, Phase.STOPPING):
        assert WORKER_TABLE.target(phase, Happening.EXIT) is not None


def test_exits_are_told_in_words() -> None:
    assert str(Exit(-9)) == "killed by SIGKILL"
    assert str(Exit(-250)) == "killed by signal 250"
    assert str(Exit(3)) == "exited with status 3"
    assert "unknown" in str(Exit(None))
