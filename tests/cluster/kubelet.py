"""A node for tests: what it tells the API server is what a kubelet tells, and its Pods are processes (`container.py`).

`engine.py` runs it as the first process of a PID namespace, in a network namespace: `python -m tests.cluster.kubelet
CONFIG`. So the node's power goes by one SIGKILL, and with the test's own process. The node obeys lines on its standard
input and answers each with one: `stop` and `start` end the kubelet and start it anew, while the Pods' processes live
on; `signal NAMESPACE/NAME NUMBER` goes to a Pod's process.

Left out: several containers a Pod, limits, seccomp, logs and exec through the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from tests.cluster.api import Api, ApiRefused, Json
from tests.cluster.container import Container
from tests.cluster.pod_launch import NotPlayed, NotYet, pod_launch
from tests.cluster.probes import Probes

LEASE_SECONDS: Final = 40
RENEW_SECONDS: Final = 10.0
"""Kubernetes' defaults, as the grace periods of the controller manager are."""
STATUS_SECONDS: Final = 60.0
_RETRY: Final = 1.0
_AT_ONCE: Final = 0.001
_FIRST_BACKOFF, _LONGEST_BACKOFF = 10.0, 300.0
"""Seconds before a container is started again, from its second restart on; doubled each time."""
_NOT_THIS_POD: Final = (404, 409)
"""It is gone, or the name belongs to another one now."""
_LOST: Final = 255
"""The exit code of what a reboot ended."""


def stamp(at: float | None = None) -> str:
    """RFC 3339, UTC, as the API writes times."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Node:
    """What outlives the kubelet: the processes, by the Pod's uid."""

    def __init__(self, config: Json) -> None:
        self.name: Final[str] = config["name"]
        self.address: Final[str] = config["address"]
        self.folder: Final = Path(config["folder"])
        self.kubeconfig: Final = Path(config["kubeconfig"])
        self.environment: Final[dict[str, str]] = config["environment"]
        self.images: Final[dict[str, Json]] = config["images"]
        capacity = {resource: str(amount) for resource, amount in config["capacity"].items()}
        self.resources: Final = {"capacity": capacity, "allocatable": capacity}
        self.boot: Final = str(uuid.uuid4())
        self.containers: Final[dict[str, Container]] = {}
        self.names: Final[dict[str, str]] = {}


