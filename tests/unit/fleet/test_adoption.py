"""Workers that another supervisor left: taken over when it is surely they, and left alone or sent away when not."""

from __future__ import annotations

import pytest

from relay_common import protocol
from relay_common.protocol import WorkerState
from relay_supervisor.fleet.fleet import TICK
from relay_supervisor.fleet.keeper import ADOPT_TIMEOUT, HELLO_TIMEOUT
from relay_supervisor.fleet.slot import Phase
from tests.unit.fleet.scripted import SPEC, Process, Rig, settle

PID, STARTED = 300, 70_000
NO_DESCRIPTOR = OSError(24, "Too many open files")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    assert rig.fleet.left({"cam.old": Process(PID, STARTED).ref}) == ["cam.old"]
    return rig


def hello(rig: Rig, instance: str = "cam.old") -> None:
    rig.hello(instance, state=WorkerState.LIVE)


async def test_a_survivor_is_watched_at_once_and_ready_when_it_speaks(rig: Rig) -> None:
    process = rig.launcher.adoptable = Process(PID, STARTED)
    assert rig.fleet.expect(SPEC, "cam.old")
    assert rig.slot.running
    await rig.wait(HELLO_TIMEOUT - 1.0)
    assert process.signals == [], "it has to find its new supervisor first"
    hello(rig)
    assert rig.told == [("ready", "cam.old")]


async def test_a_survivor_whose_hello_came_too_early_says_it_again_and_is_sent_nothing_until_then(rig: Rig) -> None:
    """What it plays is not known before: told to play its stream once more it would connect to the camera anew."""
    rig.launcher.adoptable = Process(PID, STARTED)
    hello(rig)
    assert rig.fleet.expect(SPEC, "cam.old")
    assert rig.messages(protocol.Identify, "cam.old") == 1
    play = protocol.Play(generation=7, protocol=protocol.Protocol.RTSP, url="rtsps://camera", expires_at=1.0)
    assert not rig.fleet.send("cam", play)
    assert rig.messages(protocol.Play) == 0
    hello(rig)
    assert rig.told == [("ready", "cam.old")]
    assert rig.fleet.send("cam", play)


async def test_a_worker_that_no_supervisor_left_is_not_expected(rig: Rig) -> None:
    process = rig.launcher.adoptable = Process(PID, STARTED)
    assert not rig.fleet.expect(SPEC, "cam.other")
    assert (rig.fleet.slot("cam"), process.signals) == (None, [])


async def test_a_survivor_that_ended_meanwhile_is_not_expected(rig: Rig) -> None:
    rig.launcher.adoptable = None
    assert not rig.fleet.expect(SPEC, "cam.old")


async def test_a_survivor_that_cannot_be_watched_yet_is_adopted_at_its_hello(rig: Rig) -> None:
    rig.launcher.adoptable = NO_DESCRIPTOR
    assert rig.fleet.expect(SPEC, "cam.old")
    assert (rig.phase, rig.slot.running) == (Phase.BACKOFF, False)
    hello(rig)
    assert rig.phase is Phase.BACKOFF, "nothing is said to run that nobody watches"
    rig.launcher.adoptable = Process(PID, STARTED)
    hello(rig)
    assert rig.slot.running
    assert rig.told == [("ready", "cam.old")]
    assert rig.launcher.specs == []


async def test_a_silent_survivor_is_watched_as_soon_as_that_is_possible_and_replaced_if_it_hangs(rig: Rig) -> None:
    rig.launcher.adoptable = NO_DESCRIPTOR
    assert rig.fleet.expect(SPEC, "cam.old")
    await rig.wait(3 * ADOPT_TIMEOUT)
    assert (rig.phase, rig.launcher.specs) == (Phase.BACKOFF, []), "two workers would share one stream"
    process = rig.launcher.adoptable = Process(PID, STARTED)
    await rig.wait(ADOPT_TIMEOUT + TICK)
    assert rig.slot.running
    await rig.wait(HELLO_TIMEOUT + TICK)
    assert rig.phase is Phase.HUNG
    assert process.signals


async def test_a_survivor_that_ends_before_it_could_be_watched_is_followed_by_a_new_worker(rig: Rig) -> None:
    rig.launcher.adoptable = NO_DESCRIPTOR
    assert rig.fleet.expect(SPEC, "cam.old")
    rig.launcher.adoptable = None
    await rig.wait(ADOPT_TIMEOUT - TICK)
    assert rig.launcher.specs == []
    await rig.wait(2 * TICK)
    assert len(rig.launcher.specs) == 1


async def test_a_stranger_is_asked_and_left_alone_until_all_cameras_are_known(rig: Rig) -> None:
    rig.fleet.on_message("cam.old", protocol.Heartbeat(state=WorkerState.LIVE))
    assert rig.messages(protocol.Identify, "cam.old") == 1
    hello(rig)
    assert rig.messages(protocol.Stop) == 0
    rig.fleet.cameras_known = True
    hello(rig)
    assert rig.messages(protocol.Stop, "cam.old") == 1


@pytest.mark.parametrize("started", [STARTED, STARTED + 1], ids=["lives", "has ended"])
async def test_a_stranger_takes_an_empty_place_if_an_earlier_supervisor_left_it(rig: Rig, started: int) -> None:
    for _ in range(2):  # into backoff
        process = await rig.launch() if not rig.launcher.specs else await rig.launcher.answer()
        process.end(1)
        await settle()
    rig.told.clear()
    rig.launcher.adoptable = Process(PID, started)
    hello(rig, "cam.unknown")
    assert (rig.slot.running, rig.messages(protocol.Stop, "cam.unknown")) == (False, 1)
    hello(rig)
    assert rig.slot.running is (started == STARTED)
    assert rig.messages(protocol.Stop, "cam.old") == (started != STARTED)


async def test_a_stranger_for_a_place_that_is_taken_is_sent_away(rig: Rig) -> None:
    await rig.run()
    rig.launcher.adoptable = Process(PID, STARTED)
    hello(rig)
    assert rig.messages(protocol.Stop, "cam.old") == 1
    assert rig.slot.instance != "cam.old"


async def test_an_adopted_worker_that_ends_is_followed(rig: Rig) -> None:
    process = rig.launcher.adoptable = Process(PID, STARTED)
    assert rig.fleet.expect(SPEC, "cam.old")
    process.end()
    await settle()
    assert rig.phase is Phase.STARTING
