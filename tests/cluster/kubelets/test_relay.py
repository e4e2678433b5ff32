"""What a camera costs in a Pod on a true node: memory, all that comes with a Pod included, and the time to start it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.kubelets.node import KubeletNode, kind_of_nodes
from tests.cluster.matrix.bench import Bench
from tests.cluster.pod_relay import LIVE, trial, until

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.media,
    pytest.mark.skipif(kind_of_nodes() is not KubeletNode, reason="`make test-cluster` runs it"),
]

MOST_MEMORY = 50.0
"""MB of a worker in a Pod, with its shim and pause process, where twenty of them share what they can."""


async def replaced(bench: Bench, camera: str) -> float:
    """Seconds from the creation of another Pod until the camera plays there."""
    old, known = bench.cameras[camera].worker.instance, set(await bench.relay.pods())
    await bench.delete(camera)

    async def another() -> bool:
        return bool(set(await bench.relay.pods()) - known)

    await until(another, LIVE, "it has another Pod")
    began = time.monotonic()

    def plays() -> bool:
        now = bench.cameras[camera]
        return now.state == "live" and now.worker.instance not in (old, "")

    await bench.relay.until(plays, LIVE, "it plays")
    return time.monotonic() - began


async def test_a_camera_in_a_pod(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    async with (
        trial(cluster, api, namespace, monkeypatch, 20, ("--webrtc", "8"), fps=30) as world,
        world.supervisor() as relay,
    ):
        await relay.until_live(within=LIVE)
        bench = Bench(cluster, api, world, relay, "replace")
        memory = bench.memory()
        figure(f"memory of a camera's Pod: {memory[0]:.1f} to {memory[-1]:.1f} MB (PSS, with shim and pause)")
        assert len(memory) == 20
        assert memory[-1] <= MOST_MEMORY
        one_of_each = {status.lease.protocol: camera for camera, status in bench.cameras.items()}
        for protocol, camera in one_of_each.items():
            figure(
                f"from a Pod's creation until its camera plays: {await replaced(bench, camera):.1f} s over {protocol}"
            )
