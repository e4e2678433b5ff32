"""Cameras live through Kubernetes: workers as Pods, killed, lost with their nodes, and adopted."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from relay_common.config_cluster import ClusterConfig
from relay_supervisor.checks import cluster_trial
from relay_supervisor.checks.cluster import cluster as findings
from relay_supervisor.checks.cluster_trial import tried
from relay_supervisor.checks.report import Grade
from relay_supervisor.fleet.pods.api import LEASES, PODS, ApiAway, ApiRefused, ClusterApi
from tests.cluster.api import MERGE, Api
from tests.cluster.engine import Cluster
from tests.cluster.pod_relay import LIVE, PodRelay, account, trial, until
from tests.cluster.pods import a_pod

Figure = Callable[[str], None]
pytestmark = [pytest.mark.timeout(400), pytest.mark.media]


async def workers(relay: PodRelay) -> dict[str, str]:
    """Each camera's worker's instance, by the camera's id."""
    return {camera.id: camera.worker.instance for camera in relay.supervisor.status().cameras}


async def one_pod_each(relay: PodRelay) -> bool:
    """Whether there is a Pod for each camera's worker and no other, and a Secret for each Pod, which owns it."""
    pods, secrets = await relay.pods(), await relay.secrets()
    owners = [secret["metadata"].get("ownerReferences", [{}])[0].get("uid", "") for secret in secrets]
    same = sorted(owners) == sorted(pod["metadata"]["uid"] for pod in pods.values())
    return same and sorted(pods) == sorted((await workers(relay)).values())


