"""A reload reads files in a thread: neither a disk that is slow nor one that never answers holds up the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from relay_common.config import CamerasConfig, Config
from relay_common.errors import ConfigError, RelayError
from relay_supervisor.app import Supervisor
from relay_supervisor.cameras.overrides import FILE
from tests.fixtures.offline import NoLauncher, offline_config


class Disk:
    """A configuration on a disk that answers when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.answers, self.error = threading.Event(), ConfigError("nonsense", hint="Write sense")
        self.old = offline_config(directory)
        self.now: Config | None = msgspec.structs.replace(self.old, cameras=CamerasConfig(include=["Garage"]))
        self.supervisor = Supervisor(self.old, launcher=NoLauncher, reread=self.read)

    def read(self) -> Config:
        assert self.answers.wait(60.0), "the loop that would set it was held up"
        if self.now is None:
            raise self.error
        return self.now


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    made = Disk(tmp_path)
    await made.supervisor.start()
    yield made
    await made.supervisor.stop()


async def test_the_loop_goes_on_while_the_files_are_read(disk: Disk) -> None:
    reloading = asyncio.create_task(disk.supervisor.verbs.reload())
    await asyncio.sleep(0.05)
    assert not reloading.done()
    assert disk.supervisor.config is disk.old
    disk.answers.set()
    assert (await reloading).applied == ["cameras.include"]
    assert disk.supervisor.config.cameras.include == ["Garage"]


async def test_a_disk_that_does_not_answer_changes_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_common.disk.ANSWERS_WITHIN", 0.05)
    for _ in range(3):
        with pytest.raises(RelayError, match="nothing was changed: the disk does not answer"):
            await asyncio.wait_for(disk.supervisor.verbs.reload(), 30.0)
    assert disk.supervisor.config is disk.old
    assert [thread.name for thread in threading.enumerate()].count("reload") == 1
    monkeypatch.setattr("relay_common.disk.ANSWERS_WITHIN", 60.0)
    disk.answers.set()
    assert (await disk.supervisor.verbs.reload()).applied == ["cameras.include"]


async def test_overrides_that_cannot_be_read_keep_the_configuration_as_it_was(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.answers.set()
    stuck = threading.Event()
    overrides = disk.supervisor._registry.overrides
    with monkeypatch.context() as spoilt:
        spoilt.setattr("relay_common.disk.ANSWERS_WITHIN", 0.05)
        spoilt.setattr(overrides, "_read", lambda: stuck.wait(60.0))
        with pytest.raises(RelayError, match=f"{FILE} cannot be read: the disk does not answer"):
            await disk.supervisor.verbs.reload()
    stuck.set()
    assert disk.supervisor.config is disk.old


async def test_mistakes_change_nothing_and_reloads_take_turns(disk: Disk) -> None:
    disk.answers.set()
    disk.now = None
    with pytest.raises(RelayError, match="nothing was changed: nonsense") as wrong:
        await disk.supervisor.verbs.reload()
    assert wrong.value.hint == "Write sense"
    disk.now = msgspec.structs.replace(disk.old, cameras=CamerasConfig(rediscover=300.0))
    reports = await asyncio.gather(*(disk.supervisor.verbs.reload() for _ in range(3)))
    assert [report.applied for report in reports] == [["cameras.rediscover"], [], []]
