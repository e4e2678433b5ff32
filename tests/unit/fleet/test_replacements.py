"""A worker that is replaced while it works: every order in which the two of them speak and end."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest

from relay_common import protocol
from relay_supervisor.cameras.status import _worker
from relay_supervisor.fleet.fleet import OVER_LIMIT, REPLACE_PAUSE
from relay_supervisor.fleet.keeper import HELLO_TIMEOUT
from relay_supervisor.fleet.replacement import REPLACEMENT_TABLE, PairEvent, PairState
from relay_supervisor.fleet.slot import Phase
from tests.unit.fleet.scripted import SPEC, Process, Rig, settle


@pytest.fixture
def rig() -> Rig:
    return Rig(memory_limit=200 << 20)


async def replace(rig: Rig) -> tuple[Process, Process]:
    """A running worker, and its successor that has not said hello yet."""
    old = await rig.run()
    rig.fleet.replace("cam", "a test")
    await settle()
    return old, await rig.launcher.answer()


async def test_the_successor_takes_over_when_it_is_up_and_the_other_has_ended(rig: Rig) -> None:
    old, new = await replace(rig)
    first = rig.slot
    rig.fleet.replace("cam", "once more")
    await settle()
    assert len(rig.launcher.specs) == 2, "one replacement at a time"
    rig.hello()
    assert (rig.slot, first.phase, rig.messages(protocol.Stop, first.instance)) == (first, Phase.STOPPING, 1)
    rig.hello()
    assert rig.messages(protocol.Stop, first.instance) == 2
    old.end()
    assert (rig.slot.process, rig.slot.running, rig.slot.replacement) == (new, True, None)
    assert [what for what, _ in rig.told] == ["ready", "gone", "ready"]
    assert rig.told[1] == ("gone", "a test")
    assert (rig.slot.last_exit, rig.slot.policy.restarts) == ("a test", 1)


async def test_a_successor_that_ends_first_changes_nothing(rig: Rig) -> None:
    old, new = await replace(rig)
    first = rig.slot
    new.end(1)
    await rig.wait(30.0, beats=True)
    assert (rig.slot, first.running, first.replacement, old.signals) == (first, True, None, [])
    assert len(rig.launcher.specs) == 2


@pytest.mark.parametrize("error", [OSError("no room"), MemoryError()], ids=["OSError", "MemoryError"])
async def test_a_successor_that_cannot_be_started_changes_nothing(rig: Rig, error: Exception) -> None:
    await rig.run()
    first = rig.slot
    rig.fleet.replace("cam", "a test")
    await settle()
    await rig.launcher.answer(error)
    assert (rig.slot, first.running, first.replacement) == (first, True, None)


async def test_a_successor_that_says_nothing_is_taken_down_and_changes_nothing(rig: Rig) -> None:
    old, new = await replace(rig)
    await rig.wait(HELLO_TIMEOUT + 3.0, beats=True)
    assert len(new.signals) >= 2
    new.end(-9)
    assert (rig.slot.process, rig.slot.running, rig.slot.replacement) == (old, True, None)


async def test_a_worker_that_dies_while_its_successor_prepares_is_followed_by_it_alone(rig: Rig) -> None:
    old, new = await replace(rig)
    old.end(-11)
    await rig.wait(5.0)
    assert (rig.slot.process, rig.phase, len(rig.launcher.specs)) == (new, Phase.STARTING, 2)
    rig.hello()
    assert [what for what, _ in rig.told] == ["ready", "gone", "ready"]


async def test_a_successor_that_dies_while_the_other_stops_is_followed_by_a_third(rig: Rig) -> None:
    old, new = await replace(rig)
    rig.hello()
    new.end(-11)
    assert rig.phase is Phase.STOPPING
    old.end()
    await settle()
    assert (rig.phase, len(rig.launcher.specs)) == (Phase.STARTING, 3)


@pytest.mark.parametrize("up", [False, True], ids=["preparing", "handing over"])
@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("again", [False, True], ids=["stopped", "wanted again"])
async def test_stopping_ends_both(rig: Rig, up: bool, first: str, again: bool) -> None:
    old, new = await replace(rig)
    if up:
        rig.hello()
    rig.fleet.stop("cam", "a test")
    if again:
        rig.fleet.start(SPEC)
    for process in (old, new) if first == "old" else (new, old):
        process.end()
        await settle()
    assert rig.phase is (Phase.STARTING if again else Phase.ABSENT)
    assert (rig.slot.replacement, len(rig.launcher.specs)) == (None, 2 + again)


async def test_only_a_lasting_excess_of_memory_replaces_a_worker_and_not_too_often(rig: Rig) -> None:
    old = await rig.run()
    for _ in range(3):
        for _ in range(OVER_LIMIT - 1):
            rig.report(201)
        rig.report(199)
    await settle()
    assert len(rig.launcher.specs) == 1
    for _ in range(OVER_LIMIT):
        rig.report(201)
    await settle()
    assert len(rig.launcher.specs) == 2
    assert rig.slot.last_exit == "memory of 201 MiB, over its limit of 200"
    await rig.launcher.answer()
    rig.hello()
    old.end()
    for _ in range(OVER_LIMIT):
        rig.report(300)
    assert rig.slot.replacement is None, "it was replaced just now"
    await rig.wait(REPLACE_PAUSE, beats=True)
    rig.report(300)
    assert rig.slot.replacement is not None


async def test_without_a_limit_memory_is_nobodys_business() -> None:
    rig = Rig()
    await rig.run()
    for _ in range(OVER_LIMIT):
        rig.report(1 << 20)
    assert rig.slot.replacement is None


def test_both_ends_of_a_pair_are_ends() -> None:
    for state in (PairState.PROMOTED, PairState.DROPPED):
        assert REPLACEMENT_TABLE.allowed(state) == []
    for state in (PairState.PREPARING, PairState.HANDING_OVER):
        assert REPLACEMENT_TABLE.allowed(state) == list(PairEvent)


async def test_a_stream_at_a_port_that_a_worker_may_not_connect_to_waits_for_one_that_may(rig: Rig) -> None:
    assert rig.fleet.permit("cam", 443), "no worker, nothing to permit"
    await rig.run()
    assert rig.fleet.permit("cam", 443), "it may connect to any"
    rig.fleet.start(dataclasses.replace(SPEC, tcp_ports=(443,)))
    rig.hello(tcp_ports=[53, 443])
    assert rig.fleet.permit("cam", 443)
    assert not rig.fleet.permit("cam", 8554)
    await settle()
    assert rig.launcher.specs[-1].tcp_ports == (443, 8554)
    assert not rig.fleet.permit("cam", 8554), "its successor is on the way"
    first = rig.slot
    await rig.launcher.answer()
    rig.hello(tcp_ports=[53, 443, 8554])
    assert first.process is not None
    cast("Process", first.process).end()
    assert rig.fleet.permit("cam", 8554)
    assert ("gone", "stream at TCP port 8554, to which its confinement allows no connection") in rig.told


async def test_a_worker_that_still_may_not_connect_is_not_replaced_again(rig: Rig) -> None:
    rig.fleet.start(dataclasses.replace(SPEC, tcp_ports=(443, 8554)))
    await settle()
    await rig.launcher.answer()
    rig.hello(tcp_ports=[53, 443])
    assert rig.fleet.permit("cam", 8554)
    await settle()
    assert len(rig.launcher.specs) == 1


async def test_what_confines_workers_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await rig.run()
    for words in ("", "Landlock ABI 7", "Landlock ABI 7", "none: the kernel has no Landlock"):
        rig.hello(confinement=words)
    said = [(record.levelname, record.getMessage()) for record in caplog.records if "confine" in record.getMessage()]
    assert said == [
        ("INFO", "confinement of workers: Landlock ABI 7"),
        ("WARNING", "confinement of workers: none: the kernel has no Landlock"),
    ]


async def test_how_the_shared_objects_are_is_said_once_and_in_the_status(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rig.run()
    for words in ("", "immortal", "immortal"):
        rig.hello(immortal_objects=words)
    said = [record.getMessage() for record in caplog.records if "workers share" in record.getMessage()]
    assert said == ["objects that workers share: immortal"]
    assert _worker(rig.slot, rig.clock.now()).immortal_objects == "immortal"


async def test_whether_a_workers_life_was_rehearsed_is_said_once_and_in_the_status(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rig.run()
    for words in ("", "rehearsed", "rehearsed", "not rehearsed: it hung for 8 s"):
        rig.hello(rehearsal=words)
    said = [(record.levelname, record.getMessage()) for record in caplog.records if "rehearsed" in record.getMessage()]
    assert said == [
        ("INFO", "a worker's life before the first one is started: rehearsed"),
        ("WARNING", "a worker's life before the first one is started: not rehearsed: it hung for 8 s"),
    ]
    assert _worker(rig.slot, rig.clock.now()).rehearsal == "not rehearsed: it hung for 8 s"
