"""Restart intensity: at once, then slower, then degraded, and quick again after quiet times."""

from __future__ import annotations

import random

from relay_supervisor.fleet.launcher import Exit
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import WORKER_TABLE, Phase, SlotEvent


def test_the_first_restart_is_immediate_and_a_crash_loop_slows_down() -> None:
    policy = RestartPolicy(intensity=4, window=100.0, base=1.0, ceiling=60.0, rng=random.Random(1))
    assert policy.died(0.0, "crashed") == 0.0
    delays = [policy.died(float(t), "crashed") for t in (1, 2, 3)]
    assert all(a > 0 for a in delays)
    assert delays[0] < delays[1] < delays[2] or policy.degraded(3.0)
    assert policy.degraded(3.0)
    assert 48.0 <= policy.died(4.0, "crashed") <= 72.0
    assert policy.restarts == 5


def test_quiet_times_are_forgiven() -> None:
    policy = RestartPolicy(intensity=3, window=10.0)
    for t in (0.0, 1.0, 2.0):
        policy.died(t, "crashed")
    assert policy.degraded(2.0)
    assert not policy.degraded(13.0)
    assert policy.died(20.0, "crashed") == 0.0
    assert policy.words(20.0) == "crashed"


def test_the_same_end_again_is_counted_while_it_is_recent() -> None:
    policy = RestartPolicy()
    segfault = "killed by SIGSEGV in decode"
    for t in (0.0, 100.0):
        policy.died(t, segfault)
    policy.died(150.0, "exited with status 1 while live")
    assert policy.words(150.0) == "exited with status 1 while live"
    policy.died(200.0, segfault)
    assert policy.words(200.0) == "killed by SIGSEGV in decode, 3rd time in 10 minutes"
    assert policy.words(650.0) == "killed by SIGSEGV in decode, 2nd time in 10 minutes"
    for t in range(10):
        policy.died(700.0 + t, segfault)
    assert policy.words(750.0).endswith(", 11th time in 10 minutes")


def test_being_taken_away_is_no_death_unless_it_goes_on() -> None:
    """Three nodes upgraded within ten minutes move a worker three times; what deletes every Pod goes on."""
    policy = RestartPolicy(rng=random.Random(1))
    policy.died(0.0, "crashed")
    assert [policy.taken_away(float(t)) for t in range(1, 5)] == [0.0] * 4
    assert (policy.recent(5.0), policy.restarts) == (1, 5)
    assert 48.0 <= policy.taken_away(5.0) <= 72.0
    assert policy.taken_away(700.0) == 0.0


def test_every_edge_of_the_worker_table_is_reachable_from_the_start() -> None:
    reached = {Phase.ABSENT}
    for _ in Phase:
        reached |= {target for source, _, target in WORKER_TABLE.edges() if source in reached}
    assert reached == set(Phase)
    # Whatever the phase of a live process, its exit must have a place to go.
    for phase in (Phase.STARTING, Phase.RUNNING, Phase.HUNG, Phase.STOPPING):
        assert WORKER_TABLE.target(phase, SlotEvent.EXIT) is not None


def test_exits_are_told_in_words() -> None:
    assert str(Exit(-9)) == "killed by SIGKILL"
    assert str(Exit(-250)) == "killed by signal 250"
    assert str(Exit(3)) == "exited with status 3"
    assert "unknown" in str(Exit(None))
    assert str(Exit(-15, "its node is drained", taken=True)) == "taken away (its node is drained)"
