"""Every edge of a slot: each launch error, and each order of hello, exit, silence and stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from relay_common import protocol
from relay_supervisor.fleet.ending import DUMP_TIME, GIVE_UP_AFTER, TERM_TIME
from relay_supervisor.fleet.fleet import TICK
from relay_supervisor.fleet.keeper import HELLO_TIMEOUT, LAUNCH_TIMEOUT, MOST_QUEUED, SILENCE, STOP_TIME
from relay_supervisor.fleet.restart import UNSTARTED_WAIT
from relay_supervisor.fleet.slot import Phase
from tests.unit.fleet.scripted import SPEC, Process, Rig, settle

USR1, TERM, KILL = signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_worker_runs_once_it_has_said_hello(rig: Rig) -> None:
    process = await rig.launch()
    assert (rig.phase, rig.slot.running) == (Phase.STARTING, False)
    rig.hello()
    assert rig.slot.running
    assert rig.told == [("ready", rig.slot.instance)]
    assert rig.messages(protocol.Welcome, rig.slot.instance) == 1
    rig.hello()  # the bus came back
    assert rig.phase is Phase.RUNNING
    process.exit = None
    process.forgotten = True
    assert not rig.slot.running, "nobody sees it live any more"


async def test_a_hello_may_overtake_the_launchers_answer(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.hello()
    assert (rig.phase, rig.slot.running) == (Phase.RUNNING, False)
    assert (rig.started, rig.told) == ([], []), "a stream that it is given would be lost with this supervisor"
    process = await rig.launcher.answer()
    assert rig.slot.running
    assert (rig.started, rig.told) == ([process.ref], [("ready", rig.slot.instance)])
    rig.hello()
    assert len(rig.told) == 2


async def test_workers_of_another_version_are_ended_and_follow_each_other_ever_later(rig: Rig) -> None:
    """They may come from an image of another release: without pauses that would be a storm of launches."""
    process, waited = await rig.launch(), []
    for number in range(1, 6):
        for _ in range(2):
            rig.hello(protocol=protocol.PROTOCOL + 1)
        assert (rig.messages(protocol.Stop), rig.messages(protocol.Welcome)) == (number, 0)
        rig.fleet.on_message(rig.slot.instance, protocol.Goodbye(reason="asked to"))
        process.end(0)
        waited.append(max(0.0, rig.slot.next_start - rig.clock.now()))
        await rig.wait(waited[-1] + TICK)
        assert len(rig.launcher.specs) == number + 1, "it is tried again"
        process = await rig.launcher.answer()
    assert waited[0] == 0.0
    assert min(waited[2:]) > 20.0, "as after any deaths in a row"
    assert "it speaks version 2 of the bus, and this supervisor 1), 5th time in 10 minutes" in rig.slot.last_exit
    assert [what for what, _ in rig.told].count("ready") == 0


async def test_one_of_another_version_that_does_not_stop_is_made_to(rig: Rig) -> None:
    process = await rig.launch()
    rig.hello(protocol=protocol.PROTOCOL + 1)
    await rig.wait(STOP_TIME - TICK)
    assert process.signals == []
    await rig.wait(TERM_TIME + 3 * TICK)
    assert process.signals == [TERM, KILL]


async def test_one_of_another_version_that_is_not_watched_yet_is_ended_once_it_is(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.hello(protocol=protocol.PROTOCOL + 1)
    assert rig.messages(protocol.Stop) == 0
    await rig.launcher.answer()
    rig.hello(protocol=protocol.PROTOCOL + 1)
    assert (rig.phase, rig.messages(protocol.Stop)) == (Phase.HUNG, 1)


async def test_a_survivor_of_another_version_is_followed_at_once(rig: Rig) -> None:
    process = rig.launcher.adoptable = Process(300, 70_000)
    rig.fleet.left({"cam.old": process.ref})
    assert rig.fleet.expect(SPEC, "cam.old")
    rig.hello("cam.old", protocol=protocol.PROTOCOL - 1)
    process.end(0)
    await settle()
    assert len(rig.launcher.specs) == 1


async def test_a_worker_whose_launcher_fails_after_its_hello_is_started_again(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.hello()
    await rig.launcher.answer(OSError("no descriptor"))
    await rig.wait(LAUNCH_TIMEOUT)
    assert len(rig.launcher.specs) > 1


@pytest.mark.parametrize(
    "error",
    [OSError(11, "no room"), EOFError(), RuntimeError("can't start new thread"), MemoryError(), TimeoutError("late")],
    ids=lambda error: type(error).__name__,
)
async def test_a_worker_that_cannot_be_started_is_tried_again_whatever_the_error(rig: Rig, error: Exception) -> None:
    rig.fleet.start(SPEC)
    await settle()
    await rig.launcher.answer(error)
    await settle()
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 2), "the first restart is immediate"
    await rig.launcher.answer(error)
    assert rig.phase is Phase.BACKOFF
    assert rig.slot.last_exit.startswith("could not be started: ")
    assert rig.slot.process is None
    await rig.wait(rig.slot.next_start - rig.clock.now() - TICK)
    assert rig.phase is Phase.BACKOFF
    await rig.wait(2 * TICK)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 3)
    await rig.launcher.answer()
    rig.hello()
    assert rig.slot.running


async def test_what_cannot_be_started_for_minutes_is_started_soon_after_it_can(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.fleet.start(SPEC)
    for _ in range(40):
        await settle()
        await rig.launcher.answer(OSError(24, "Too many open files"))
        if rig.phase is Phase.BACKOFF:
            await rig.wait(UNSTARTED_WAIT + TICK)
        assert rig.phase is Phase.STARTING
    assert rig.slot.policy.degraded(rig.clock.now())
    assert len(caplog.records) <= 8, "it is said a few times, not every few seconds"
    process = await rig.launcher.answer()
    rig.hello()
    assert rig.slot.running
    assert not rig.slot.policy.degraded(rig.clock.now())
    assert (rig.slot.policy.restarts, process.signals) == (0, [])


async def test_a_launcher_that_never_answers_is_given_up_and_its_late_process_ended(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await rig.wait(LAUNCH_TIMEOUT - 1.0)
    assert len(rig.launcher.specs) == 1
    await rig.wait(2.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 2)
    late = await rig.launcher.answer()
    assert late.signals == [KILL]
    assert rig.slot.process is None
    process = await rig.launcher.answer()
    rig.hello()
    assert rig.slot.running
    assert process.signals == []


async def test_a_worker_that_dies_before_its_hello_is_started_again(rig: Rig) -> None:
    process = await rig.launch()
    process.end(1)
    await settle()
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 2)
    assert rig.told == [("gone", "exited with status 1 while starting")]


async def test_one_that_never_says_hello_is_taken_down(rig: Rig) -> None:
    process = await rig.launch()
    await rig.wait(HELLO_TIMEOUT)
    assert process.signals == []
    await rig.wait(2 * TICK)
    assert (rig.phase, process.signals) == (Phase.HUNG, [USR1])


async def test_a_silent_worker_is_hung_after_four_seconds_and_not_before(rig: Rig) -> None:
    process = await rig.run()
    await rig.wait(10.0, beats=True)
    await rig.wait(SILENCE)
    assert (SILENCE, rig.phase, process.signals) == (4.0, Phase.RUNNING, [])
    await rig.wait(TICK)
    assert (rig.phase, process.signals, rig.slot.running) == (Phase.HUNG, [USR1], False)
    assert rig.messages(protocol.DumpStacks) == 1, "asked for its stacks before SIGTERM"
    await rig.wait(DUMP_TIME + TICK)
    assert process.signals == [USR1, TERM]
    await rig.wait(TERM_TIME + TICK)
    assert process.signals == [USR1, TERM, KILL]
    process.end(-9)
    await settle()
    assert rig.told[-1] == ("gone", "hung while live, killed by SIGKILL")
    assert rig.phase is Phase.STARTING


@pytest.mark.parametrize("running", [False, True])
async def test_silence_does_not_count_while_a_worker_gets_no_processor(rig: Rig, running: bool) -> None:
    """Twenty workers that start on an overloaded machine were ended after 20 s, all of them, again and again."""
    process, timeout = (await rig.run(), SILENCE) if running else (await rig.launch(), HELLO_TIMEOUT)
    await rig.wait(timeout / 2 + TICK)
    for _ in range(round(MOST_QUEUED * timeout / TICK) - 1):
        process.starved += TICK
        await rig.wait(TICK)
    await rig.away(2.0)  # that the supervisor stood still, too, takes nothing back
    await rig.wait(TICK)
    assert process.signals == []
    await rig.wait(timeout / 2 - 2 * TICK)
    assert (rig.phase, process.signals) == (Phase.HUNG, [USR1]), "it has had its time"


async def test_a_worker_that_is_starved_for_ever_is_ended_all_the_same(rig: Rig) -> None:
    process = await rig.run()
    while not process.signals:
        process.starved += TICK
        await rig.wait(TICK)
        assert rig.clock.now() - rig.slot.seen_at <= (1 + MOST_QUEUED) * SILENCE + 2 * TICK


async def test_one_that_not_even_sigkill_ends_is_given_up(rig: Rig) -> None:
    process = await rig.run()
    await rig.wait(SILENCE + DUMP_TIME + TERM_TIME + GIVE_UP_AFTER + 3.0)
    assert process.signals.count(KILL) >= 5
    assert process.forgotten
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 2)
    assert rig.told[-1] == ("gone", "cannot be killed")


async def test_the_stacks_of_a_hung_worker_are_no_reason_to_leave_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    process = await rig.run()
    process.unreadable = OSError(24, "Too many open files")
    await rig.wait(SILENCE + DUMP_TIME + 4 * TICK)
    assert process.signals == [USR1, TERM]
    assert "Too many open files" in caplog.text


async def test_who_is_asked_to_stop_and_does_leaves_nothing(rig: Rig) -> None:
    process = await rig.run()
    ended = asyncio.ensure_future(rig.fleet.stop("cam", "a test"))  # type: ignore[arg-type]
    assert rig.messages(protocol.Stop) == 1
    process.end()
    await settle()
    assert ended.done()
    await rig.wait(300.0)
    assert (rig.phase, process.signals, len(rig.launcher.specs)) == (Phase.ABSENT, [], 1)
    assert rig.slot.last_exit == "exited with status 0"


async def test_who_is_asked_to_stop_and_does_not_is_signalled_harder_each_time(rig: Rig) -> None:
    process = await rig.run()
    rig.fleet.stop("cam", "a test", within=3.0)
    await rig.wait(3.0 - TICK)
    assert process.signals == []
    await rig.wait(2 * TICK)
    assert process.signals == [TERM]
    await rig.wait(TERM_TIME + TICK)
    assert process.signals == [TERM, KILL]
    await rig.wait(GIVE_UP_AFTER + TERM_TIME)
    assert (rig.phase, process.forgotten) == (Phase.ABSENT, True)


async def test_a_second_stop_may_only_hasten_the_end(rig: Rig) -> None:
    process = await rig.run()
    rig.fleet.stop("cam", "a test", within=30.0)
    rig.fleet.stop("cam", "in a hurry", within=1.0)
    rig.fleet.stop("cam", "at leisure", within=60.0)
    await rig.wait(1.0 + TICK)
    assert process.signals == [TERM]


async def test_one_stopped_while_it_is_launched_is_ended_when_it_appears(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.fleet.stop("cam", "a test")
    await rig.wait(10.0)
    assert rig.phase is Phase.STOPPING
    process = await rig.launcher.answer()
    await rig.wait(TICK)
    assert process.signals == [TERM]
    process.end(-15)
    await rig.wait(1.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.ABSENT, 1)


async def test_one_stopped_while_its_launcher_never_answers_is_absent_at_last(rig: Rig) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.fleet.stop("cam", "a test")
    await rig.wait(LAUNCH_TIMEOUT + 1.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.ABSENT, 1)
    assert (await rig.launcher.answer()).signals == [KILL]


@pytest.mark.parametrize("again", [False, True])
async def test_one_whose_launch_fails_while_it_stops(rig: Rig, again: bool) -> None:
    rig.fleet.start(SPEC)
    await settle()
    rig.fleet.stop("cam", "a test")
    if again:
        rig.fleet.start(SPEC)
    await rig.launcher.answer(OSError("no room"))
    await settle()
    assert (rig.phase, len(rig.launcher.specs)) == ((Phase.STARTING, 2) if again else (Phase.ABSENT, 1))


async def test_one_that_waits_to_be_started_again_is_stopped_at_once(rig: Rig) -> None:
    for _ in range(2):
        process = await rig.launch() if not rig.launcher.specs else await rig.launcher.answer()
        process.end(1)
        await settle()
    assert rig.phase is Phase.BACKOFF
    await rig.fleet.stop("cam", "a test")
    await rig.wait(60.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.ABSENT, 2)


async def test_a_hung_worker_that_is_stopped_gets_no_more_time(rig: Rig) -> None:
    process = await rig.run()
    await rig.wait(SILENCE + TICK)
    rig.fleet.stop("cam", "a test", within=30.0)
    await rig.wait(DUMP_TIME + TERM_TIME + 4 * TICK)
    assert process.signals == [USR1, TERM, KILL]
    process.end(-9)
    await rig.wait(60.0)
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.ABSENT, 1)


async def test_one_that_is_wanted_again_while_it_stops_is_started_again_without_a_fault(rig: Rig) -> None:
    process = await rig.run()
    rig.fleet.stop("cam", "a test")
    rig.fleet.start(SPEC)
    assert rig.phase is Phase.STOPPING
    process.end()
    await settle()
    assert (rig.phase, rig.slot.policy.restarts) == (Phase.STARTING, 0)


async def test_an_end_whose_notice_was_lost_is_seen_at_the_next_tick(rig: Rig) -> None:
    process = await rig.run()
    process.end(3, unseen=True)
    assert not rig.slot.running
    await rig.wait(TICK)
    assert rig.phase is Phase.STARTING


async def test_deaths_in_a_row_slow_restarts_down(rig: Rig) -> None:
    process = await rig.launch()
    for _ in range(3):
        process.end(1)
        await settle()
        if rig.phase is Phase.BACKOFF:
            await rig.wait(rig.slot.next_start - rig.clock.now() + TICK)
        process = await rig.launcher.answer()
    assert rig.slot.policy.degraded(rig.clock.now())


async def test_why_a_worker_ends_by_itself_is_part_of_its_exit(rig: Rig) -> None:
    process = await rig.run()
    rig.fleet.on_message(rig.slot.instance, protocol.Goodbye(reason="SIGTERM"))
    process.end(0)
    assert rig.told[-1] == ("gone", "exited with status 0 (SIGTERM)")


async def test_who_is_told_may_fail_and_the_fleet_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*said: object) -> None:
        raise ValueError("a listener failed")

    process = await rig.run()
    monkeypatch.setattr(rig, "worker_gone", fail)
    process.end(1, unseen=True)
    await rig.wait(TICK)
    assert rig.phase is Phase.STARTING


@pytest.mark.parametrize("leave", [lambda rig: rig.fleet.abandon()])
async def test_what_is_abandoned_is_neither_signalled_nor_followed(rig: Rig, leave: Callable[[Rig], None]) -> None:
    process = await rig.run()
    leave(rig)
    await rig.wait(60.0)
    assert (process.signals, process.forgotten, len(rig.launcher.specs)) == ([], True, 1)
