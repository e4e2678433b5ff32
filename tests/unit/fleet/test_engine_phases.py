"""Timeouts by what the engine says of a worker: one that waits is not hung, one that is taken away gets a successor."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_common.beat_messages import BEAT, SupervisorBeat
from relay_common.causes import RestartCause
from relay_supervisor.cameras.status import _worker
from relay_supervisor.fleet.fleet import TICK
from relay_supervisor.fleet.keeper import HELLO_TIMEOUT, HELLO_TIMEOUT_ELSEWHERE, SILENCE
from relay_supervisor.fleet.launcher import EngineError, EnginePhase
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from relay_supervisor.fleet.slot import Phase
from tests.unit.fleet.scripted import SPEC, Process, Rig, settle


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def waiting(rig: Rig) -> Process:
    """A worker that its engine has accepted and does not run."""
    rig.fleet.start(SPEC)
    await settle()
    process = await rig.launcher.answer(engine=EnginePhase.WAITING)
    process.reason = "0/3 nodes are available: 3 Insufficient memory."
    return process


async def test_a_worker_that_its_engine_lets_wait_is_not_hung(rig: Rig) -> None:
    process = await waiting(rig)
    await rig.wait(20 * HELLO_TIMEOUT)
    assert (rig.phase, process.signals, len(rig.launcher.specs)) == (Phase.STARTING, [], 1)
    status = _worker(rig.slot, rig.clock.now())
    assert (status.state, status.phase, status.phase_reason) == ("starting", "waiting", process.reason)
    process.engine = EnginePhase.RUNNING
    await rig.wait(HELLO_TIMEOUT - TICK)
    assert process.signals == [], "its time begins when it runs"
    await rig.wait(3 * TICK)
    assert rig.phase is Phase.HUNG


async def test_one_that_waits_is_stopped_as_any_other(rig: Rig) -> None:
    process = await waiting(rig)
    rig.fleet.stop("cam", "a test", within=1.0)
    await rig.wait(1.0 + TICK)
    assert len(process.signals) == 1
    process.end(-15)
    assert rig.phase is Phase.ABSENT


async def test_a_survivor_that_still_waits_is_left_to(rig: Rig) -> None:
    process = rig.launcher.adoptable = Process(300, 70_000)
    process.engine = EnginePhase.WAITING
    rig.fleet.left({"cam.old": process.ref})
    assert rig.fleet.expect(SPEC, "cam.old")
    await rig.wait(3 * HELLO_TIMEOUT)
    assert process.signals == []


async def test_one_that_has_spoken_is_judged_by_its_silence_whatever_its_engine_says(rig: Rig) -> None:
    process = await rig.run()
    process.engine = EnginePhase.WAITING
    await rig.wait(SILENCE + 2 * TICK)
    assert rig.phase is Phase.HUNG
    assert rig.launcher.suspected == [process], "the launcher may choose another node for the next one"


async def test_the_launcher_hears_that_a_workers_machine_lives(rig: Rig) -> None:
    process = await rig.run()
    rig.launcher.heard_of.clear()
    rig.beat()
    assert rig.launcher.heard_of == [process]
    rig.report(1)
    assert rig.launcher.heard_of == [process] * 2


async def test_a_worker_that_its_engine_takes_away_gets_its_successor_at_once(rig: Rig) -> None:
    old = await rig.run()
    old.engine, old.reason = EnginePhase.ENDING, "the node is drained"
    await rig.wait(TICK, beats=True)
    assert len(rig.launcher.specs) == 2
    assert (rig.phase, old.signals) == (Phase.RUNNING, []), "it plays meanwhile"
    new = await rig.launcher.answer()
    rig.hello()
    old.end()
    await settle()
    assert (rig.slot.process, rig.slot.running) == (new, True)
    assert rig.slot.last_exit == "its engine ends it: the node is drained"


async def test_it_gets_one_successor_only(rig: Rig) -> None:
    old = await rig.run()
    old.engine = EnginePhase.ENDING
    await rig.wait(TICK, beats=True)
    await rig.launcher.answer(OSError("no room"))
    await rig.wait(10.0, beats=True)
    assert len(rig.launcher.specs) == 2
    old.end()
    await settle()
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 3)


async def test_one_that_is_taken_away_without_notice_has_not_died(rig: Rig) -> None:
    """Its successor starts at once, however often the worker itself has died lately, and the words are the engine's."""
    process = await rig.run()
    for number in range(4):
        process.end(1) if number < 2 else process.end(0, taken="its Pod was deleted")
        if number < 2:
            await rig.wait(2.0)
        await settle()
        assert rig.phase is Phase.STARTING
        process = await rig.launcher.answer()
        rig.hello()
    slot = rig.slot
    assert (slot.last_exit, slot.was_taken) == ("taken away (its Pod was deleted)", True)
    assert (slot.policy.recent(rig.clock.now()), slot.policy.restarts) == (2, 4)
    assert rig.causes[-2:] == [RestartCause.TAKEN_AWAY] * 2


