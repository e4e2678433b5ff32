"""What the director tells leases and the store, with workers and publications that do nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay_common.causes import Cause, RestartCause
from relay_common.clock import ManualClock
from relay_common.config import CamerasConfig
from relay_common.errors import RelayError, Remedy, UnknownCamera
from relay_common.proc import process_ref, ref_of, start_ticks
from relay_common.protocol import PROTOCOL, Hello, Play, Protocol, SourceFailed, Stage, WorkerState
from relay_common.secrets import Secret
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.processes.fork_server import ForkServerLauncher
from relay_supervisor.google.leases.effects import Granted, NotExtended, TraitsRead
from relay_supervisor.google.models import Device, Listing, LiveStream
from relay_supervisor.state.store import SavedWorker, Store


def device(name: str, protocol: Protocol = Protocol.RTSP) -> Device:
    return Device(f"enterprises/p/devices/{name}", name, "CAMERA", name.title(), (protocol,))


class Leases:
    """Takes what the director says of one account's cameras."""

    def __init__(self) -> None:
        self.remembered: list[Device] = []
        self.seen: list[str] = []
        self.wanted: dict[str, bool] = {}
        self.held: Granted | None = None
        self.failed: list[tuple[int, bool]] = []

    def media_failed(self, camera: str, generation: int, why: str, cause: Cause, *, bereft: bool) -> None:
        self.failed.append((generation, bereft))

    def current(self, camera: str) -> Granted | None:
        return self.held

    def device_seen(self, camera: str, device: Device) -> None:
        self.seen.append(device.display_name)

    def want(self, camera: str, device: Device, *, on_demand: bool) -> None:
        self.wanted[camera] = on_demand

    def remember(self, devices: list[Device]) -> None:
        self.remembered = devices


class Fleet:
    """Adopts workers of an earlier supervisor while `adopts`."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[tuple[str, str]] = []
        self.adopts = True
        self.sent: list[Any] = []
        self.lost, self.contested_for = False, 4.5
        self.inherited: list[tuple[str, float]] = []
        self.keyring = Keyring()

    def listen(self, listener: Any) -> None:
        pass

    def send(self, camera: str, message: Any) -> bool:
        self.sent.append(message)
        return False

    def contested(self, camera: str) -> float:
        return self.contested_for

    def inherit(self, camera: str, seconds: float) -> None:
        self.inherited.append((camera, seconds))

    def lost_lately(self, camera: str) -> bool:
        return self.lost

    def permit(self, camera: str, port: int) -> bool:
        return True

    def ref(self, instance: str) -> str:
        return ""

    def start(self, spec: Any) -> None:
        self.started.append(spec.camera)

    def stop(self, camera: str, reason: str) -> Any:
        self.stopped.append((camera, reason))
        return asyncio.get_running_loop().create_future()

    def expect(self, spec: Any, instance: str) -> bool:
        return self.adopts

    def left(self, refs: dict[str, str]) -> list[str]:
        return ForkServerLauncher(Path("/nonexistent")).living(refs)


def saved(camera: str, instance: str, pid: int, started: int) -> SavedWorker:
    return SavedWorker(instance, camera, process_ref(pid, started))


class Sinks:
    """None at all."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def listen(self, listener: Any) -> None:
        pass

    def targets(self, *_: Any) -> list[Any]:
        return []

    def find(self, sink: str) -> None:
        pass


