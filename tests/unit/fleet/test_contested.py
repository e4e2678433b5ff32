"""For how long a worker that was lost from sight may still be its camera's one client."""

from __future__ import annotations

import signal

import pytest

from relay_common import protocol
from relay_supervisor.fleet.ending import DUMP_TIME, TERM_TIME
from relay_supervisor.fleet.fleet import LATELY, TICK
from relay_supervisor.fleet.keeper import CONTESTED, SILENCE
from relay_supervisor.fleet.launcher import EnginePhase
from tests.unit.fleet.scripted import Process, Rig, settle

USR1, TERM, KILL = signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL
SAID_HUNG = SILENCE + 2 * TICK


async def hung(*, remote: bool) -> tuple[Rig, Process]:
    rig = Rig()
    rig.launcher.remote = remote
    process = await rig.run()
    await rig.wait(1.0, beats=True)
    await rig.wait(SAID_HUNG)
    return rig, process


async def test_one_whose_end_nobody_has_seen_may_live_for_ten_seconds_after_its_last_word() -> None:
    rig, process = await hung(remote=True)
    process.end(None)
    assert rig.fleet.contested("cam") == pytest.approx(CONTESTED - SAID_HUNG)
    await settle()
    await rig.launcher.answer()
    rig.hello()
    assert rig.fleet.contested("cam") == pytest.approx(CONTESTED - SAID_HUNG), "of the camera, whoever its worker is"
    await rig.wait(CONTESTED - SAID_HUNG, beats=True)
    assert rig.fleet.contested("cam") == 0.0
    assert rig.fleet.lost_lately("cam"), "what its stream does now may be due to that"
    await rig.wait(2.0, beats=True)
    assert rig.fleet.contested("cam") == pytest.approx(-2.0), "a successor that comes now may be refused as well"
    await rig.wait(CONTESTED, beats=True)
    assert rig.fleet.contested("cam") == 0.0, "nobody can come as late as that"
    await rig.wait(LATELY, beats=True)
    assert not rig.fleet.lost_lately("cam")


@pytest.mark.parametrize(("remote", "code"), [(True, -9), (True, 0), (False, None), (False, -9)])
async def test_one_that_has_ended_for_certain_is_no_client(remote: bool, code: int | None) -> None:
    """On one machine the kernel says so, also of a process whose exit code only its parent has."""
    rig, process = await hung(remote=remote)
    process.end(code)
    assert rig.fleet.contested("cam") == 0.0
    assert not rig.fleet.lost_lately("cam")


async def test_one_that_is_given_up_may_live() -> None:
    rig, process = await hung(remote=True)
    await rig.wait(60.0)
    assert process.forgotten
    assert rig.slot.contested_until > 0.0
    assert rig.fleet.contested("cam") <= 0.0, "it was silent for longer than that"


async def test_the_successor_of_one_that_is_lost_while_it_is_replaced_is_told_as_well() -> None:
    rig = Rig()
    rig.launcher.remote = True
    old = await rig.run()
    await rig.wait(1.0, beats=True)
    old.engine = EnginePhase.ENDING
    await rig.wait(TICK)
    await rig.launcher.answer()
    rig.hello()
    old.end(None)
    assert rig.fleet.contested("cam") == pytest.approx(CONTESTED - TICK)


async def test_a_camera_that_never_had_a_worker_is_nobodys() -> None:
    assert Rig().fleet.contested("cam") == 0.0
    assert not Rig().fleet.lost_lately("cam")


@pytest.mark.parametrize("remote", [False, True])
async def test_a_hung_worker_elsewhere_is_told_to_stop_for_its_engine_may_not_reach_it(remote: bool) -> None:
    rig, _ = await hung(remote=remote)
    await rig.wait(DUMP_TIME + TERM_TIME)
    assert rig.messages(protocol.Stop) == int(remote)


@pytest.mark.parametrize("remote", [False, True])
async def test_the_engine_of_a_hung_worker_ends_it_at_once_and_takes_its_own_time(remote: bool) -> None:
    rig, process = await hung(remote=remote)
    await rig.wait(TICK)
    assert (KILL in process.signals) is remote
    await rig.wait(DUMP_TIME + TERM_TIME + TICK)
    assert process.signals == ([TERM, KILL] if remote else [USR1, TERM, KILL])


async def test_what_an_earlier_supervisor_knew_counts_for_the_next_one_and_never_for_longer_than_it_may() -> None:
    rig = Rig()
    rig.fleet.inherit("cam", 6.0)
    rig.fleet.inherit("cam", -300.0)
    rig.fleet.inherit("other", 3600.0)  # the clock of that supervisor's machine was another one
    rig.fleet.inherit("third", -1.0)
    assert [rig.fleet.contested(one) for one in ("cam", "other", "third")] == [pytest.approx(6.0), CONTESTED, 0.0]
    await rig.run()
    await rig.wait(5.0, beats=True)
    assert rig.fleet.contested("cam") == pytest.approx(1.0), "whoever its worker is"
    await rig.wait(1.5, beats=True)
    assert rig.fleet.contested("cam") == pytest.approx(-0.5)