async def test_a_camera_that_is_switched_off_and_on_again_does_not_wait_for_what_was_taken(rig: Rig) -> None:
    process = await rig.run()
    process.end(0, taken="its Pod was deleted")
    assert rig.slot.was_taken
    rig.fleet.stop("cam", "switched off")
    assert not rig.slot.was_taken


async def test_one_that_hung_was_not_taken_away_but_ended(rig: Rig) -> None:
    process = await rig.run()
    await rig.wait(SILENCE + 2 * TICK)
    process.end(None, taken="its Pod was deleted")
    assert not rig.slot.was_taken
    assert rig.slot.policy.recent(rig.clock.now()) == 1


async def test_one_that_was_asked_to_end_is_not_taken_away(rig: Rig) -> None:
    process = await rig.run()
    rig.fleet.stop("cam", "a test")
    process.engine = EnginePhase.ENDING
    await rig.wait(1.0)
    assert len(rig.launcher.specs) == 1


async def test_there_is_no_other_machine_to_prefer(tmp_path: Path) -> None:
    launcher = ForkServerLauncher(tmp_path)
    launcher.suspect(Process(300))
    launcher.heard(Process(300))


async def test_one_that_is_started_elsewhere_gets_more_time_for_its_hello(rig: Rig) -> None:
    """Its node may be starved, and restarting it there would keep it from ever being ready."""
    rig.launcher.remote = True
    process = await rig.launch()
    await rig.wait(HELLO_TIMEOUT_ELSEWHERE - TICK)
    assert (rig.phase, process.signals) == (Phase.STARTING, [])
    await rig.wait(3 * TICK)
    assert rig.phase is Phase.HUNG


async def test_an_engine_says_itself_why_it_starts_nothing(rig: Rig) -> None:
    """Not in the words of what lies beneath, from which nobody sees whose connection was refused."""
    error = EngineError("the engine does not answer")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    rig.fleet.start(SPEC)
    await settle()
    await rig.launcher.answer(error)
    assert rig.slot.last_exit == "could not be started: the engine does not answer"


async def test_a_worker_elsewhere_hears_that_its_supervisor_lives_while_it_commands(rig: Rig) -> None:
    rig.launcher.remote = True
    await rig.run()
    (welcome,) = rig.welcomes()
    assert (welcome.reports, welcome.beats, len(welcome.supervisor)) == (True, True, 16)
    for said, commands in ((5, True), (0, False), (5, True)):
        rig.commands = commands
        rig.sent.clear()
        await rig.wait(5 * BEAT, beats=True)
        assert rig.messages(SupervisorBeat, rig.slot.instance) == said


async def test_on_one_machine_the_kernel_says_that_it_lives(rig: Rig) -> None:
    await rig.run()
    await rig.wait(5 * BEAT, beats=True)
    assert rig.messages(SupervisorBeat) == 0
    assert [(one.reports, one.beats) for one in rig.welcomes()] == [(True, False)]
