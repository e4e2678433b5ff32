"""From desired and actual to actions: nothing that did not change is touched."""

from __future__ import annotations

import dataclasses

import msgspec

from relay_common.config import CamerasConfig, CameraSettings
from relay_common.protocol import Protocol
from relay_supervisor.cameras.reconcile import StartCamera, StopCamera, UpdateCamera, reconcile
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.google.models import Device, Listing


def device(n: int, name: str = "", protocol: Protocol = Protocol.RTSP) -> Device:
    return Device(f"enterprises/p/devices/d{n}", f"d{n}", "CAMERA", name or f"Camera {n}", (protocol,))


def fleet(*devices: Device, config: CamerasConfig | None = None) -> dict[str, Camera]:
    registry = Registry(config or CamerasConfig())
    registry.discovered(0, Listing(list(devices)))
    return registry.desired()


def test_nothing_changed_means_nothing_to_do() -> None:
    assert reconcile(fleet(device(1), device(2)), fleet(device(1), device(2))) == []


def test_cameras_come_and_go_without_touching_the_rest() -> None:
    before, after = fleet(device(1), device(2)), fleet(device(2), device(3))
    actions = reconcile(after, before)
    assert [type(a) for a in actions] == [StopCamera, StartCamera]
    assert [a.camera.name for a in actions] == ["Camera 1", "Camera 3"]


def test_a_rename_keeps_the_identity_and_restarts_only_the_worker() -> None:
    before, after = fleet(device(1)), fleet(device(1, "Porch"))
    assert before.keys() == after.keys()
    (action,) = reconcile(after, before)
    assert isinstance(action, UpdateCamera)
    assert action.restart


def test_a_change_that_the_worker_does_not_see_does_not_restart_it() -> None:
    before = fleet(device(1))
    changed = msgspec.structs.replace(device(1), audio_codecs=("AAC",))
    (action,) = reconcile(fleet(changed), before)
    assert isinstance(action, UpdateCamera)
    assert not action.restart


def test_a_camera_that_speaks_another_protocol_now_keeps_its_worker() -> None:
    (action,) = reconcile(fleet(device(1, protocol=Protocol.WEB_RTC)), fleet(device(1)))
    assert isinstance(action, UpdateCamera)
    assert not action.restart


def test_traits_read_between_discoveries_are_not_undone_by_the_next_reconcile() -> None:
    registry = Registry(CamerasConfig())
    registry.discovered(0, Listing([device(1), device(2)]))
    registry.seen(0, device(2, protocol=Protocol.WEB_RTC))
    assert [c.device.protocol for c in registry] == [Protocol.RTSP, Protocol.WEB_RTC]


def test_the_configuration_selects_by_name_or_id_and_can_disable() -> None:
    config = CamerasConfig(
        include=["Camera 1", "d2"], settings={"Camera 1": CameraSettings(enabled=False), "Attic": CameraSettings()}
    )
    registry = Registry(config)
    registry.discovered(0, Listing([device(1), device(2), device(3)]))
    assert [c.name for c in registry.desired().values()] == ["Camera 2"]
    assert registry.unknown_names() == ["Attic"]
    assert dataclasses.replace(next(iter(registry))).track_prefix.startswith("camera-1-")
