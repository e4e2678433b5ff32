"""What becomes of cameras in Pods when a node or the API server is lost, and what is said while a Pod has no place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_common.engine_waits import WAITS, EngineWait
from relay_supervisor.fleet import ending, keeper
from tests.cluster.api import Api
from tests.cluster.engine import Cluster, ClusterNode
from tests.cluster.pod_relay import LIVE, PodRelay, trial, until

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

GIVEN_UP = 6.0
"""Seconds until a worker that its engine cannot end is given up, instead of thirty."""
SAYS_HELLO = 2.0
"""Seconds for a hello that cannot come, instead of sixty."""
Figure = Callable[[str], None]


def on(relay: PodRelay, node: ClusterNode) -> dict[str, str]:
    """The cameras (by id) on a node, with their workers' instances."""
    cameras = relay.supervisor.status().cameras
    return {camera.id: camera.worker.instance for camera in cameras if camera.worker.where == node.name}


async def test_a_node_that_dies_before_its_pod_starts_is_not_waited_for(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    node = cluster.nodes[0]
    async with trial(cluster, api, namespace, monkeypatch, 3) as world:
        node.power_off()  # nobody has noticed when the Pods are placed
        try:
            async with world.supervisor() as relay:
                took = await relay.until_live(within=LIVE)
                figure(f"live {took:.1f} s after the start, with a dead node that counts as ready")
                assert on(relay, node) == {}
                assert await relay.generates() == 3
        finally:
            node.power_on()
            await cluster.node_ready(api, node.name)


async def test_while_the_api_server_is_away_workers_go_on_and_those_that_die_wait(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    monkeypatch.setattr(ending, "GIVE_UP_AFTER", GIVEN_UP)
    async with trial(cluster, api, namespace, monkeypatch, 3) as world:
        async with world.supervisor(keep_workers=True) as relay:
            await relay.until_live(within=LIVE)
            cameras = {camera.id: camera for camera in relay.supervisor.status().cameras}
            pods = await relay.pods()
            instances = {one: camera.worker.instance for one, camera in cameras.items()}
            cluster.control_plane.api_server_dies()
            try:
                victim = next(iter(cameras.values()))
                node = next(one for one in cluster.nodes if one.name == victim.worker.where)
                name = pods[victim.worker.instance]["metadata"]["name"]
                node.signal(f"{namespace.rpartition('/')[2]}/{name}", 9)

                def said() -> bool:
                    return "API server" in relay.camera(victim.name).worker.last_exit

                await relay.until(said, LIVE, "why it cannot be started is said")
                others = [camera for camera in relay.supervisor.status().cameras if camera.id != victim.id]
                assert all(camera.state == "live" for camera in others)
                assert all(camera.worker.instance == instances[camera.id] for camera in others)
            finally:
                await cluster.control_plane.api_server_back()
            took = await relay.elsewhere({victim.id: victim.worker.instance}, LIVE, "it is live again")
            figure(f"a worker that died meanwhile live {took:.1f} s after the API server was back")
            assert await relay.generates() == 3
            instances = {camera.id: camera.worker.instance for camera in relay.supervisor.status().cameras}
        cluster.control_plane.api_server_dies()
        try:
            async with world.supervisor(keep_workers=True) as relay:
                took = await relay.until_live(within=LIVE)
                figure(f"adopted without an API server {took:.1f} s after the start")
                assert {c.id: c.worker.instance for c in relay.supervisor.status().cameras} == instances
                await cluster.control_plane.api_server_back()
                nodes = {node.name for node in cluster.nodes}

                def placed() -> bool:
                    return all(camera.worker.where in nodes for camera in relay.supervisor.status().cameras)

                await relay.until(placed, LIVE, "where they run is known")
                await asyncio.sleep(6.0)
                assert {c.id: c.worker.instance for c in relay.supervisor.status().cameras} == instances
                assert await relay.generates() == 3
        finally:
            await cluster.control_plane.api_server_back()


async def test_why_a_pod_waits_is_said_and_nothing_is_restarted_for_it(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    monkeypatch.setattr(keeper, "HELLO_TIMEOUT_ELSEWHERE", SAYS_HELLO)
    async with trial(cluster, api, namespace, monkeypatch, 1) as world:
        for change, words, watched in (
            ({"image": "absent.invalid/nest-relay:0.1.0"}, "ImagePullBackOff", 0.0),
            ({"cpu": "64"}, "Unschedulable: 0/3 nodes are available", SAYS_HELLO + 4.0),
        ):
            async with world.supervisor(**change) as relay:

                def said(relay: PodRelay = relay, words: str = words) -> bool:
                    return any(words in camera.reason for camera in relay.supervisor.status().cameras)

                await relay.until(said, LIVE, f"{words} is said")
                (camera,) = relay.supervisor.status().cameras
                assert (camera.worker.phase, camera.worker.restarts) == ("waiting", 0)
                assert words in camera.worker.phase_reason
                assert words in camera.verdict.cause, "the page shows it"
                assert camera.verdict.advice == WAITS[EngineWait(camera.worker.waits)].advice
                await asyncio.sleep(watched)
                (camera,) = relay.supervisor.status().cameras
                assert camera.worker.restarts == 0
                assert len(await relay.pods()) == 1


async def series(relay: PodRelay) -> dict[str, dict[str, float]]:
    """The metrics about nodes and Pods, by the value of their last label; those at zero left out."""
    found: dict[str, dict[str, float]] = {}
    text = (await relay.http.get(f"{relay.supervisor.url}/metrics")).raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(("relay_camera_worker_", "relay_node", "relay_workers")) and sample.value:
                found.setdefault(sample.name, {})[list(sample.labels.values())[-1]] = sample.value
    return found


async def test_status_and_metrics_say_what_a_pod_waits_for_until_that_is_mended(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trial(cluster, api, namespace, monkeypatch, 1) as world:
        for node in cluster.nodes:
            await cluster.cordon(api, node)
        try:
            async with world.supervisor() as relay:

                def said() -> bool:
                    return any(camera.worker.waits == "cordoned" for camera in relay.supervisor.status().cameras)

                await relay.until(said, LIVE, "it is said that every node is cordoned")
                (camera,) = relay.supervisor.status().cameras
                assert "kubectl uncordon" in camera.verdict.advice
                seen = await series(relay)
                assert seen["relay_camera_worker_phase"] == {"waiting": 1.0}
                assert seen["relay_camera_worker_waits"] == seen["relay_workers_waiting"] == {"cordoned": 1.0}
                assert not {"relay_camera_worker_node", "relay_node_workers"} & seen.keys()
                await cluster.uncordon(api, cluster.nodes[1])
                await relay.until_live(within=LIVE)

                async def runs() -> bool:
                    return (await series(relay)).get("relay_camera_worker_phase") == {"running": 1.0}

                await until(runs, LIVE, "its node has said that it runs")
                seen = await series(relay)
                assert not {"relay_camera_worker_waits", "relay_workers_waiting"} & seen.keys()
                where = {cluster.nodes[1].name: 1.0}
                assert seen["relay_camera_worker_node"] == seen["relay_node_workers"] == where
        finally:
            for node in cluster.nodes:
                await cluster.uncordon(api, node)
