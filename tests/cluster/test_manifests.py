"""The manifests, as they are shipped and by the commands of docs/deployment.md, on a true Kubernetes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from relay_supervisor.commands.demo_world import demo_world
from tests.cluster.api import Api, Json
from tests.cluster.as_shown import BESIDE, IN_ONE_POD, ON_A_CLUSTER, executed, forwarding, prepared, serves, shown
from tests.cluster.engine import Cluster, skipped
from tests.cluster.pod_relay import FPS
from tests.cluster.pods import of
from tests.cluster.shipped import COMMANDS, NAMESPACE, WITHIN, WORKERS, fill_in, live, reachable, shell, with_tls
from tests.fixtures.product_source import ROOT

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

POD: Final = f"{NAMESPACE}/pods/nest-relay-0"


def volume(folder: Path) -> Json:
    """A disk for the relay's state, which belongs to its group as a storage provider would have it."""
    folder.mkdir()
    os.chown(folder, 0, 10001)
    folder.chmod(0o2775)
    size = {"storage": "1Gi"}
    spec = {"capacity": size, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": str(folder)}}
    return {"metadata": {"name": "disk"}, "spec": spec}


def ready(pod: Json) -> bool:
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


def another(pod: Json) -> Callable[[Json], bool]:
    return lambda found: ready(found) and found["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_one_relay_runs_as_shipped(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        skipped("kubectl is not installed (apt install kubernetes-client)")
    shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "deploy" / "kubernetes")
    folder = tmp_path / "deploy" / "kubernetes" / "single"
    here = ("--shared-clip", "--plain", "--host", cluster.network.gateway)
    options = [*here, "--webrtc", "1", "--fps", str(FPS)]
    async with demo_world(2, "320x180", options, here) as world, with_tls(cluster, world):
        fill_in(tmp_path, world)
        await api.create("/api/v1/persistentvolumes", volume(tmp_path / "state"))
        for command in shown(IN_ONE_POD):
            await shell(command, cluster, folder)
        pod = await api.until(POD, ready, WITHIN)
        await live(pod, 2)
        await serves(forwarding(IN_ONE_POD), cluster)
        # A drained node ends it; the disk is taken to wherever it runs next.
        drained, _ = of(cluster, pod)
        await cluster.drain(api, drained)
        again = await api.until(f"{NAMESPACE}/pods", lambda pods: any(map(another(pod), pods["items"])), WITHIN)
        assert again["items"][0]["spec"]["nodeName"] != pod["spec"]["nodeName"]
        await live(again["items"][0], 2)
        await cluster.uncordon(api, drained)
        await api.delete(NAMESPACE)
        await api.gone(NAMESPACE, WITHIN)  # the next test makes it again


def uids(pods: Json) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods["items"]}


async def test_a_cluster_runs_as_shipped(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    async with prepared(cluster, api, tmp_path, "--webrtc", "1") as (_, folder):
        *deployed, check, status, workers_listed, holder_listed = shown(ON_A_CLUSTER)
        for command in deployed:
            await shell(command, cluster, folder)
        pods = f"{NAMESPACE}/pods"
        # One of the two commands, and has each camera's worker run in a Pod of its own.
        commands = await api.until(pods, reachable, WITHIN, labelSelector=COMMANDS)
        (first,) = commands["items"]
        await live(first, 2)
        await serves(forwarding(ON_A_CLUSTER), cluster)
        workers = await api.get(pods, labelSelector=WORKERS)
        assert len(uids(workers)) == 2
        assert len({pod["spec"]["nodeName"] for pod in workers["items"]}) == 2
        assert all(pod["spec"]["priorityClassName"] == "nest-relay" for pod in workers["items"])
        listed = await shell(workers_listed, cluster, folder)
        assert all(pod["metadata"]["name"] in listed and pod["spec"]["nodeName"] in listed for pod in workers["items"])
        assert first["metadata"]["name"] in await shell(holder_listed, cluster, folder)
        await checked(check, cluster, api)
        said = await executed(status, cluster, first)
        assert said[0] == 0, said
        assert "2 of 2 cameras live" in said[1]
        assert uids(await api.get(pods, labelSelector=WORKERS)) == uids(workers), "a check disturbs nobody"
        # The other one goes on when it is gone, with the same workers.
        await api.delete(f"{pods}/{first['metadata']['name']}")

        def taken_over(found: Json) -> bool:
            return reachable(found) and not uids(found) & uids(commands)

        successor = await api.until(pods, taken_over, WITHIN, labelSelector=COMMANDS)
        await live(successor["items"][0], 2)
        assert uids(await api.get(pods, labelSelector=WORKERS)) == uids(workers)
        await api.delete(NAMESPACE)
        await api.gone(NAMESPACE, WITHIN)  # the next test makes it again


async def checked(command: str, cluster: Cluster, api: Api) -> None:
    """`check` says in either supervisor's Pod that all of the cluster is well."""
    assert " exec deployment/nest-relay -- " in command
    every = await api.get(f"{NAMESPACE}/pods", labelSelector="app.kubernetes.io/name=nest-relay")
    assert len(every["items"]) == 2
    for pod in every["items"]:
        _, said = await executed(command, cluster, pod)
        for words in ("lets this account manage Pods", "the cluster admits them", "and runs it", " reaches nest-"):
            assert words in said, said
    await api.until(f"{NAMESPACE}/pods", lambda found: not found["items"], WITHIN, labelSelector="nest-relay/trial")


async def test_the_account_of_a_supervisor_beside_the_cluster_is_made_as_shown(cluster: Cluster, api: Api) -> None:
    if shutil.which("kubectl") is None:
        skipped("kubectl is not installed (apt install kubernetes-client)")
    for command in shown(BESIDE):
        await shell(command, cluster, ROOT)
    may = "kubectl -n cameras auth can-i create pods --as=system:serviceaccount:cameras:nest-relay"
    await shell(f"until {may}; do sleep 0.2; done", cluster, ROOT)
    await api.delete("/api/v1/namespaces/cameras")
