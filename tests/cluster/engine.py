"""A Kubernetes of its own for tests: a true control plane, and nodes that can be killed, cut off and brought back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, NoReturn

import pytest

from tests.cluster import binaries
from tests.cluster.api import MERGE, Api, ApiRefused, Json
from tests.cluster.control_plane import ControlPlane
from tests.cluster.image import relay_image
from tests.cluster.network import Network, not_permitted
from tests.fixtures.product_source import ROOT

CAPACITY: Final[Mapping[str, str]] = {"cpu": "2", "memory": "4Gi", "pods": "110"}
READY_SECONDS: Final = 120
RELAY_IMAGE: Final = "registry.example/nest-relay"
"""As the manifests call it."""


class ClusterNode:
    """One machine, whose kubelet is played (`kubelet.py`). Its methods block for milliseconds."""

    PROGRAM: ClassVar[str] = "tests.cluster.kubelet"
    """Its first process, which obeys lines on its standard input."""
    NAMESPACES: ClassVar[tuple[str, ...]] = ("--pid", "--mount")
    TAKES_CALLS: ClassVar[bool] = False
    """Whether it takes calls of the API server's: exec, port-forward, logs."""

    @staticmethod
    def missing() -> str | None:
        """Why there can be no such node here; None where there can."""
        return None

    def __init__(self, cluster: Cluster, number: int, capacity: Mapping[str, str], ahead: float = 0.0) -> None:
        self.name: Final = f"node{number}"
        self._cluster, self._number, self._capacity = cluster, number, capacity
        self._process: subprocess.Popen[str] | None = None
        self._clock: Final = clock_ahead(ahead) if ahead else {}
        folder = cluster.folder / self.name
        folder.mkdir()
        self.folder: Final = folder
        user = f"system:node:{self.name}"
        self.kubeconfig: Final = cluster.control_plane.authority.kubeconfig(
            cluster.control_plane.server, user, ["system:nodes"]
        )
        self.power_on()

    def power_on(self) -> None:
        """Boot it. What ran on it before does not run any more."""
        namespace, self.address = self._cluster.network.add_node(self._number)
        file = self.folder / "config.json"
        file.write_text(json.dumps(self.config()))
        enter = [*self.enter(), "nsenter", f"--net={namespace}", "--", "setpriv", "--pdeathsig", "KILL", "--"]
        init = ("unshare", *self.NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc", "--")
        with (self.folder / "kubelet.log").open("a") as log:
            self._process = subprocess.Popen(
                [*enter, *init, sys.executable, "-m", self.PROGRAM, str(file)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        try:
            self._tell("start")
        except BaseException:
            self.close()
            raise

    def config(self) -> Json:
        """What its first process is told."""
        cluster = self._cluster
        return {
            "name": self.name,
            "address": self.address,
            "folder": str(self.folder),
            "kubeconfig": str(self.kubeconfig),
            "capacity": dict(self._capacity),
            "images": {name: dataclasses.asdict(image) for name, image in cluster.images.items()},
            "environment": {
                "KUBERNETES_SERVICE_HOST": cluster.network.gateway,
                "KUBERNETES_SERVICE_PORT": str(cluster.control_plane.port),
                **self._clock,
            },
        }

    def enter(self) -> list[str]:
        """What the command of its first process is preceded by."""
        return []

    def power_off(self) -> None:
        """Its power goes: nobody hears from it any more, not even that its connections have ended."""
        if self._process is None:
            return
        self.partition()
        self._process.kill()
        self._process.communicate()
        self._process = None
        self._cluster.network.remove_node(self._number)

    def close(self) -> None:
        """Leave nothing of it behind."""
        self.power_off()

    def partition(self) -> None:
        """No packet reaches it or comes from it, in silence; its processes live on."""
        self._cluster.network.partition(self._number)

    def heal(self) -> None:
        self._cluster.network.partition(self._number, cut=False)

    def block(self, port: int) -> None:
        """Nothing that goes to a TCP port, or comes from it, reaches this node or leaves it, in silence."""
        self._cluster.network.block(self._number, port)

    def unblock(self, port: int) -> None:
        self._cluster.network.block(self._number, port, cut=False)

    def kubelet_stop(self) -> None:
        """The kubelet dies; the Pods' processes live on."""
        self._tell("stop")

    def kubelet_start(self) -> None:
        self._tell("start")

    def signal(self, pod: str, number: int) -> None:
        """Send a signal to the process of a Pod, named as NAMESPACE/NAME."""
        self._tell(f"signal {pod} {number}")

    def log(self, uid: str) -> str:
        """What the Pod of that uid wrote to its output."""
        file = self.folder / uid / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def entrance(self) -> list[str]:
        """What a command is preceded by that is to run in its network."""
        return ["nsenter", f"--net={self._cluster.network.place(self._number)}", "--"]

    def pods(self) -> list[list[int]]:
        """The processes of each Pod, by their numbers on this machine."""
        every = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in self._cluster.network.processes(self._number)}
        return [[pid] for pid, command in every.items() if "tests.cluster.kubelet" not in command]

    def first_process(self, pod: str) -> int:
        """The process, by its number on this machine, with which the container of the Pod of that name began."""
        for pid in self._cluster.network.processes(self._number):
            host = subprocess.run(
                ["nsenter", f"--target={pid}", "--uts", "uname", "--nodename"],
                capture_output=True,
                text=True,
                check=False,
            )
            if host.stdout.strip() == pod and _is_first(pid):
                return pid
        raise LookupError(f"no process of {pod} on {self.name}")

    def _tell(self, line: str) -> None:
        process = self._process
        assert process is not None, f"{self.name} has no power"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        answer = process.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"{self.name}: {line}: {answer or (self.folder / 'kubelet.log').read_text()[-2000:]}")


def _is_first(pid: int) -> bool:
    """Whether it is the first process of its own PID namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return False
    return any(line.split()[-1] == "1" for line in status.splitlines() if line.startswith("NSpid:"))


class Cluster:
    """Made by `running_cluster`. Everything is kept in `folder`, also the logs."""

    def __init__(self, folder: Path, network: Network, kind: type[ClusterNode] = ClusterNode) -> None:
        self.folder: Final = folder
        self.network: Final = network
        self._kind = kind
        self.control_plane: Final = ControlPlane(folder, network.gateway)
        self.images: Final = {RELAY_IMAGE: relay_image(folder / "image", self.control_plane.authority.certificate)}
        self.nodes: Final[list[ClusterNode]] = []

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.control_plane.admin

    def add_node(self, capacity: Mapping[str, str] = CAPACITY, ahead: float = 0.0) -> ClusterNode:
        """The wall clock of its Pods is so many seconds ahead."""
        self.nodes.append(node := self._kind(self, len(self.nodes) + 1, capacity, ahead))
        return node

    def api(self, kubeconfig: Path | None = None) -> Api:
        """The API as the administrator, or as whom the file names."""
        return Api(kubeconfig or self.kubeconfig)

    async def ready(self) -> None:
        """Return once every node takes Pods. Raises TimeoutError."""
        async with self.api() as api:
            await asyncio.gather(*(self.node_ready(api, node.name) for node in self.nodes))

    async def node_ready(self, api: Api, name: str) -> None:
        def takes_pods(node: Json) -> bool:
            conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
            return conditions.get("Ready") == "True" and not node["spec"].get("taints")

        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    await api.until(f"/api/v1/nodes/{name}", takes_pods, READY_SECONDS)
                except ApiRefused:
                    await asyncio.sleep(0.1)  # not registered yet
                else:
                    return

    async def make_namespace(self, api: Api, name: str) -> str:
        """Make a namespace in which Pods can be created; returns the path of what is in it."""
        await api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        path = f"/api/v1/namespaces/{name}"
        await api.until(f"{path}/serviceaccounts", lambda found: any(item.get("secrets") for item in found["items"]))
        return path

    async def service_account(self, api: Api, namespace: str, name: str) -> Path:
        """A kubeconfig file with a token of a service account, which may do what RBAC says."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = await api.create(path, {"spec": {"expirationSeconds": 7200}})
        plane = self.control_plane
        secrets = {"token": token["status"]["token"]}
        return plane.authority.kubeconfig_with(plane.server, f"{namespace}-{name}", secrets, namespace)

    async def drain(self, api: Api, node: ClusterNode) -> None:
        """As `kubectl drain`: nothing new on the node, and every Pod is told to go."""
        await self.cordon(api, node)
        pods = await api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node.name}")
        for pod in pods["items"]:
            metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
            eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": metadata}
            await api.create(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/eviction", eviction)

    async def cordon(self, api: Api, node: ClusterNode) -> None:
        """Nothing new on the node."""
        await api.patch(f"/api/v1/nodes/{node.name}", {"spec": {"unschedulable": True}}, MERGE)

    async def uncordon(self, api: Api, node: ClusterNode) -> None:
        """Pods may come again."""
        await api.patch(f"/api/v1/nodes/{node.name}", {"spec": {"unschedulable": None}}, MERGE)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.control_plane.stop()


def clock_ahead(seconds: float) -> dict[str, str]:
    """Variables by which a program's wall clock is ahead; {} without libfaketime, which `.ci/run` installs."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return {}
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+.1f}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def unavailable(kind: type[ClusterNode] = ClusterNode) -> str | None:
    """Why there can be no cluster here; None where there can."""
    return not_permitted() or binaries.missing() or kind.missing()


def need_cluster(kind: type[ClusterNode] = ClusterNode) -> None:
    """Skip the test where there can be no cluster."""
    if why := unavailable(kind):
        skipped(why)


def by_request_alone() -> None:
    """Skip the test unless RELAY_REQUIRE_CLUSTER=1: beside other tests a cluster takes the processor from them."""
    if os.environ.get("RELAY_REQUIRE_CLUSTER") != "1":
        pytest.skip("`make cluster` runs it")


def skipped(why: str) -> NoReturn:
    """Skip the test, or fail it where none of the cluster's may be skipped: with RELAY_REQUIRE_CLUSTER=1."""
    if os.environ.get("RELAY_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"{why}, and RELAY_REQUIRE_CLUSTER=1")
    pytest.skip(why)


@contextmanager
def running_cluster(
    folder: Path, nodes: int = 3, kind: type[ClusterNode] = ClusterNode, ahead: float = 0.0
) -> Iterator[Cluster]:
    """A cluster with so many nodes of a kind, which `Cluster.ready` waits for.

    To be called in the main thread, as `Program` is. The clock of each second node is `ahead` of the others' by so many
    seconds. Skips the test where there can be none.
    """
    need_cluster(kind)
    network = Network()
    try:
        cluster = Cluster(folder, network, kind)
        try:
            cluster.control_plane.start()
            for number in range(nodes):
                cluster.add_node(ahead=ahead * (number % 2))
            yield cluster
        finally:
            cluster.close()
    finally:
        network.close()
