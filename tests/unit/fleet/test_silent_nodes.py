"""A node of which nothing is heard is told from one worker that hangs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from relay_supervisor.fleet.fleet import TICK
from relay_supervisor.fleet.keeper import SILENCE
from relay_supervisor.fleet.slot import Slot
from tests.unit.fleet.scripted import SPEC, Process, Rig, settle

CAMERAS = ("a", "b", "c")


async def running(where: Sequence[str]) -> tuple[Rig, list[Process]]:
    """Workers on those nodes, which run elsewhere."""
    rig, processes = Rig(), list[Process]()
    rig.launcher.remote = True
    for camera, node in zip(CAMERAS, where, strict=True):
        rig.fleet.start(replace(SPEC, camera=camera))
        await settle()
        processes.append(await rig.launcher.answer())
        processes[-1].where = node
        rig.hello(camera=camera)
    return rig, processes


def slot(rig: Rig, camera: str) -> Slot:
    found = rig.fleet.slot(camera)
    assert found is not None
    return found


async def silent(rig: Rig, cameras: str) -> None:
    """Those say nothing until they count as hung; the others go on."""
    for _ in range(int(SILENCE / TICK) + 2):
        for camera in set(CAMERAS) - set(cameras):
            rig.beat(slot(rig, camera))
        await rig.wait(TICK)


async def test_of_a_node_whose_workers_are_all_silent_nothing_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    rig, processes = await running(("node1", "node1", "node2"))
    await silent(rig, "ab")
    processes[0].end(None, taken="its Pod was deleted")
    await silent(rig, "ab")
    processes[1].end(None, taken="its Pod was deleted")  # the last one, when the others are elsewhere already
    for camera in "ab":
        assert (slot(rig, camera).ended_by, slot(rig, camera).node_failed) == ("nothing is heard of node node1", True)
    assert [told[1] for told in rig.told if told[0] == "gone"] == [
        "hung while starting, taken away (its Pod was deleted)"
    ] * 2
    assert sum(line.endswith("(its Pod was deleted): nothing is heard of node node1") for line in caplog.messages) == 2


@pytest.mark.parametrize(
    "where", [("node1", "node1", "node2"), ("node1", "node2", "node2"), ("", "", "")], ids=["others", "alone", "local"]
)
async def test_one_that_is_silent_where_others_speak_or_alone_hangs(where: Sequence[str]) -> None:
    rig, processes = await running(where)
    await silent(rig, "a")
    processes[0].end(None)
    assert (slot(rig, "a").ended_by, slot(rig, "a").node_failed) == ("hung, ended (exit status unknown)", False)
