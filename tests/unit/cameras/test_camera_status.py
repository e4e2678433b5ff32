"""A camera's status: what each sink gets of it, also by a worker that knows of none."""

from __future__ import annotations

import pytest

from relay_common.config import CameraSettings
from relay_common.protocol import Hello, WorkerState
from relay_common.worker_stats import SinkStats
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.cameras.status import OLD, camera_status
from relay_supervisor.cameras.verdict import CameraFacts
from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import Slot
from relay_supervisor.google.models import Device, Protocol
from relay_supervisor.status.model import CameraStatus, LocalStatus, RenditionStatus
from tests.unit.cameras.test_verdict import HELD, WALL, slot
from tests.unit.fleet.scripted import Process

PORCH = Camera("a", 0, Device("enterprises/p/devices/a", "a", "CAMERA", "Porch", (Protocol.RTSP,)), CameraSettings())


def of_porch(
    worker: Slot,
    *,
    local: LocalStatus | None = None,
    sfu: bool = True,
    rendition: RenditionStatus | None = None,
    small: bool = False,
) -> CameraStatus:
    return camera_status(
        PORCH,
        CameraFacts(id="a", name="Porch", why_not="", idle="", lease=HELD, slot=worker),
        publication="p",
        local=local or LocalStatus(),
        sfu=sfu,
        rendition=rendition or RenditionStatus(),
        small=small,
        sinks=["studio"],
        now=0.0,
        wall=WALL,
    )


@pytest.mark.parametrize("knows", [True, False])
def test_a_worker_of_an_earlier_release_is_said_to_publish_at_the_sfu_alone(knows: bool) -> None:
    worker = slot(WorkerState.LIVE)
    worker.hello = Hello(protocol=1, instance="a.1", camera="a", pid=1, started=1, state=WorkerState.LIVE, sinks=knows)
    assert worker.stats is not None
    worker.stats.sinks = [SinkStats(name="", live=True)] + [SinkStats(name="studio", live=True)] * knows
    found = of_porch(worker)
    said = [(sink.name, sink.live, sink.reason) for sink in found.sinks]
    assert said == [("", True, ""), ("studio", True, "") if knows else ("studio", False, OLD)]


@pytest.mark.parametrize(
    ("sfu", "small", "local", "offers"),
    [
        (True, True, False, "smooth"),
        (True, False, True, "off"),
        (False, False, True, "smooth"),
        (False, False, False, "off"),
    ],
)
def test_a_smaller_picture_is_offered_where_the_publication_has_one_and_without_the_sfu_by_the_worker(
    sfu: bool, small: bool, local: bool, offers: str
) -> None:
    rendition = RenditionStatus(mode="smooth", active="keyframes", wanted="smooth", watched=2)
    found = of_porch(slot(WorkerState.LIVE), local=LocalStatus(on=local), sfu=sfu, rendition=rendition, small=small)
    assert (found.renditions, found.rendition.watched, found.rendition.active) == (offers, 2, "keyframes")


def test_why_the_engine_lets_a_worker_wait_is_the_reason() -> None:
    worker, process = Slot(slot().template, RestartPolicy(), 0.0), Process(1)
    process.engine, process.reason = EnginePhase.WAITING, "Unschedulable: 0/3 nodes are available."
    worker.launch("a.1", 0.0)
    worker.bind("a.1", process, 0.0)
    found = of_porch(worker)
    assert (found.state, found.reason) == ("connecting", "its worker waits: Unschedulable: 0/3 nodes are available.")
    assert "Unschedulable" in found.verdict.cause
    assert (found.worker.phase, found.worker.waits) == ("waiting", "other")
