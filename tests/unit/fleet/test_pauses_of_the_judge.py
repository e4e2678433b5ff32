"""Silence counts only while the supervisor is awake and reads its bus."""

from __future__ import annotations

import signal

import pytest

from relay_common import protocol
from relay_common.pauses import PauseDetector
from relay_supervisor.fleet.fleet import TICK
from relay_supervisor.fleet.keeper import HELLO_TIMEOUT, LAUNCH_TIMEOUT, SILENCE
from relay_supervisor.fleet.slot import Phase
from tests.unit.fleet.scripted import SPEC, Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("seconds", [5.0, 6.0, 30.0, 180.0, 600.0])
async def test_no_worker_is_judged_by_the_time_in_which_the_judge_was_away(rig: Rig, seconds: float) -> None:
    process = await rig.run()
    await rig.wait(5.0, beats=True)
    await rig.away(seconds)
    await rig.wait(20.0, beats=True)
    assert (rig.phase, process.signals) == (Phase.RUNNING, [])
    assert rig.messages(protocol.Identify) == 0, "it was heard before anybody had to ask"


async def test_who_stays_silent_is_asked_once_and_taken_down_when_the_patience_is_over(rig: Rig) -> None:
    process = await rig.run()
    await rig.wait(5.0, beats=True)
    await rig.away(30.0)
    assert rig.messages(protocol.Identify) == 0, "first what was said meanwhile is read"
    await rig.wait(SILENCE - 2 * TICK)
    assert (rig.phase, rig.messages(protocol.Identify)) == (Phase.RUNNING, 1)
    await rig.wait(4 * TICK)
    assert (rig.phase, process.signals[0]) == (Phase.HUNG, signal.SIGUSR1)


async def test_silence_before_the_pause_still_counts(rig: Rig) -> None:
    await rig.run()
    await rig.wait(3.0)
    await rig.away(60.0)
    await rig.wait(2.0)
    assert rig.phase is Phase.HUNG


async def test_one_that_starts_and_one_that_stops_are_given_their_time_too(rig: Rig) -> None:
    process = await rig.launch()
    await rig.wait(HELLO_TIMEOUT - 1.0)
    await rig.away(60.0)
    await rig.wait(0.5)
    assert rig.phase is Phase.STARTING
    rig.hello()
    rig.fleet.stop("cam", "a test", within=3.0)
    await rig.away(60.0)
    await rig.wait(2.0)
    assert process.signals == []
    await rig.wait(1.0)
    assert process.signals == [signal.SIGTERM]


async def test_a_launcher_is_given_its_time_too(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await rig.wait(1.0)
    await rig.away(2 * LAUNCH_TIMEOUT)
    await rig.wait(1.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 1)
    await rig.launcher.answer()
    rig.hello()
    assert rig.slot.running


async def test_while_the_bus_is_not_read_nobody_is_hung(rig: Rig) -> None:
    process = await rig.run()
    rig.reading = False
    await rig.wait(60.0)
    assert process.signals == []
    rig.reading = True
    await rig.wait(SILENCE + 2 * TICK)
    assert process.signals == [signal.SIGUSR1]


def test_a_busy_loop_is_late_and_one_that_stood_still_was_away() -> None:
    pauses = PauseDetector(0.25, tolerance=1.0)
    assert [pauses.observe(at) for at in (10.0, 10.25, 11.5, 11.75)] == [0.0] * 4
    assert pauses.observe(18.0) == pytest.approx(6.0)
    assert pauses.observe(18.25) == 0.0
    assert (pauses.pauses, pauses.away) == (1, pytest.approx(6.0))