class Kubelet:
    """Keeps what the API server wants of the node, until cancelled."""

    def __init__(self, node: Node, api: Api) -> None:
        self._node, self._api = node, api
        self._pods: dict[str, Json] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._reported: dict[str, Json] = {}
        self._probes: dict[str, Probes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Register the node, then keep its Lease, its status and its Pods."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(self._renew, RENEW_SECONDS))
                group.create_task(self._again(self._say_ready, STATUS_SECONDS))
                group.create_task(self._again(self._watch, _RETRY))
        finally:
            for task in self._tasks:
                task.cancel()
            for probes in self._probes.values():
                probes.close()

    async def _again(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await work()
            except (httpx.HTTPError, ApiRefused) as error:
                print(f"{stamp()} {error!r}", file=sys.stderr)
                await asyncio.sleep(_RETRY)
            else:
                await asyncio.sleep(seconds)

    async def _renew(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self._node.name}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        try:
            await self._api.patch(path, {"spec": spec})
        except ApiRefused as error:
            if error.code != 404:
                raise
            await self._api.create(path.rpartition("/")[0], {"metadata": {"name": self._node.name}, "spec": spec})

    async def _say_ready(self) -> None:
        node = self._node
        try:
            await self._api.get(f"/api/v1/nodes/{node.name}")
        except ApiRefused as error:
            if error.code != 404:
                raise
            labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"}
            await self._api.create("/api/v1/nodes", {"metadata": {"name": node.name, "labels": labels}})
        ready = [("Ready", "True", "KubeletReady", "test kubelet is posting ready status")]
        ready += [(f"{kind}Pressure", "False", "KubeletHasSufficient", "") for kind in ("Memory", "Disk", "PID")]
        conditions = [
            dict(zip(("type", "status", "reason", "message"), condition, strict=True))
            | {"lastHeartbeatTime": stamp(), "lastTransitionTime": stamp()}
            for condition in ready
        ]
        unknown = ("machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeProxyVersion")
        info = dict.fromkeys(unknown, "test") | {"kubeletVersion": "v1.20.2", "bootID": node.boot}
        info |= {"operatingSystem": "linux", "architecture": "amd64"}
        addresses = [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}]
        status = {"conditions": conditions, "nodeInfo": info, "addresses": addresses, **node.resources}
        await self._api.patch(f"/api/v1/nodes/{node.name}/status", {"status": status})

    async def _watch(self) -> None:
        async for kind, found in self._api.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={self._node.name}"):
            if kind == "SYNC":
                listed = {pod["metadata"]["uid"]: pod for pod in found["items"]}
                for uid in set(self._pods) | set(self._node.containers):
                    if uid not in listed:
                        self._notice(uid, None)
                for uid, pod in listed.items():
                    self._notice(uid, pod)
            else:
                self._notice(found["metadata"]["uid"], None if kind == "DELETED" else found)

    def _notice(self, uid: str, pod: Json | None) -> None:
        """A Pod is new or changed, or gone from the API."""
        if pod is None:
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        if uid in self._changed:
            self._changed[uid].set()
        elif pod is not None or uid in self._node.containers:
            self._changed[uid] = asyncio.Event()
            task = asyncio.create_task(self._keep(uid))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep(self, uid: str) -> None:
        """Bring one Pod to where it should be, each time that something about it changes, until it is gone."""
        try:
            while True:
                self._changed[uid].clear()
                try:
                    look_again = await self._step(uid)
                except (httpx.HTTPError, ApiRefused) as error:
                    print(f"{self._node.names.get(uid, uid)}: {error!r}", file=sys.stderr)
                    look_again = _RETRY
                if look_again == 0:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed[uid].wait(), look_again)
        finally:
            del self._changed[uid]
            self._forget_probes(uid)

    async def _step(self, uid: str) -> float | None:
        """Seconds until there is something to do again: None when only a change can bring it, 0 once all is done."""
        pod, container = self._pods.get(uid), self._node.containers.get(uid)
        if pod is None:
            if container is not None:
                await self._end(uid, container, 0)
                del self._node.containers[uid]
            return 0
        if pod["metadata"].get("deletionTimestamp"):
            if container is not None:
                await self._end(uid, container, pod["metadata"].get("deletionGracePeriodSeconds", 30))
                await self._report(pod, container)
            try:
                await self._api.delete(_path(pod), gracePeriodSeconds=0, preconditions={"uid": uid})
            except ApiRefused as error:
                if error.code not in _NOT_THIS_POD:
                    raise
            self._node.containers.pop(uid, None)
            return 0
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            return None
        if container is None:
            return await self._first_start(uid, pod)
        if container.exit_code is None:
            if uid not in self._probes:
                self._attend(uid, pod, container)
            if (why := self._probes[uid].failed) is None:
                await self._report(pod, container)
                return None
            print(f"{self._node.names[uid]}: {why}", file=sys.stderr)
            await self._end(uid, container, pod["spec"]["terminationGracePeriodSeconds"])
        self._forget_probes(uid)
        return await self._after_exit(uid, pod, container)

    def _attend(self, uid: str, pod: Json, container: Container) -> None:
        """Hear of what a container does that this kubelet started or found."""

        def changed() -> None:
            if uid in self._changed:
                self._changed[uid].set()

        container.when_ended(changed)
        self._probes[uid] = Probes(pod["spec"]["containers"][0], self._node.address, changed)

    def _forget_probes(self, uid: str) -> None:
        if uid in self._probes:
            self._probes.pop(uid).close()

    async def _first_start(self, uid: str, pod: Json) -> float | None:
        ran = any("running" in status.get("state", {}) for status in pod["status"].get("containerStatuses", ()))
        restarts = 0
        if ran:  # before this node's power went
            restarts = 1
            if pod["spec"]["restartPolicy"] == "Never":
                state = {"terminated": {"exitCode": _LOST, "reason": "Error", "finishedAt": stamp()}}
                await self._write(pod, "Failed", state, 0)
                return None
        folder = self._node.folder / uid
        folder.mkdir(exist_ok=True)
        there = {"podIP": self._node.address, "hostIP": self._node.address}
        try:
            there_pod = {**pod, "status": there}
            launch = await pod_launch(self._api, there_pod, folder, self._node.images, self._node.environment)
        except NotYet as error:
            await self._write(pod, "Pending", {"waiting": {"reason": error.reason, "message": str(error)}}, 0)
            return _RETRY
        except NotPlayed as error:
            state = {"terminated": {"exitCode": 128, "reason": "NotPlayed", "message": str(error)}}
            await self._write(pod, "Failed", state, 0)
            return None
        if uid not in self._pods or self._pods[uid]["metadata"].get("deletionTimestamp"):
            return _RETRY  # gone, or told to go, while we read
        self._node.names[uid] = _name(pod)
        container = self._node.containers[uid] = Container(folder, launch, restarts)
        container.start()
        return _AT_ONCE

    async def _after_exit(self, uid: str, pod: Json, container: Container) -> float | None:
        policy = pod["spec"]["restartPolicy"]
        if policy == "Never" or (policy == "OnFailure" and container.exit_code == 0):
            await self._report(pod, container)
            return None
        wait = min(_FIRST_BACKOFF * 2 ** (container.restarts - 1), _LONGEST_BACKOFF) if container.restarts else 0.0
        left = (container.ended or 0.0) + wait - time.time()
        if left > 0:
            message = f"back-off {wait:.0f}s restarting failed container"
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            await self._write(pod, "Running", state, container.restarts)
            return left
        again = self._node.containers[uid] = Container(container.folder, container.launch, container.restarts + 1)
        again.start()
        return _AT_ONCE

    async def _end(self, uid: str, container: Container, grace: float) -> None:
        """SIGTERM, and SIGKILL after the grace period or once the Pod is gone; returns when the container has ended."""
        deadline = time.monotonic() + grace
        if grace > 0:
            container.send(signal.SIGTERM)
        while container.exit_code is None:
            if time.monotonic() >= deadline or uid not in self._pods:
                container.send(signal.SIGKILL)
            await asyncio.sleep(0.02)

    async def _report(self, pod: Json, container: Container) -> None:
        """Write what the container does into the Pod's status."""
        began = {"startedAt": stamp(container.started)}
        if container.exit_code is None:
            await self._write(pod, "Running", {"running": began}, container.restarts)
            return
        code = container.exit_code
        ended = {**began, "exitCode": code, "finishedAt": stamp(container.ended)}
        ended["reason"] = "Error" if code else "Completed"
        await self._write(pod, "Failed" if code else "Succeeded", {"terminated": ended}, container.restarts)

    async def _write(self, pod: Json, phase: str, state: Json, restarts: int) -> None:
        uid, spec = pod["metadata"]["uid"], pod["spec"]["containers"][0]
        running = "running" in state
        probes = self._probes.get(uid)
        started = running and probes is not None and probes.started
        ready = running and probes is not None and probes.ready
        written = {"phase": phase, "state": state, "restarts": restarts, "ready": ready, "started": started}
        if self._reported.get(uid) == written:
            return
        truth = {True: "True", False: "False"}
        kinds = {"Initialized": True, "ContainersReady": ready, "Ready": ready}
        conditions = [
            {"type": kind, "status": truth[now], "lastTransitionTime": stamp()} for kind, now in kinds.items()
        ]
        container = {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": "",
            "ready": ready,
            "started": started,
            "restartCount": restarts,
            "state": state,
        }
        addresses = {"hostIP": self._node.address, "podIP": self._node.address}
        began = pod["status"].get("startTime", stamp())
        status = {"phase": phase, "conditions": conditions, "containerStatuses": [container], "startTime": began}
        try:
            await self._api.patch(_path(pod) + "/status", {"metadata": {"uid": uid}, "status": status | addresses})
        except ApiRefused as error:
            if error.code not in _NOT_THIS_POD:
                raise
        self._reported[uid] = written


def _name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


class _Power:
    """The node's switches: see the module."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kubelet: asyncio.Task[None] | None = None

    async def obey(self, line: str) -> str:
        """Do what a line says, and answer."""
        match line.split():
            case ["start"]:
                self._kubelet = self._kubelet or asyncio.create_task(self._run())
            case ["stop"]:
                if self._kubelet is not None:
                    self._kubelet.cancel()
                    await asyncio.wait([self._kubelet])
                self._kubelet = None
            case ["signal", name, number]:
                for uid, known in self._node.names.items():
                    if known == name and uid in self._node.containers:
                        self._node.containers[uid].send(signal.Signals(int(number)))
                        return "ok"
                return f"no process of {name}"
            case _:
                return f"not understood: {line}"
        return "ok"

    async def _run(self) -> None:
        try:
            async with Api(self._node.kubeconfig) as api:
                await Kubelet(self._node, api).run()
        except Exception:
            traceback.print_exc()
            os._exit(1)  # which the test hears of, and not that a node is strangely silent


async def _main(config: Json) -> None:
    power = _Power(Node(config))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(await power.obey(line.decode().strip()), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(Path(sys.argv[1]).read_text())))
