"""Metrics of the engine that runs the workers: on which node each is, in which phase, and why it waits.

Values of the label `node` are the nodes that workers are on, those of `phase` and `reason` come from fixed tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from relay_common.engine_waits import EngineWait
from relay_supervisor.status.model import CameraStatus

PHASES: Final = ("waiting", "running", "ending", "gone")
"""Those of `fleet.launcher.EnginePhase`."""
_CAMERA: Final = ("camera", "name")


def of_engine(cameras: list[CameraStatus]) -> Iterator[Metric]:
    """`relay_camera_worker_node`, `…_phase` and `…_waits`; `relay_workers_waiting` and `relay_node_workers`."""
    node = GaugeMetricFamily(
        "relay_camera_worker_node", "1 for the node that the worker is on, in a cluster.", labels=[*_CAMERA, "node"]
    )
    phase = GaugeMetricFamily(
        "relay_camera_worker_phase", "1 for the phase that its engine has the worker in.", labels=[*_CAMERA, "phase"]
    )
    waits = GaugeMetricFamily(
        "relay_camera_worker_waits", "1 for why the worker's Pod waits.", labels=[*_CAMERA, "reason"]
    )
    for camera in cameras:
        own, worker = [camera.id, camera.name], camera.worker
        if worker.where:
            node.add_metric([*own, worker.where], 1.0)
        for known in PHASES:
            phase.add_metric([*own, known], float(worker.phase == known))
        if worker.waits:
            waits.add_metric([*own, worker.waits], 1.0)
    yield from (node, phase, waits, _waiting(cameras), _on_nodes(cameras))


def _waiting(cameras: list[CameraStatus]) -> Metric:
    family = GaugeMetricFamily("relay_workers_waiting", "Workers whose Pods wait, by the reason.", labels=["reason"])
    counts = Counter(camera.worker.waits for camera in cameras)
    for wait in EngineWait:
        family.add_metric([wait.value], counts[wait.value])
    return family


def _on_nodes(cameras: list[CameraStatus]) -> Metric:
    family = GaugeMetricFamily("relay_node_workers", "Workers on the node, in a cluster.", labels=["node"])
    for node, count in sorted(Counter(camera.worker.where for camera in cameras if camera.worker.where).items()):
        family.add_metric([node], count)
    return family
