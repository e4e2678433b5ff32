"""The engine of the cluster's tests is a true one: what the relay relies on in Kubernetes is so here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api, ApiRefused, Json
from tests.cluster.engine import Cluster, by_request_alone, need_cluster
from tests.cluster.pods import a_pod, beats, exit_code, last_words, of, phase, run, waiting
from tests.fixtures.product_source import ROOT

pytestmark = pytest.mark.timeout(400)


async def test_pods_spread_over_the_nodes_and_their_ends_are_told(cluster: Cluster, api: Api, namespace: str) -> None:
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "it"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    entries = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "TEXT", "value": "$(NODE) and $$(NODE)"},
    ]
    script = 'echo "$TEXT"; hostname; sleep 1; exit '
    for code in range(3):
        pod = a_pod(f"pod{code}", script + str(code), affinity=affinity, container={"env": entries})
        await api.create(f"{namespace}/pods", pod)
    ended = [await api.until(f"{namespace}/pods/pod0", phase("Succeeded"))]
    ended += [await api.until(f"{namespace}/pods/pod{code}", phase("Failed")) for code in (1, 2)]
    assert {pod["spec"]["nodeName"] for pod in ended} == {"node1", "node2", "node3"}
    assert [exit_code(pod) for pod in ended] == [0, 1, 2]
    node, uid = of(cluster, ended[2])
    assert node.log(uid) == f"{node.name} and $(NODE)\npod2\n"


async def test_a_secret_arrives_as_files_also_when_it_comes_late(cluster: Cluster, api: Api, namespace: str) -> None:
    script = (
        "cat /etc/relay-test/key; stat -L -c %a /etc/relay-test/key; touch /etc/relay-test/x 2>&1 && exit 9; exit 0"
    )
    volumes = [{"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}}]
    mounts = [{"name": "keys", "mountPath": "/etc/relay-test", "readOnly": True}]
    await api.create(f"{namespace}/pods", a_pod("reader", script, volumes=volumes, container={"volumeMounts": mounts}))
    await api.until(f"{namespace}/pods/reader", lambda pod: waiting(pod) == "ContainerCreating")
    secret = {"metadata": {"name": "keys"}, "data": {"key": b64encode(b"sesame\n").decode()}}
    await api.create(f"{namespace}/secrets", secret)
    pod = await api.until(f"{namespace}/pods/reader", phase("Succeeded"))
    node, uid = of(cluster, pod)
    assert node.log(uid).startswith("sesame\n400\n")
    assert not Path("/etc/relay-test").exists()
    assert str(cluster.folder) not in Path("/proc/mounts").read_text()
    # Only the node that runs it may read it.
    other = next(other for other in cluster.nodes if other is not node)
    async with cluster.api(other.kubeconfig) as stranger:
        with pytest.raises(ApiRefused, match="no relationship found"):
            await stranger.get(f"{namespace}/secrets/keys")


async def test_a_secret_goes_with_the_pod_that_owns_it(api: Api, namespace: str) -> None:
    pod = await run(api, namespace, a_pod("owner"))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "owner", "uid": pod["metadata"]["uid"]}
    await api.create(f"{namespace}/secrets", {"metadata": {"name": "owned", "ownerReferences": [owner]}})
    await api.create(f"{namespace}/secrets", {"metadata": {"name": "free"}})
    await api.delete(f"{namespace}/pods/owner")
    await api.gone(f"{namespace}/secrets/owned")
    await api.get(f"{namespace}/secrets/free")


async def test_a_role_allows_what_it_says_and_nothing_else(cluster: Cluster, api: Api, namespace: str) -> None:
    name = namespace.rpartition("/")[2]
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get"]}]
    await api.create(f"{roles}/roles", {"metadata": {"name": "starter"}, "rules": rules})
    await api.create(f"{namespace}/serviceaccounts", {"metadata": {"name": "starter"}})
    binding = {
        "metadata": {"name": "starter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "starter"},
        "subjects": [{"kind": "ServiceAccount", "name": "starter", "namespace": name}],
    }
    await api.create(f"{roles}/rolebindings", binding)
    async with cluster.api(await cluster.service_account(api, name, "starter")) as starter:
        deadline = time.monotonic() + 20
        while True:  # the authorizer hears of the binding a moment later
            try:
                await starter.create(f"{namespace}/pods", a_pod("mine"))
                break
            except ApiRefused as error:
                if error.code != 403 or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
        await starter.get(f"{namespace}/pods/mine")
        for path in (
            f"{namespace}/pods",
            f"{namespace}/secrets",
            "/api/v1/namespaces/default/pods/mine",
            "/api/v1/nodes",
        ):
            with pytest.raises(ApiRefused, match="403"):
                await starter.get(path)
        with pytest.raises(ApiRefused, match="403"):
            await starter.delete(f"{namespace}/pods/mine")


async def test_who_writes_from_an_old_version_is_refused(api: Api, namespace: str) -> None:
    path = f"{namespace}/configmaps"
    first = await api.create(path, {"metadata": {"name": "journal"}, "data": {"by": "nobody"}})
    await api.replace(f"{path}/journal", {**first, "data": {"by": "one"}})
    with pytest.raises(ApiRefused) as refused:
        await api.replace(f"{path}/journal", {**first, "data": {"by": "another"}})
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    assert (await api.get(f"{path}/journal"))["data"] == {"by": "one"}


async def test_deletion_asks_first_and_kills_after_the_grace_period(cluster: Cluster, api: Api, namespace: str) -> None:
    polite = await run(api, namespace, a_pod("polite"))
    deaf = await run(api, namespace, a_pod("deaf", "while :; do echo beat; sleep 0.1; done"))
    assert await beats(cluster, polite)  # so its trap is set
    began = time.monotonic()
    for name in ("polite", "deaf"):
        marked = await api.delete(f"{namespace}/pods/{name}", gracePeriodSeconds=3)
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 3
    assert (await last_words(cluster, api, f"{namespace}/pods/polite", polite)).endswith("asked to end\n")
    await api.gone(f"{namespace}/pods/deaf")
    assert time.monotonic() - began > 2.5
    assert not await beats(cluster, deaf, within=2)


async def test_what_nodes_have_no_room_for_waits_and_says_why(api: Api, namespace: str) -> None:
    def of_size(name: str, processors: str) -> Json:
        return a_pod(name, container={"resources": {"requests": {"cpu": processors}}})

    await asyncio.gather(*(run(api, namespace, of_size(f"large{number}", "1500m")) for number in range(3)))
    await api.create(f"{namespace}/pods", of_size("late", "1"))

    def unschedulable(pod: Json) -> bool:
        reasons = {item.get("reason"): item.get("message", "") for item in pod["status"].get("conditions", ())}
        return "Insufficient cpu" in reasons.get("Unschedulable", "")

    await api.until(f"{namespace}/pods/late", unschedulable)
    await api.delete(f"{namespace}/pods/large1")
    await api.until(f"{namespace}/pods/late", phase("Running"))


async def test_pods_of_a_killed_node_stay_until_told(cluster: Cluster, api: Api, namespace: str) -> None:
    pods = [await run(api, namespace, a_pod(name)) for name in ("stays", "told")]
    lost = [of(cluster, pod)[0] for pod in pods]
    for node in dict.fromkeys(lost):
        node.power_off()
    try:
        assert not await beats(cluster, pods[0], within=2)
        # Told at once, while the API still takes the node for ready: it cannot end what nobody answers for.
        await api.delete(f"{namespace}/pods/told", gracePeriodSeconds=1)
        for node in lost:
            await api.until(f"/api/v1/nodes/{node.name}", unreachable, within=90)
        assert phase("Running")(await api.get(f"{namespace}/pods/stays"))
        assert (await api.get(f"{namespace}/pods/told"))["metadata"]["deletionTimestamp"]
        await api.delete(f"{namespace}/pods/told", gracePeriodSeconds=0)
        await api.gone(f"{namespace}/pods/told")
    finally:
        for node in dict.fromkeys(lost):
            node.power_on()
    # Its power is back, and the kubelet knows of no such process.
    pod = await api.until(f"{namespace}/pods/stays", phase("Failed"))
    assert exit_code(pod) == 255


def unreachable(node: Json) -> bool:
    ready = next(item for item in node["status"]["conditions"] if item["type"] == "Ready")
    return bool(ready["status"] == "Unknown")


async def test_what_a_partitioned_node_was_not_told_ends_at_heal(cluster: Cluster, api: Api, namespace: str) -> None:
    pod = await run(api, namespace, a_pod("cut-off"))
    node, _ = of(cluster, pod)
    node.partition()
    try:
        await api.delete(f"{namespace}/pods/cut-off", gracePeriodSeconds=0)
        await api.gone(f"{namespace}/pods/cut-off")
        assert await beats(cluster, pod)
    finally:
        node.heal()
    deadline = time.monotonic() + 60
    while await beats(cluster, pod, within=2):
        assert time.monotonic() < deadline


async def test_a_pod_bound_to_a_node_that_does_not_start_it_hangs(cluster: Cluster, api: Api, namespace: str) -> None:
    node = cluster.nodes[0]
    node.kubelet_stop()
    try:
        pod = a_pod("bound", nodeSelector={"kubernetes.io/hostname": node.name})
        await api.create(f"{namespace}/pods", pod)
        await api.until(f"{namespace}/pods/bound", lambda pod: "nodeName" in pod["spec"])
        node.power_off()
        await asyncio.sleep(2)
        assert (await api.get(f"{namespace}/pods/bound"))["status"]["phase"] == "Pending"
    finally:
        node.power_off()
        node.power_on()
    await api.until(f"{namespace}/pods/bound", phase("Running"))


async def test_a_dead_kubelet_takes_nothing_with_it(cluster: Cluster, api: Api, namespace: str) -> None:
    lasting = await run(api, namespace, a_pod("lasting"))
    node, _ = of(cluster, lasting)
    here = {"kubernetes.io/hostname": node.name}
    brief = await run(api, namespace, a_pod("brief", nodeSelector=here))
    assert await beats(cluster, brief)
    node.kubelet_stop()
    try:
        await api.delete(f"{namespace}/pods/lasting")
        node.signal(f"{namespace.rpartition('/')[2]}/brief", signal.SIGTERM)
        assert await beats(cluster, lasting)
        assert phase("Running")(await api.get(f"{namespace}/pods/brief"))
    finally:
        node.kubelet_start()
    pod = await api.until(f"{namespace}/pods/brief", phase("Failed"))
    assert exit_code(pod) == 7
    await api.gone(f"{namespace}/pods/lasting")


async def test_a_kubelet_that_is_back_tells_the_end_of_what_it_found(
    cluster: Cluster, api: Api, namespace: str
) -> None:
    pod = await run(api, namespace, a_pod("found"))
    node, _ = of(cluster, pod)
    assert await beats(cluster, pod)
    node.kubelet_stop()
    node.kubelet_start()
    await asyncio.sleep(2)  # it has listed its Pods
    node.signal(f"{namespace.rpartition('/')[2]}/found", signal.SIGTERM)
    # Before it lists them again after half a minute of silence.
    assert exit_code(await api.until(f"{namespace}/pods/found", phase("Failed"), within=20)) == 7


async def test_a_drained_node_loses_its_pods_and_gets_no_new_ones(cluster: Cluster, api: Api, namespace: str) -> None:
    pod = await run(api, namespace, a_pod("evicted"))
    node, _ = of(cluster, pod)
    assert await beats(cluster, pod)
    await cluster.drain(api, node)
    try:
        assert (await last_words(cluster, api, f"{namespace}/pods/evicted", pod)).endswith("asked to end\n")
        again = [await run(api, namespace, a_pod(f"again{number}")) for number in range(3)]
        assert node.name not in {pod["spec"]["nodeName"] for pod in again}
    finally:
        await cluster.uncordon(api, node)


async def test_pods_live_on_without_api_server(cluster: Cluster, api: Api, namespace: str) -> None:
    pod = await run(api, namespace, a_pod("unmoved"))
    ends = await run(api, namespace, a_pod("ends"))
    assert await beats(cluster, ends)  # so its trap is set
    cluster.control_plane.api_server_dies()
    try:
        assert await beats(cluster, pod)
        node, _ = of(cluster, ends)
        node.signal(f"{namespace.rpartition('/')[2]}/ends", signal.SIGTERM)
    finally:
        await cluster.control_plane.api_server_back()
    async with cluster.api() as anew:
        await anew.until(f"{namespace}/pods/ends", phase("Failed"))
        assert phase("Running")(await anew.get(f"{namespace}/pods/unmoved"))
        await run(anew, namespace, a_pod("new"))


def test_nothing_outlives_a_test_that_was_killed(tmp_path: Path) -> None:
    by_request_alone()
    need_cluster()
    command = [sys.executable, "-m", "tests.cluster", "--nodes", "1"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, **pipes) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().partition("--kubeconfig ")[2].split()[0]).parents[1]
        assert len(speaking_of(folder)) >= 6  # the control plane, the node and its kubelet
        device = Path(f"/sys/class/net/kube{process.pid}")
        assert device.exists()
        process.kill()
    deadline = time.monotonic() + 30
    while speaking_of(folder) or device.exists():
        assert time.monotonic() < deadline, speaking_of(folder)
        time.sleep(0.1)


def speaking_of(folder: Path) -> list[str]:
    """The commands of running processes that name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if str(folder) in line:
            found.append(line)
    return found
