"""What metrics say of nodes, phases and waiting Pods is what the status says, under labels that are bounded."""

from __future__ import annotations

from relay_common.engine_waits import EngineWait
from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.http.metrics_engine import PHASES, of_engine
from relay_supervisor.status.model import CameraStatus, WorkerStatus

Series = dict[tuple[str, str], float]


def series(*workers: WorkerStatus) -> Series:
    """Each sample by its name and its last label's value; those at zero left out."""
    cameras = [
        CameraStatus(id=str(number), name=f"Camera {number}", device="x", state="live", worker=worker)
        for number, worker in enumerate(workers)
    ]
    samples = [sample for family in of_engine(cameras) for sample in family.samples]
    return {(one.name, list(one.labels.values())[-1]): one.value for one in samples if one.value}


def test_a_waiting_pod_and_its_reason_are_seen_and_then_its_node() -> None:
    assert series(
        WorkerStatus(phase="waiting", waits="insufficient_cpu"), WorkerStatus(phase="running", where="b")
    ) == {
        ("relay_camera_worker_phase", "waiting"): 1.0,
        ("relay_camera_worker_waits", "insufficient_cpu"): 1.0,
        ("relay_workers_waiting", "insufficient_cpu"): 1.0,
        ("relay_camera_worker_phase", "running"): 1.0,
        ("relay_camera_worker_node", "b"): 1.0,
        ("relay_node_workers", "b"): 1.0,
    }
    both = series(WorkerStatus(phase="running", where="b"), WorkerStatus(phase="ending", where="b"))
    assert both["relay_node_workers", "b"] == 2.0
    assert ("relay_camera_worker_phase", "ending") in both


def test_labels_come_from_the_tables() -> None:
    assert set(PHASES) == {phase.value for phase in EnginePhase}
    (family,) = (one for one in of_engine([]) if one.name == "relay_workers_waiting")
    assert [sample.labels["reason"] for sample in family.samples] == [wait.value for wait in EngineWait]
    assert series(WorkerStatus(phase="running")) == {("relay_camera_worker_phase", "running"): 1.0}, "on one machine"
