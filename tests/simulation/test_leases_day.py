"""Whole days of the control plane in seconds, judged by the simulator's accounting and by a second one."""

from __future__ import annotations

import pytest

from relay_supervisor.quota.command import Verb
from tests.simulation.world import DAY, World

START = 1000.0


def test_twenty_cameras_from_cold_are_all_generated_within_65_s() -> None:
    world = World(20)
    world.run(65.0)
    assert world.count(Verb.GENERATE) == 20
    assert all(status == 200 for *_, status in world.commands)
    assert world.live() == 20
    assert world.ledger.violations() == []


def test_forty_cameras_for_a_day_without_faults() -> None:
    world = World(40)
    world.run(DAY)
    assert world.lapses() == 0
    assert world.count(Verb.GENERATE) == 40, "one each, never again"
    assert world.ledger.violations() == []
    assert all(status == 200 for *_, status in world.commands)
    assert world.book.queue.peak <= 10


def test_thirty_cameras_for_a_day_with_faults() -> None:
    """Every two hours 50 s of 429 and a minute of 503, every hour kill -9 of the supervisor, six cameras offline."""
    world = World(30, seed=12)
    world.error_share, world.timeout_share = 0.02, 0.005
    for n in range(6):
        world.cameras[f"cam{n:02d}"].simulated.offline = True
    for n in range(12):
        world.refuse_all(START + 3000 + n * 7200, 50.0, 429)
        world.refuse_all(START + 4800 + n * 7200, 60.0, 503)
    for n in range(24):
        crash = START + 2000 + n * 3600
        world.at(crash, world.crash)
        world.at(crash + world.rng.uniform(1.0, 15.0), world.start)
    world.run(DAY)
    assert world.lapses() == 0
    assert world.ledger.violations() == []
    refused = sum(status == 429 for *_, status in world.commands)
    assert refused <= 4 * 12, "a storm costs a command or two, not one per camera"


def test_a_restart_spends_no_generate() -> None:
    world = World(20)
    world.run(600.0)
    for _ in range(5):
        world.crash()
        world.run(7.0)
        world.start()
        world.run(300.0)
    assert world.count(Verb.GENERATE) <= 21, "an extension whose answer the crash swallowed may cost one"
    assert world.lapses() == 0
    assert world.ledger.violations() == []


def test_restarts_in_a_row_do_not_double_the_rate() -> None:
    world = World(30)
    for _ in range(40):
        world.run(3.0)
        world.crash()
        world.start()
    world.run(600.0)
    assert world.ledger.violations() == []
    assert world.live() == 30


@pytest.mark.parametrize("status", [500, 429])
def test_everything_comes_back_after_an_hour_of_refusals(status: int) -> None:
    world = World(20)
    world.run(600.0)
    world.refuse_all(world.now, 3600.0, status)
    world.run(3600.0)
    assert world.live() == 0
    during = len(world.commands)
    world.run(600.0)
    assert world.live() == 20
    assert world.ledger.violations() == []
    assert during < 600, "an outage is not answered with a storm"


def test_half_of_the_cameras_offline_cost_the_others_nothing() -> None:
    world = World(30)
    for n in range(15):
        world.cameras[f"cam{n:02d}"].simulated.offline = True
    world.run(4 * 3600.0)
    assert world.lapses() == 0
    assert world.ledger.violations() == []
    healthy = [camera.first_stream - START for camera in world.cameras.values() if camera.healthy]
    assert max(healthy) < 250.0


def test_leases_of_a_minute() -> None:
    """Nobody knows before the first grant that lives are short: what was begun too close together settles once."""
    world = World(7, life=60.0)
    world.run(2 * 3600.0)
    assert [at for camera in world.cameras.values() for at in camera.lapses if at > START + 180] == []
    assert world.live() == 7
    assert world.count(Verb.GENERATE) <= 14
    assert world.ledger.violations() == []


def test_more_cameras_than_leases_of_a_minute_allow_serves_as_many_as_fit() -> None:
    world = World(20, life=60.0)
    world.run(3600.0)
    assert [camera.name for camera in world.cameras.values() if any(at > START + 600 for at in camera.lapses)] == []
    assert world.live() >= 6
    assert world.ledger.violations() == []


def test_answers_that_come_late() -> None:
    world = World(20, latency=(1.0, 25.0))
    world.run(4 * 3600.0)
    assert world.lapses() == 0
    assert world.ledger.violations() == []


def test_no_more_cameras_are_taken_than_can_be_kept() -> None:
    world = World(60)
    world.run(2 * 3600.0)
    assert 40 <= world.live() <= 45
    assert world.lapses() == 0
    assert world.ledger.violations() == []
