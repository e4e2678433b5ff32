"""Adding, removing, enabling and disabling by hand, over what the configuration says; and reloading that."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from relay_common.config import (
    CamerasConfig,
    CameraSettings,
    CloudflareConfig,
    Config,
    HttpConfig,
    LogConfig,
    NestConfig,
)
from relay_common.errors import RelayError
from relay_common.files import write_private
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.cameras import overrides
from relay_supervisor.cameras.overrides import FILE, Override, Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.google.models import Device, Listing
from relay_supervisor.operations.reload import compare, merged


def registry(directory: Path, config: CamerasConfig | None = None) -> Registry:
    overrides = Overrides(directory)
    overrides.load()
    made = Registry(config or CamerasConfig(), overrides)
    names = ("Front Door", "Garage")
    devices = [Device(f"enterprises/p/devices/{n}", n, "CAMERA", n, (Protocol.RTSP,)) for n in names]
    made.discovered(0, Listing(devices))
    return made


def camera(registry: Registry, name: str) -> Camera:
    return next(camera for camera in registry if camera.name == name)


def wanted(registry: Registry) -> set[str]:
    return {camera.name for camera in registry.desired().values()}


async def test_a_word_said_by_hand_wins_and_outlives_a_restart(tmp_path: Path) -> None:
    first = registry(tmp_path)
    await first.override(camera(first, "Garage"), enabled=False)
    assert wanted(first) == {"Front Door"}
    assert "by hand" in first.why_not(camera(first, "Garage"))
    again = registry(tmp_path)
    assert wanted(again) == {"Front Door"}
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_what_agrees_with_the_configuration_is_not_kept(tmp_path: Path) -> None:
    made = registry(tmp_path, CamerasConfig(include=["Front Door"]))
    garage = camera(made, "Garage")
    assert made.why_not(garage) == "not included in the configuration"
    await made.override(garage, included=True)
    assert wanted(made) == {"Front Door", "Garage"}
    await made.override(garage, included=False)
    assert json.loads((tmp_path / FILE).read_text()) == {}


async def test_enabled_and_included_are_two_things(tmp_path: Path) -> None:
    made = registry(tmp_path, CamerasConfig(settings={"Garage": CameraSettings(enabled=False)}))
    garage = camera(made, "Garage")
    await made.override(garage, included=True)
    assert made.why_not(garage) == "disabled in the configuration"
    await made.override(garage, enabled=True)
    assert made.why_not(garage) == ""
    await made.override(garage, included=False)
    await made.override(garage, included=True)
    assert made.why_not(garage) == "", "to be enabled was not forgotten"


def test_draining_wins_over_all(tmp_path: Path) -> None:
    made = registry(tmp_path)
    made.only = {camera(made, "Garage").id}
    assert wanted(made) == {"Garage"}
    assert "drained" in made.why_not(camera(made, "Front Door"))


async def test_a_broken_file_is_ignored_and_an_unwritable_one_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    made = registry(tmp_path)
    assert wanted(made) == {"Front Door", "Garage"}
    (tmp_path / FILE).unlink()
    (tmp_path / FILE / "in the way").mkdir(parents=True)
    with pytest.raises(RelayError, match="was not changed"):
        await made.override(camera(made, "Garage"), enabled=False)
    assert wanted(made) == {"Front Door", "Garage"}


async def test_what_others_know_applies_although_it_cannot_be_written_and_is_once_it_can(tmp_path: Path) -> None:
    known = b'{"a":{"enabled":false}}'
    in_the_way = tmp_path / FILE / "in the way"
    in_the_way.mkdir(parents=True)
    made = Overrides(tmp_path, known)
    made.load()
    await made.reload()
    assert (made["a"], made.text()) == (Override(enabled=False), known)
    in_the_way.rmdir()
    (tmp_path / FILE).rmdir()
    await made.reload()
    assert ((tmp_path / FILE).read_bytes(), made["a"], made.text()) == (known, Override(enabled=False), known)
    (tmp_path / FILE).unlink()  # to return to the configuration
    await made.reload()
    assert (made["a"], made.text()) == (Override(), b"")
    await made.set("b", Override(enabled=True))
    assert made.text() == (tmp_path / FILE).read_bytes()


async def test_a_disk_that_does_not_answer_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def stuck(path: Path, data: bytes) -> None:
        answers.wait(60.0)
        write_private(path, data)

    made = registry(tmp_path)
    garage = camera(made, "Garage")
    with monkeypatch.context() as spoilt:
        spoilt.setattr(overrides, "write_private", stuck)
        spoilt.setattr("relay_common.disk.ANSWERS_WITHIN", 0.05)
        for _ in range(3):
            async with asyncio.timeout(30.0):
                with pytest.raises(RelayError, match="the disk does not answer"):
                    await made.override(garage, enabled=False)
        assert [thread.name for thread in threading.enumerate()].count("overrides") == 1
        answers.set()
        while any(thread.name == "overrides" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
    assert wanted(made) == {"Front Door", "Garage"}
    await made.override(garage, enabled=False)
    assert wanted(registry(tmp_path)) == {"Front Door"}


async def test_the_file_is_bounded(tmp_path: Path) -> None:
    bounded = Overrides()
    for number in range(1000):
        await bounded.set(str(number), Override(enabled=False))
    with pytest.raises(RelayError, match="more than 1000"):
        await bounded.set("one more", Override(enabled=False))


CONFIG = Config(
    nest=[NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))],
    cloudflare=CloudflareConfig(app_id="a", app_secret=Secret("s")),
)


def test_reload_sorts_what_changed() -> None:
    replace = msgspec.structs.replace
    nest = replace(CONFIG.nest[0], refresh_token=Secret("new"), client_id="other")
    new = replace(
        CONFIG,
        nest=[nest],
        cameras=CamerasConfig(include=["Garage"]),
        log=LogConfig(level="debug"),
        http=HttpConfig(listen="127.0.0.1:1"),
        rtsp=replace(CONFIG.rtsp, read_timeout=12.0),
    )
    report = compare(CONFIG, new)
    assert report.applied == ["cameras.include", "log.level", "nest.refresh_token"]
    assert report.later == ["rtsp.read_timeout"]
    assert report.restart == ["http.listen", "nest.client_id"]
    taken = merged(CONFIG, new)
    assert taken.nest[0].refresh_token == Secret("new")
    assert (taken.nest[0].client_id, taken.http.listen) == ("c", "127.0.0.1:8080")
    assert compare(taken, new).applied == []
    assert compare(taken, new).restart == report.restart, "what needs a restart is named again"


def test_what_renditions_may_cost_is_taken_at_once_and_the_rest_of_its_section_is_not() -> None:
    workers = msgspec.structs.replace(
        CONFIG.workers, rendition_cpu_ms=90.0, all_renditions_cpu_ms=200.0, memory_limit_mb=150
    )
    new = msgspec.structs.replace(CONFIG, workers=workers)
    report = compare(CONFIG, new)
    assert report.applied == ["workers.all_renditions_cpu_ms", "workers.rendition_cpu_ms"]
    assert report.restart == ["workers.memory_limit_mb"]
    taken = merged(CONFIG, new).workers
    assert taken == msgspec.structs.replace(workers, memory_limit_mb=CONFIG.workers.memory_limit_mb)


def test_another_number_of_accounts_needs_a_restart() -> None:
    new = msgspec.structs.replace(CONFIG, nest=CONFIG.nest * 2)
    assert compare(CONFIG, new).restart == ["nest (number of accounts)"]
    assert len(merged(CONFIG, new).nest) == 1
