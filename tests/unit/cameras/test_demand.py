"""Cameras on demand: woken when somebody asks, let go after a while without anybody."""

from __future__ import annotations

from typing import Literal

import pytest

from relay_common.config import CameraSettings
from relay_common.protocol import Protocol
from relay_supervisor.cameras.demand import OnDemand
from relay_supervisor.cameras.reconcile import reconcile
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.google.models import Device


def camera(name: str, mode: Literal["auto", "always", "on_demand"] = "on_demand", idle_after: float = 30.0) -> Camera:
    device = Device(f"enterprises/p/devices/{name}", name, "DOORBELL", name, (Protocol.WEB_RTC,))
    return Camera(name, 0, device, CameraSettings(mode=mode, idle_after=idle_after))


def test_a_camera_is_awake_from_the_first_question_until_its_idle_time_has_passed() -> None:
    demand, door, yard = OnDemand(), camera("door"), camera("yard", idle_after=100.0)
    assert demand.idle(door)
    assert demand.watched([door, yard], 0.0)
    assert not demand.watched([door], 20.0), "it was awake already"
    assert not demand.let_go([door, yard], 49.9)
    assert not demand.idle(door)
    assert demand.let_go([door, yard], 50.0)
    assert demand.idle(door)
    assert not demand.idle(yard)
    assert demand.watched([door], 51.0)


def test_a_camera_that_is_always_on_is_never_idle() -> None:
    demand, door = OnDemand(), camera("door", "always")
    demand.not_extendable("door", 1800.0)
    assert not demand.idle(door)
    assert not demand.watched([door], 0.0)
    assert not demand.let_go([door], 1e6)
    assert not demand.idle(door)


def test_auto_means_always_until_google_refuses_to_extend() -> None:
    demand, door = OnDemand(), camera("door", "auto")
    assert not demand.idle(door)
    demand.watched([door], 0.0)
    demand.not_extendable("door", 1800.0)
    assert not demand.idle(door), "somebody watches it"
    assert demand.let_go([door], 30.0)
    assert demand.idle(door)


def test_a_refusal_to_extend_is_forgotten_at_its_age() -> None:
    demand, door = OnDemand(), camera("door", "auto")
    demand.not_extendable("door", 1800.0)
    assert demand.idle(door)
    assert not demand.let_go([door], 1799.0)
    assert demand.let_go([door], 1800.0), "it runs again, to be tried again"
    assert not demand.on_demand(door)


def test_what_was_awake_before_a_restart_stays_so_for_its_idle_time() -> None:
    demand, door = OnDemand(), camera("door")
    demand.resumed(["door", "gone"], 10.0)
    assert not demand.let_go([], 12.0), "not discovered yet"
    assert not demand.idle(door)
    assert demand.let_go([door], 40.0)
    assert demand.idle(door)
    demand.let_go([], 80.0)
    assert demand._asked_at == {}


@pytest.mark.parametrize(("changed", "restart"), [({"idle_after": 5.0}, False), ({"audio": False}, True)])
def test_settings_that_do_not_concern_the_worker_do_not_restart_it(changed: dict[str, float], restart: bool) -> None:
    before = camera("door")
    after = Camera("door", 0, before.device, CameraSettings(**({"mode": "on_demand", "idle_after": 30.0} | changed)))  # type: ignore[arg-type]
    (action,) = reconcile({"door": after}, {"door": before})
    assert action.restart is restart  # type: ignore[union-attr]
