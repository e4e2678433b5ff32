"""Whole days of the control plane in seconds, judged by the simulator's accounting and by a second one."""

from __future__ import annotations

import random
import xml.etree.ElementTree
from pathlib import Path

import pytest

from relay_supervisor.google.quota.command import Verb
from tests.simulation.plot import plot_if_asked, svg
from tests.simulation.world import DAY, World

START = 1000.0


def test_twenty_cameras_from_cold_are_all_generated_within_65_s() -> None:
    world = World(20)
    world.run(65.0)
    assert world.count(Verb.GENERATE) == 20
    assert all(status == 200 for *_, status in world.commands)
    assert world.live() == 20
    assert world.ledger.violations() == []


def day_of_forty() -> World:
    """Without faults."""
    world = World(40)
    world.run(DAY)
    return world


def day_of_thirty_with_faults() -> World:
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
    return world


def test_forty_cameras_for_a_day_without_faults() -> None:
    world = day_of_forty()
    plot_if_asked(world, "day-40", "40 cameras for a day")
    assert world.lapses() == 0
    assert world.count(Verb.GENERATE) == 40, "one each, never again"
    assert world.ledger.violations() == []
    assert all(status == 200 for *_, status in world.commands)
    assert world.book.queue.peak <= 10


def test_thirty_cameras_for_a_day_with_faults() -> None:
    world = day_of_thirty_with_faults()
    plot_if_asked(world, "day-30-faults", "30 cameras for a day: 429, 503, kill -9, six cameras offline")
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


def test_a_token_endpoint_that_is_down_for_ten_minutes() -> None:
    """Without a token nothing can be sent, and leases of five minutes run out; then all come back at the full rate."""
    world = World(20)
    world.take_token_endpoint_down(START + 1800, 600.0)
    world.run(1800.0)
    assert world.lapses() == 0
    sent = len(world.commands)
    world.run(600.0)
    assert len(world.commands) == sent, "no command leaves without a token"
    assert 20 <= world.token_tries <= 60, "asked again every half a minute or so, not for every camera"
    world.run(150.0)
    assert world.live() == 20
    assert world.lapses() == 20, "each once"
    assert world.count(Verb.GENERATE) <= 42, "an extension that was refused only now may cost one"
    assert world.ledger.violations() == []


def test_a_token_endpoint_that_is_down_for_a_minute_costs_no_stream() -> None:
    world = World(30)
    for n in range(6):
        world.take_token_endpoint_down(START + 1000 + 613 * n, 60.0)
    world.run(2 * 3600.0)
    assert world.lapses() == 0
    assert world.count(Verb.GENERATE) == 30
    assert world.ledger.violations() == []


def test_clock_steps_and_restarts_cost_no_stream(tmp_path: Path) -> None:
    """The wall clock jumps by seconds, hours and a day, supervisors die meanwhile; what they saved holds."""
    world = World(12, directory=tmp_path)
    rng = random.Random(5)
    for n in range(12):
        at = START + 900 + n * 600
        step = rng.choice((-86_400.0, -3600.0, -40.0, 40.0, 3600.0, 86_400.0))
        world.at(at, lambda step=step: setattr(world.clock, "error", world.clock.error + step))  # type: ignore[misc]
        world.at(at + rng.uniform(-10.0, 10.0), world.crash)
        world.at(at + rng.uniform(11.0, 40.0), world.start)
    world.run(2.5 * 3600.0)
    world.saved.close()
    assert world.lapses() == 0
    assert world.count(Verb.GENERATE) <= 14, "an extension whose answer a crash swallowed may cost one"
    assert world.live() == 12
    assert world.ledger.violations() == []


def _with_viewers(world: World, until: float) -> None:
    rng = random.Random(3)
    for name, camera in world.cameras.items():
        at = START + 60.0
        while camera.on_demand and at < until:
            at += rng.expovariate(1 / 300.0)
            stays = rng.expovariate(1 / 400.0)
            world.at(at, lambda name=name: world.watch(name, True))  # type: ignore[misc]
            world.at(at + stays, lambda name=name: world.watch(name, False))  # type: ignore[misc]
            at += stays


def test_cameras_on_demand_cost_the_others_nothing() -> None:
    """Thirty cameras always on, a dozen watched now and then; an outage ends all streams, and all recover."""
    recovered = {}
    for on_demand in (0, 12):
        world = World(30, on_demand=on_demand, seed=4)
        world.error_share = 0.01
        _with_viewers(world, START + 2 * 3600.0)
        world.run(2700.0)
        assert world.live() == 30
        assert world.lapses() == 0
        watched = [camera.first_stream for camera in world.cameras.values() if camera.on_demand]
        assert max(watched, default=0.0) < START + 2700, "each was served when it was watched"
        world.refuse_all(world.now, 420.0, 503)
        world.run(420.0)
        began = world.now
        while world.live() < 30:
            world.run(1.0)
        recovered[on_demand] = world.now - began
        world.run(900.0)
        assert world.lapses() == 30, "those of the outage"
        assert world.ledger.violations() == []
    assert recovered[12] <= recovered[0] + 15.0


def test_a_full_budget_leaves_cameras_on_demand_waiting() -> None:
    world = World(40, on_demand=6)
    for n in range(6):
        world.at(START + 600, lambda n=n: world.watch(f"demand{n:02d}", True))  # type: ignore[misc]
    world.run(3600.0)
    served = sum(camera.on_demand and camera.stream_ends > world.now for camera in world.cameras.values())
    assert served <= 3
    assert world.lapses() == 0
    assert world.count(Verb.GENERATE) == 40 + served
    world.watch("demand00", False)


def test_the_plot_shows_leases_commands_and_budget() -> None:
    world = World(4, on_demand=1)
    world.cameras["cam01"].simulated.offline = True
    world.take_token_endpoint_down(START + 600, 600.0)
    world.run(1800.0)
    drawn = svg(world, "a <title>", START)
    root = xml.etree.ElementTree.fromstring(drawn)
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a <title>", "cam00", "cam01 ✕", "demand00", "commands a minute"} <= words
    fills = [element.get("fill") for element in root.iter("{http://www.w3.org/2000/svg}path")]
    assert fills.count("#bcd9c8") == 4
    assert all(camera.name in words or not camera.healthy for camera in world.cameras.values())