class World:
    """A director with its parts."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = Store(directory / "relay.db", self.clock, boot="boot").open()
        self.registry = Registry(CamerasConfig())
        self.leases, self.fleet = Leases(), Fleet()
        self.director = Director(
            self.registry,
            [SimpleNamespace(leases=self.leases)],  # type: ignore[list-item]
            Sinks(),  # type: ignore[arg-type]
            self.fleet,  # type: ignore[arg-type]
            self.store,
            EventHub(self.clock, boot="b"),
            lambda camera: SimpleNamespace(camera=camera.id),  # type: ignore[arg-type,return-value]
            self.clock,
        )
        self.director.load()

    def camera(self, name: str) -> str:
        return next(camera.id for camera in self.registry if camera.name == name)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    return lambda: World(tmp_path)


async def test_parked_cameras_are_tried_again_for_what_a_listing_shows_and_nothing_else(
    make: Callable[[], World],
) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door"), device("yard"), device("attic")]))
    world.director.reconcile()
    assert world.leases.seen == []
    listing = Listing([device("door")], frozenset({device("yard").name}))
    world.registry.discovered(0, listing)
    world.director.listed(1, listing)
    assert world.leases.seen == []
    world.director.listed(0, listing)
    assert world.leases.seen == ["Door"]
    world.director.reconcile()
    assert world.leases.seen == ["Door"]


async def test_a_doorbell_that_nobody_watches_is_let_go_as_soon_as_it_is_known_for_one(
    make: Callable[[], World],
) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door"), device("yard")]))
    world.director.reconcile()
    door, yard = world.camera("Door"), world.camera("Yard")
    world.director.demand.watched([camera for camera in world.registry if camera.id == yard], world.clock.now())
    for camera in (door, yard):
        world.director.lease_effect(NotExtended(camera, world.clock.now() + 1800.0))
    await asyncio.sleep(0)
    assert world.fleet.stopped == [(door, "on demand, nobody watches")]
    assert list(world.director.running) == [yard]
    assert world.leases.wanted[yard], "it goes on while it is watched, after the others"
    await world.director.close()


async def test_workers_that_died_while_no_supervisor_ran_are_forgotten(make: Callable[[], World]) -> None:
    first, here = make(), os.getpid()
    alive = saved("door", "alive", here, start_ticks(here))
    for worker in (alive, saved("door", "late", here, 1), saved("yard", "dead", 2**22 + 1, 5), saved("x", "odd", 0, 0)):
        first.store.save_worker(worker)
    first.store.close()

    second = make()
    assert list(second.director.survivors) == ["door"], "no other wakes a camera on demand"
    second.store.close()
    assert make().store.workers() == [alive]


async def test_what_a_worker_is_known_by_outlives_the_supervisor(make: Callable[[], World]) -> None:
    """Its key from the moment its process was started, before any hello; its process if it has no key."""
    first, here = make(), os.getpid()
    keys = first.fleet.keyring.issue("keyed", "door")
    first.director.worker_started("door", "keyed", ref_of(here))
    first.store.save_worker(saved("yard", "unkeyed", here, start_ticks(here)))
    first.store.save_worker(SavedWorker("dead", "shed", process_ref(2**22 + 1, 5), key="d" * 40))
    first.store.close()

    keyring = make().fleet.keyring
    by_key, by_process = keyring.member(keys.public), keyring.member(ref_of(here))
    assert by_key is not None
    assert by_process is not None
    assert (by_key.instance, by_key.camera, by_key.keyed) == ("keyed", "door", True)
    assert (by_process.instance, by_process.camera, by_process.keyed) == ("unkeyed", "yard", False)
    assert keyring.named("dead") is None


async def test_of_a_worker_and_its_replacement_the_older_is_adopted_and_both_may_speak(
    make: Callable[[], World],
) -> None:
    first, here = make(), os.getpid()
    parent = os.getppid()  # started before this process
    for instance, pid in (("old", parent), ("new", here)):
        first.store.save_worker(SavedWorker(instance, "door", ref_of(pid), key=instance[0] * 40))
    first.store.close()

    second = make()
    assert second.director.instances_left == {"old", "new"}
    assert second.director._survivors["door"].instance == "old"
    assert second.fleet.keyring.named("old") is not None
    assert second.fleet.keyring.named("new") is not None


@pytest.mark.parametrize("adopts", [True, False])
async def test_a_worker_that_cannot_be_adopted_is_forgotten(make: Callable[[], World], adopts: bool) -> None:
    first, here = make(), os.getpid()
    first.registry.restored(0, [device("door")])
    door = first.camera("Door")
    first.store.save_worker(saved(door, "left", here, start_ticks(here)))
    first.store.close()

    second = make()
    second.fleet.adopts = adopts
    second.registry.restored(0, [device("door")])
    second.director.reconcile()
    assert second.fleet.started == ([] if adopts else [door])
    second.store.close()
    assert len(make().store.workers()) == adopts


async def test_a_protocol_that_was_read_between_listings_is_remembered(make: Callable[[], World]) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door"), device("yard")]))
    world.director.reconcile()
    moved = device("door", Protocol.WEB_RTC)
    world.director.lease_effect(TraitsRead(world.camera("Door"), moved))
    assert world.leases.remembered == [moved, device("yard")]


async def test_a_stream_that_a_lost_worker_may_still_play_is_handed_on_as_contested_and_a_new_one_is_not(
    make: Callable[[], World],
) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door")]))
    world.director.reconcile()
    door = world.camera("Door")
    stream = LiveStream(Protocol.RTSP, Secret("token"), 300.0, 1e9, Secret("rtsps://host/x"))
    world.leases.held = Granted(door, 1, stream, 300.0)
    hello = Hello(protocol=PROTOCOL, instance="door.2", camera=door, pid=1, started=1, state=WorkerState.STARTING)
    world.director.worker_ready(door, hello)
    world.director.lease_effect(Granted(door, 2, stream, 300.0))
    world.fleet.contested_for = -1.5  # it may hold on to one that has ended
    world.director.worker_ready(door, hello)
    assert [one.contested for one in world.fleet.sent if isinstance(one, Play)] == [4.5, 0.0, -1.5]
    assert world.director._contested_until(door) == 0, "which is nothing to hand on"


async def test_the_next_supervisor_knows_for_how_long_a_camera_is_contested(make: Callable[[], World]) -> None:
    first = make()
    first.director.worker_gone("door", "door.1", "it hung", RestartCause.HUNG)
    first.store.close()
    second = make()
    assert second.fleet.inherited == [("door", pytest.approx(4.0, abs=0.5))], "though its successor was never there"
    second.director.worker_gone("door", "door.2", "it hung", RestartCause.HUNG)
    second.director.worker_started("door", "door.3", "elsewhere/door.3")
    second.store.close()
    third = make()
    assert third.fleet.inherited == [("door", pytest.approx(4.0, abs=0.5))], "with its successor, and once"


@pytest.mark.parametrize("lost", [False, True])
async def test_a_stream_whose_worker_was_lost_lately_is_said_to_be_bereft(
    make: Callable[[], World], lost: bool
) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door", Protocol.WEB_RTC)]))
    world.director.reconcile()
    door = world.camera("Door")
    world.fleet.lost = lost
    stream = LiveStream(Protocol.WEB_RTC, Secret("token"), 300.0, 1e9, answer_sdp=Secret("v=0"))
    world.leases.held = Granted(door, 1, stream, 300.0)
    hello = Hello(protocol=PROTOCOL, instance="door.2", camera=door, pid=1, started=1, state=WorkerState.STARTING)
    world.director.worker_ready(door, hello)
    world.director.worker_message(
        door, SourceFailed(generation=2, stage=Stage.DESCRIBE, remedy="regenerate", reason="403")
    )
    assert world.leases.failed == [(1, lost), (2, lost)]


async def test_a_camera_that_does_not_run_says_why_and_one_that_there_is_not_which_there_are(
    make: Callable[[], World],
) -> None:
    world = make()
    with pytest.raises(UnknownCamera, match="There is none yet"):
        world.director.find("door")
    world.registry.discovered(0, Listing([device("door"), device("yard")]))
    with pytest.raises(UnknownCamera, match=f"'none'.*{world.camera('Door')}"):
        world.director.find("none")
    with pytest.raises(RelayError, match=r"Door is not running\. On demand, nobody watches"):
        world.director.find(world.camera("Door"))
    world.director.reconcile()
    assert world.director.find(world.camera("Door")).name == "Door"
    world.registry.only = set()
    world.director.reconcile()
    with pytest.raises(RelayError, match="The relay is drained") as caught:
        await world.director.restart(world.camera("Door"))
    assert caught.value.remedy is Remedy.PARK
    await world.director.close()
