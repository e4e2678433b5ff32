"""What true nodes have and played ones lack: limits, cluster addresses, and an image of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import RELAY_IMAGE, Cluster
from tests.cluster.kubelets import cgroups
from tests.cluster.kubelets.node import KubeletNode, kind_of_nodes
from tests.cluster.pods import a_pod, beats, of, phase, run

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(kind_of_nodes() is not KubeletNode, reason="`make test-cluster` runs it"),
]

SERVES: Final = "echo beat; exec python -m http.server 8000 --directory /etc"


async def test_a_pod_runs_within_its_limits_and_is_found(cluster: Cluster, api: Api, namespace: str) -> None:
    limits = {"limits": {"memory": "48Mi"}, "requests": {"cpu": "50m"}}
    pod = await run(api, namespace, a_pod("limited", container={"resources": limits}))
    node, uid = of(cluster, pod)
    assert await beats(cluster, pod)
    (processes,) = node.pods()
    names = sorted(Path(f"/proc/{process}/comm").read_text().strip() for process in processes)
    assert {"pause", "containerd-shim"} < set(names)
    bound = next(cgroups.ROOT.glob(f"memory/relay-cluster-*/kubepods/*/pod{uid}/memory.limit_in_bytes"))
    assert bound.read_text().strip() == str(48 * 2**20)


async def test_the_image_has_all_of_the_relay_compiled(cluster: Cluster, api: Api, namespace: str) -> None:
    compile_nothing = """
import importlib.machinery
def refuse(self, data, path, *, _optimize=-1):
    raise SystemExit(f"{path} is compiled anew")
importlib.machinery.SourceFileLoader.source_to_code = refuse
import relay_worker.process.remote, relay_worker.process.worker, relay_supervisor.app
print("all was compiled")
"""
    container = {"image": f"{RELAY_IMAGE}:0.1.0", "command": ["python", "-c", compile_nothing]}
    await api.create(f"{namespace}/pods", a_pod("compiles", container=container))
    done = await api.until(f"{namespace}/pods/compiles", lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))
    node, uid = of(cluster, done)
    assert node.log(uid).strip() == "all was compiled"


async def test_a_service_leads_to_a_pod_on_another_node(cluster: Cluster, api: Api, namespace: str) -> None:
    image = {"image": f"{RELAY_IMAGE}:0.1.0"}
    server = await run(api, namespace, a_pod("server", SERVES, nodeName="node1", container=image))
    spec = {"selector": {"app": "it"}, "ports": [{"port": 80, "targetPort": 8000}]}
    service = await api.create(f"{namespace}/services", {"metadata": {"name": "web"}, "spec": spec})
    url = f"http://{service['spec']['clusterIP']}/hostname"
    fetch = f"""
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("{url}", timeout=2).read().decode()); break
    except OSError:
        time.sleep(0.2)
else:
    raise SystemExit(1)
"""
    client = a_pod("client", nodeName="node2", container={**image, "command": ["python", "-c", fetch]})
    client["metadata"]["labels"] = {}
    await api.create(f"{namespace}/pods", client)
    done = await api.until(f"{namespace}/pods/client", phase("Succeeded"))
    node, uid = of(cluster, done)
    assert node.log(uid).strip() == "server"
    assert server["spec"]["nodeName"] != done["spec"]["nodeName"]


def test_nothing_of_a_node_is_seen_outside_it() -> None:
    mounts = Path("/proc/mounts").read_text()
    assert "kubelet" not in mounts
    assert "containerd" not in mounts