async def test_cameras_are_live_in_pods_and_nothing_secret_is_in_them(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    async with trial(cluster, api, namespace, monkeypatch, 3, ("--webrtc", "1")) as world:
        async with world.supervisor(keep_workers=True) as relay:
            began = time.monotonic()
            await relay.until_live(within=LIVE)
            figure(f"3 cameras live {time.monotonic() - began:.1f} s after the start")
            # One that a busy node did not begin within five seconds was replaced, and goes with its Secret.
            await until(lambda: one_pod_each(relay), LIVE, "each camera has one Pod, and each Pod its Secret")
            pods, before, secrets = await relay.pods(), await workers(relay), await relay.secrets()
            assert len({pod["spec"]["nodeName"] for pod in pods.values()}) > 1, "they are spread"
            hidden = [one["data"]["worker.json"] for one in secrets]
            hidden += [json.loads(b64decode(one))["keys"]["secret"] for one in hidden]
            keyring = relay.supervisor.fleet.keyring
            for text in (json.dumps(pods), json.dumps(await api.get(f"{namespace}/events"))):
                for word in (*hidden, keyring.secret.reveal(), "rtsps://"):
                    assert word not in text

            def running() -> bool:
                return {camera.worker.phase for camera in relay.supervisor.status().cameras} == {"running"}

            await relay.until(running, LIVE, "their nodes have said that they run")
            for camera in relay.supervisor.status().cameras:
                assert camera.worker.where in {node.name for node in cluster.nodes}
                assert (await relay.supervisor.verbs.snapshot(camera.id)).startswith(b"\xff\xd8")
            generates = await relay.generates()
        began = time.monotonic()
        async with world.supervisor() as relay:
            await relay.until_live(within=LIVE)
            figure(f"adopted {time.monotonic() - began:.1f} s after the start of the next supervisor")
            assert await workers(relay) == before
            assert await relay.generates() == generates

            victim, instance = next(iter(before.items()))
            name = pods[instance]["metadata"]["name"]
            await api.delete(f"{namespace}/pods/{name}", gracePeriodSeconds=0)
            took = await relay.elsewhere({victim: instance}, LIVE, "another worker is live")
            figure(f"live {took:.1f} s after its Pod was deleted by force")
            assert await relay.generates() <= generates + 1
        assert await relay.pods() == {}, "they end with their supervisor"

        async def swept() -> bool:
            return await relay.secrets() == []

        await until(swept, 60.0, "their Secrets are gone")


async def test_check_says_what_is_not_allowed_and_what_is_not_admitted(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = namespace.rpartition("/")[2]
    config = ClusterConfig(namespace=name, image="registry.example/nest-relay:0.1.0", bus_listen="10.0.0.5:7420")
    monkeypatch.setenv("KUBECONFIG", str(await account(cluster, api, namespace, bound=False)))
    first, second = await findings(config)
    assert (first.verdict, second.verdict) == (Grade.FAILED, Grade.FAILED)
    assert first.text.startswith("this account may not create pods, delete pods, list pods, watch pods, create secrets")
    assert first.remedy.startswith("Grant it that by a Role")
    assert "pods is forbidden" in second.text

    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    assert [one.verdict for one in await findings(config)] == [Grade.OK, Grade.OK]
    (warned,) = (await findings(replace(config, bus_listen="127.0.0.1:7420")))[2:]
    assert (warned.part, warned.verdict) == ("cluster.bus_listen", Grade.WARNING)
    (tmp_path / "worker.yaml").write_text("spec: {priorityClassName: absent}")
    _, second = await findings(replace(config, worker_template=str(tmp_path / "worker.yaml")))
    assert (second.part, second.verdict) == ("worker Pods", Grade.FAILED)
    assert "no PriorityClass with name absent was found" in second.text
    _, second = await findings(replace(config, namespace="absent"))
    assert 'namespaces "absent" not found' in second.text
    assert (await api.get(f"{namespace}/pods"))["items"] == [], "nothing is made"


async def test_check_tries_image_and_bus_in_a_pod_and_disturbs_nobody(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, figure: Figure
) -> None:
    async with trial(cluster, api, namespace, monkeypatch, 1) as world:
        keys = world.sections()["cluster"]
        world.template()
        monkeypatch.setattr(cluster_trial, "SETTLED", 1.0)
        config, began = ClusterConfig(**keys), time.monotonic()
        image, bus = await tried(config, tmp_path, running=False)
        figure(f"check tried image and bus in a Pod within {time.monotonic() - began:.1f} s")
        assert (image.verdict, bus.verdict) == (Grade.OK, Grade.OK), (image, bus)
        assert image.text.partition(" ")[0] in {node.name for node in cluster.nodes}
        async with world.supervisor() as relay:
            await relay.until_live(within=LIVE)
            before, state = await workers(relay), relay.supervisor.config.paths.state()
            absent = replace(config, image="absent.invalid/nest-relay:0.1.0")
            (_, bus), (image,) = await asyncio.gather(*(tried(one, state, running=True) for one in (config, absent)))
            assert bus.verdict is Grade.OK, bus
            assert ("ImagePullBackOff" in image.text, image.remedy.startswith("Check cluster.image")) == (True, True)
            assert await workers(relay) == before
            counters = relay.supervisor.status().counters
            assert not [name for name in counters if name.startswith("bus.refused_")], counters
        left = [
            one["metadata"]["name"]
            for kind in ("pods", "secrets")
            for one in (await api.get(f"{namespace}/{kind}"))["items"]
        ]
        assert not [name for name in left if "check" in name]


async def changes(api: Api, namespace: str) -> None:
    """Have something happen to a Pod of no relay: nothing that was known at a watch's start brings a bookmark."""
    await api.create(f"{namespace}/pods", a_pod("changing"))
    for number in itertools.count():
        change = {"metadata": {"annotations": {"nest-relay/number": str(number)}}}
        await api.patch(f"{namespace}/pods/changing", change, MERGE)
        await asyncio.sleep(0.5)


async def test_a_watch_goes_on_by_bookmarks_and_says_when_it_cannot(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(await account(cluster, api, namespace)))
    monkeypatch.setattr("relay_supervisor.fleet.pods.api.WATCHED", 6)
    # A server that is late with its bookmark ends the watch before it: then the next one may have it.
    monkeypatch.setattr("relay_supervisor.fleet.pods.api._LATE", 100.0)
    labels = {"nest-relay/relay": "trial"}
    client = ClusterApi(namespace.rpartition("/")[2])
    try:
        found, version = await client.list(PODS, labels)
        assert found == []
        container = {"name": "worker", "image": "this-machine", "command": ["sleep", "100"]}
        pod = {"metadata": {"name": "one", "labels": labels}, "spec": {"containers": [container]}}
        await client.create(PODS, pod)
        events, seen, began = client.watch(PODS, labels, version), list[tuple[str, str]](), time.monotonic()
        somebody_else = asyncio.create_task(changes(api, namespace))
        async with asyncio.timeout(120.0):
            async for event, what in events:
                seen.append((event, what["metadata"].get("name", "")))
                version = what["metadata"]["resourceVersion"]
                if event == "BOOKMARK" and time.monotonic() - began > 6:
                    break  # of a later request, which the library has made by itself
        somebody_else.cancel()
        assert seen[0] == ("ADDED", "one")
        assert {name for event, name in seen if event != "BOOKMARK"} == {"one"}
        await client.delete(PODS, "one", 0)
        await client.delete(PODS, "one", 0)  # it is gone: nothing happens
        await api.gone(f"{namespace}/pods/one")
        assert await anext(aiter(client.watch(PODS, labels, version)))
        cluster.control_plane.api_server_dies()
        with pytest.raises(ApiAway, match="does not answer"):
            await client.list(PODS, labels)
        await cluster.control_plane.api_server_back()
        with pytest.raises(ApiRefused) as refused:  # the server has begun to remember later than that
            await anext(aiter(client.watch(PODS, labels, "1")))
        assert refused.value.too_old
        with pytest.raises(ApiRefused, match="is forbidden") as refused:
            await client.delete(LEASES, "one")
        assert not refused.value.too_old
    finally:
        await client.aclose()
