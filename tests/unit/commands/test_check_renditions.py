"""What `check` says of smaller pictures: what they may cost on this machine."""

from __future__ import annotations

from typing import Any

import pytest

from relay_common.config import CamerasConfig, CameraSettings, Config, NestConfig, WorkersConfig
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.checks.renditions import smaller_pictures
from relay_supervisor.checks.report import Grade
from relay_supervisor.google.models import Device, Resolution

NEST = NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))


def device(name: str, width: int = 1280, height: int = 720) -> Device:
    size = Resolution(width, height)
    return Device(f"enterprises/p/devices/{name}", name, "CAMERA", name, (Protocol.RTSP,), resolution=size)


def said(cameras: list[Device] | None, most: float = 500.0, **config: Any) -> list[tuple[Grade, str]]:
    built = Config(nest=[NEST], cameras=CamerasConfig(**config), workers=WorkersConfig(all_renditions_cpu_ms=most))
    return [(finding.verdict, finding.text) for finding in smaller_pictures(built, cameras)]


def test_nothing_is_said_while_they_are_off_or_the_cameras_are_not_known() -> None:
    assert said([device("a")]) == []
    assert said(None, renditions="smooth") == []
    assert said([device("a")], renditions="smooth", settings={"a": CameraSettings(renditions="off")}) == []


def test_what_fits_is_told_with_its_cost() -> None:
    ((grade, text),) = said([device(f"c{n}") for n in range(20)], renditions="keyframes")
    assert (grade, text) == (
        Grade.OK,
        "smaller pictures of 20 cameras cost at most 80 ms of CPU a second",
    )


def test_what_is_smooth_is_counted_beside_the_others() -> None:
    cameras, smooth = [device("a"), device("b")], {"a": CameraSettings(renditions="smooth")}
    ((grade, text),) = said(cameras, renditions="keyframes", settings=smooth)
    assert grade is Grade.OK
    assert text.startswith("smaller pictures of 2 cameras (1 of them smooth) cost at most ")


def test_cameras_that_may_not_be_smooth_cost_what_their_keyframes_do() -> None:
    limits = WorkersConfig(rendition_cpu_ms=0.0, all_renditions_cpu_ms=50.0)
    built = Config(nest=[NEST], cameras=CamerasConfig(renditions="smooth"), workers=limits)
    *_, last = smaller_pictures(built, [device(f"c{n}") for n in range(20)])
    assert "may cost 80 ms of CPU a second where all are watched" in last.text


def test_what_does_not_fit_is_a_warning() -> None:
    cameras = [device(f"c{n}") for n in range(20)]
    ((grade, text),) = said(cameras, renditions="smooth")
    assert grade is Grade.WARNING
    assert "may cost 1385 ms of CPU a second where all are watched, and this machine has 500" in text


def test_a_camera_whose_pictures_are_too_large_is_named() -> None:
    wide = {"wide": CameraSettings(renditions="smooth")}
    ((grade, text),) = said([device("wide", 2560, 1440), device("a")], renditions="keyframes", settings=wide)
    assert grade is Grade.WARNING
    assert text.startswith("smooth pictures of wide cost about 202 ms of CPU a second, and one camera may cost 150")


@pytest.mark.parametrize("mode", ["always", "on_demand"])
def test_cameras_on_battery_rest_while_nobody_watches(mode: Any) -> None:
    ((_, text),) = said([device("a")], renditions="smooth", settings={"a": CameraSettings(mode=mode)})
    assert ("; 1 on demand, at rest while nobody watches" in text) == (mode == "on_demand")
