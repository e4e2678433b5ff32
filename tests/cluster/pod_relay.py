"""A real supervisor in this process whose workers are Pods of a cluster; simulators that the Pods reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from msgspec.structs import replace

from relay_common.config import Config
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from relay_supervisor.fleet.pods.pod_launcher import PodLauncher
from relay_supervisor.fleet.pods.suspects import Suspects
from tests.cluster.api import Api, Json
from tests.cluster.engine import Cluster
from tests.fixtures.ports import free_ports
from tests.fixtures.product_source import ROOT
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay

RELAY: Final = "trial"
FPS: Final = 10
"""Pictures a second of cameras whose figures are not compared with others': with 30 as usual they take a fifth more of
the processor, and their clips three times as long to be made."""
LIVE: Final = 120.0
"""Seconds until all are live, on a machine that has much else to do."""
BETWEEN_LOOKS: Final = 0.25
"""Seconds between two looks at what is waited for: each takes some 40 ms of the processor from what is looked at."""
IMAGE: Final = "registry.example/nest-relay:0.1.0"
LOOPBACK: Final = "127.0.0.1"
CERTIFICATES: Final = "/etc/relay-ca"
MANIFEST: Final = ROOT / "deploy/kubernetes/rbac.yaml"
"""All that the supervisor may do in its namespace, as it is shipped."""


class PodRelay(RunningRelay):
    """The supervisor, the simulators, and what the cluster has of them."""

    api: Api
    namespace: str

    def forget_faults(self) -> None:
        """Have the relay take every node for a good one, and every worker for one that has not ended lately."""
        launcher, fleet = self.supervisor._launcher, self.supervisor.fleet
        assert isinstance(launcher, PodLauncher)
        vars(launcher._book)["suspects"] = Suspects()
        for camera in self.supervisor.status().cameras:
            if (slot := fleet.slot(camera.id)) is not None:
                slot.policy._deaths.clear()

    async def pods(self) -> dict[str, Json]:
        """The Pods of this relay's workers, by instance."""
        found = await self.api.get(f"{self.namespace}/pods", labelSelector=f"nest-relay/relay={RELAY}")
        return {pod["metadata"]["labels"]["nest-relay/instance"]: pod for pod in found["items"]}

    async def secrets(self) -> list[Json]:
        found = await self.api.get(f"{self.namespace}/secrets", labelSelector=f"nest-relay/relay={RELAY}")
        items: list[Json] = found["items"]
        return items

    async def generates(self) -> int:
        """Generate commands that the simulated Google has seen."""
        commands = (await self.nest("commands"))["commands"]
        return sum(command["command"].startswith("Generate") for command in commands)

    async def elsewhere(self, old: dict[str, str], within: float, what: str) -> float:
        """Wait until these cameras (by id, with their worker's instance) are live with other workers."""

        def moved() -> bool:
            cameras = {c.id: c for c in self.supervisor.status().cameras}
            return all(
                cameras[one].state == "live" and cameras[one].worker.instance not in (was, "")
                for one, was in old.items()
            ) and all(camera.state == "live" for camera in cameras.values())

        return await self.until(moved, within, what)


