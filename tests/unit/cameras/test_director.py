"""What the director tells leases and the store, with workers and publications that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.config import CamerasConfig
from relay_common.protocol import Protocol
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.http.events import EventHub
from relay_supervisor.leases.effects import TraitsRead
from relay_supervisor.leases.store import Store
from relay_supervisor.nest.models import Device, Listing


def device(name: str, protocol: Protocol = Protocol.RTSP) -> Device:
    return Device(f"enterprises/p/devices/{name}", name, "CAMERA", name.title(), (protocol,))


class Leases:
    """Takes what the director says of one account's cameras."""

    def __init__(self) -> None:
        self.remembered: list[Device] = []
        self.seen: list[str] = []

    def device_seen(self, camera: str, device: Device) -> None:
        self.seen.append(device.display_name)

    def want(self, camera: str, device: Device, *, on_demand: bool) -> None: ...

    def remember(self, devices: list[Device]) -> None:
        self.remembered = devices


class Fleet:
    """Workers of an earlier supervisor are adopted or not, as `expect` was told."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, spec: Any) -> None:
        self.started.append(spec.camera)

    def expect(self, spec: Any, instance: str, pid: int, started: int) -> bool:
        return False


class World:
    """A director with its parts."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = Store(directory / "relay.db", self.clock, boot="boot")
        self.registry = Registry(CamerasConfig())
        self.leases, self.fleet = Leases(), Fleet()
        self.director = Director(
            self.registry,
            [SimpleNamespace(leases=self.leases)],  # type: ignore[list-item]
            SimpleNamespace(),  # type: ignore[arg-type]
            self.store,
            EventHub(self.clock, boot="b"),
            lambda camera: SimpleNamespace(camera=camera.id),  # type: ignore[arg-type,return-value]
            self.clock.wall,
        )
        self.director.fleet = self.fleet  # type: ignore[assignment]

    def camera(self, name: str) -> str:
        return next(camera.id for camera in self.registry if camera.name == name)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    return lambda: World(tmp_path)


async def test_a_protocol_that_was_read_between_listings_is_remembered(make: Callable[[], World]) -> None:
    world = make()
    world.registry.discovered(0, Listing([device("door"), device("yard")]))
    world.director.reconcile()
    moved = device("door", Protocol.WEB_RTC)
    world.director.lease_effect(TraitsRead(world.camera("Door"), moved))
    assert world.leases.remembered == [moved, device("yard")]