class Trial:
    """The world of one test, and its supervisors one after the other."""

    def __init__(
        self,
        cluster: Cluster,
        api: Api,
        namespace: str,
        world: DemoWorld,
        http: httpx.AsyncClient,
        limits: dict[str, dict[str, Any]],
    ) -> None:
        self._limits = limits
        self.cluster, self.api, self.namespace, self.world, self.http = cluster, api, namespace, world, http
        self._port = free_ports(2)[0]
        self._template = world.directory / "worker.yaml"

    def sections(self, **cluster: Any) -> dict[str, dict[str, Any]]:
        """Those of the configuration with which workers are Pods."""
        name = self.namespace.rpartition("/")[2]
        listen = f"{self.cluster.network.gateway}:{self._port}"
        keys = {
            "namespace": name,
            "image": "registry.example/nest-relay:0.1.0",
            "identity": RELAY,
            "bus_listen": listen,
        }
        keys["worker_template"] = str(self._template)
        return self._limits | {"cluster": keys | cluster, "rtsp": {"ca_file": f"{CERTIFICATES}/ca.pem"}}

    def _config(self, **cluster: Any) -> Config:
        """A configuration file may not name APIs over plain HTTP elsewhere than on loopback, where these are not."""
        host, known = self.cluster.network.gateway, self.world.endpoints
        endpoints = {"nest": known["nest"], "cloudflare": known["cloudflare"]}
        near = json.loads(json.dumps(endpoints).replace(host, LOOPBACK))
        config = self.world.config(**near | self.sections(**cluster))
        far = {key: str(known["nest"][key]) for key in ("api_base_url", "token_url")}
        sfu = replace(config.cloudflare, api_base_url=str(known["cloudflare"]["api_base_url"]))
        return replace(config, nest=[replace(config.nest[0], **far)], cloudflare=sfu)

    async def prepare(self) -> None:
        """Make what an operator makes: authorities' certificates for the workers, and the template that mounts them."""
        ca = Path(self.world.endpoints["rtsp"]["ca_file"]).read_text()
        await self.api.create(
            f"{self.namespace}/configmaps", {"metadata": {"name": "relay-ca"}, "data": {"ca.pem": ca}}
        )
        self.template()

    def template(self, cpu: str = "10m") -> None:
        """Write the template, with so much CPU for each worker."""
        self._template.write_text(
            "spec:\n"
            "  containers:\n"
            "    - name: worker\n"
            f"      resources: {{requests: {{cpu: {cpu}, memory: 32Mi}}}}\n"
            f"      volumeMounts: [{{name: ca, mountPath: {CERTIFICATES}}}]\n"
            "  volumes: [{name: ca, configMap: {name: relay-ca}}]\n"
        )

    @contextlib.asynccontextmanager
    async def supervisor(
        self, *, keep_workers: bool = False, cpu: str = "10m", **cluster: Any
    ) -> AsyncIterator[PodRelay]:
        """Run a supervisor; with `keep_workers` it leaves its workers to the next one."""
        self.template(cpu)
        supervisor = Supervisor(self._config(**cluster))
        relay = PodRelay(supervisor, self.world, self.http)
        relay.api, relay.namespace = self.api, self.namespace
        await supervisor.start()
        try:
            yield relay
        finally:
            await supervisor.stop(keep_workers=keep_workers)


async def account(cluster: Cluster, api: Api, namespace: str, *, bound: bool = True) -> Path:
    """A kubeconfig of the service account that is shipped; it may do what its role says, without `bound` nothing."""
    name = namespace.rpartition("/")[2]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"
    paths = {"ServiceAccount": namespace, "Role": rbac, "RoleBinding": rbac}
    for document in yaml.safe_load_all(MANIFEST.read_text().replace("namespace: nest-relay", f"namespace: {name}")):
        if bound or document["kind"] != "RoleBinding":
            await api.create(f"{paths[document['kind']]}/{document['kind'].lower()}s", document)
    return await cluster.service_account(api, name, "nest-relay")


@contextlib.asynccontextmanager
async def trial(
    cluster: Cluster,
    api: Api,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    cameras: int,
    options: Sequence[str] = (),
    *,
    limited: bool = False,
    fps: int = FPS,
) -> AsyncIterator[Trial]:
    """Simulators at the address that the nodes reach, and all that a supervisor needs; `limited` by Google's limits."""
    host = ("--host", cluster.network.gateway)
    nest = (*SMALL, "--fps", str(fps), *(() if limited else ("--unlimited",)), *host, *options)
    async with (
        demo_world(cameras, "320x180", nest, host) as world,
        httpx.AsyncClient(timeout=10.0, verify=False) as http,
    ):
        found = Trial(cluster, api, namespace, world, http, {} if limited else UNLIMITED)
        await found.prepare()
        monkeypatch.setenv("KUBECONFIG", str(await account(cluster, api, namespace)))
        yield found


async def until(condition: Any, within: float, what: str) -> float:
    """Wait for an asynchronous condition; returns the seconds it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < within, f"after {within:.0f} s still not: {what}"
        await asyncio.sleep(BETWEEN_LOOKS)
    return time.monotonic() - began
