"""The manifests, as they are shipped and by the commands of docs/deployment.md, on a true Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.cluster.api import Api, Json
from tests.cluster.dns import name_server
from tests.cluster.engine import Cluster, skipped
from tests.cluster.pods import of
from tests.fixtures.doc_commands import blocks
from tests.fixtures.product_source import ROOT
from tests.fixtures.supervisor_process import toml

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

NAMESPACE: Final = "/api/v1/namespaces/nest-relay"
POD: Final = f"{NAMESPACE}/pods/nest-relay-0"
COMMANDS: Final = "nest-relay/commands=nest-relay"
"""The label of the supervisor that commands."""
WORKERS: Final = "nest-relay/relay=nest-relay"
TOKEN: Final = "a token for the dashboard"
WITHIN: Final = 120.0
"""Seconds for everything, on a machine that has much else to do."""


def fill_in(folder: Path, world: DemoWorld) -> None:
    """What a user writes beside the manifests: relay.toml, and a file for each secret."""
    nest, cloudflare = dict(world.endpoints["nest"]), dict(world.endpoints["cloudflare"])
    secrets = {name: nest.pop(name) for name in ("client_secret", "refresh_token")}
    secrets |= {"app_secret": cloudflare.pop("app_secret"), "http_token": TOKEN, "link_secret": f"links by {TOKEN}"}
    for name, value in secrets.items():
        (folder / name).write_text(value)
    (folder / "relay.toml").write_text(toml({"nest": nest, "cloudflare": cloudflare}))


@contextlib.asynccontextmanager
async def with_tls(cluster: Cluster, world: DemoWorld) -> AsyncIterator[None]:
    """The simulators' servers as Google's and Cloudflare's are: the relay sends no secret elsewhere without TLS."""
    gateway = cluster.network.gateway
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*cluster.control_plane.authority.server("simulators", [gateway]))
    async with contextlib.AsyncExitStack() as servers:
        for section in (world.endpoints["nest"], world.endpoints["cloudflare"]):
            fronts: dict[int, str] = {}
            for name, url in section.items():
                if name.endswith("_url"):
                    parts = urlsplit(url)
                    if parts.port not in fronts:
                        connect = partial(forwarded, gateway, parts.port)
                        server = await asyncio.start_server(connect, gateway, ssl=context)
                        await servers.enter_async_context(server)
                        fronts[parts.port] = f"{gateway}:{server.sockets[0].getsockname()[1]}"
                    section[name] = parts._replace(scheme="https", netloc=fronts[parts.port]).geturl()
        yield


async def forwarded(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection to a simulator."""
    there, back = await asyncio.open_connection(host, port)
    await asyncio.gather(carried(reader, back), carried(there, writer))


async def carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while data := await reader.read(65536):
            writer.write(data)


def documented(folder: str) -> list[str]:
    """The commands of docs/deployment.md that deploy the manifests of a folder, but the last, which never ends."""
    shown = [one.text for one in blocks()]
    shown = shown[shown.index(f"cd {folder}") + 1 :]
    shown = shown[: next(n for n, one in enumerate(shown) if " port-forward " in one)]
    return [one for one in shown if one.startswith("kubectl ")]


def volume(folder: Path) -> Json:
    """A disk for the relay's state, which belongs to its group as a storage provider would have it."""
    folder.mkdir()
    os.chown(folder, 0, 10001)
    folder.chmod(0o2775)
    size = {"storage": "1Gi"}
    spec = {"capacity": size, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": str(folder)}}
    return {"metadata": {"name": "disk"}, "spec": spec}


async def shell(command: str, cluster: Cluster, folder: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    process = await asyncio.create_subprocess_exec(
        "timeout",
        str(WITHIN),
        "sh",
        "-ec",
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{command}: {said.decode()}"


async def live(pod: Json, cameras: int) -> None:
    """Return once the relay itself says that so many cameras are live."""
    deadline = time.monotonic() + WITHIN
    address = f"http://{pod['status']['podIP']}:8080"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False) as http:
        found: Json = {}
        while not found or found["totals"]["connected"] != cameras:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)
            with contextlib.suppress(httpx.TransportError):  # one that takes over begins to serve anew
                found = (await http.get("/api/stats")).json()


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
    async with demo_world(2, "320x180", [*here, "--webrtc", "1"], here) as world, with_tls(cluster, world):
        fill_in(folder, world)
        await api.create("/api/v1/persistentvolumes", volume(tmp_path / "state"))
        for command in documented("deploy/kubernetes/single"):
            await shell(command, cluster, folder)
        pod = await api.until(POD, ready, WITHIN)
        await live(pod, 2)
        # A drained node ends it; the disk is taken to wherever it runs next.
        drained, _ = of(cluster, pod)
        await cluster.drain(api, drained)
        again = await api.until(f"{NAMESPACE}/pods", lambda pods: any(map(another(pod), pods["items"])), WITHIN)
        assert again["items"][0]["spec"]["nodeName"] != pod["spec"]["nodeName"]
        await live(again["items"][0], 2)
        await cluster.uncordon(api, drained)
        await api.delete(NAMESPACE)
        await api.gone(NAMESPACE, WITHIN)  # the next test makes it again


def without_what_the_engine_lacks(folder: Path) -> None:
    """Leave out the component that asks for more than Kubernetes 1.20; tests/unit/deploy looks at that."""
    file = folder / "kustomization.yaml"
    text = file.read_text()
    assert text.count("components:\n  - current\n") == 1
    file.write_text(text.replace("components:\n  - current\n", ""))


def uids(pods: Json) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods["items"]}


async def test_a_cluster_runs_as_shipped(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        skipped("kubectl is not installed (apt install kubernetes-client)")
    folder = tmp_path / "deploy" / "kubernetes"
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    without_what_the_engine_lacks(folder)
    here = ("--shared-clip", "--plain", "--host", cluster.network.gateway)
    async with (
        demo_world(2, "320x180", [*here, "--webrtc", "1"], here) as world,
        with_tls(cluster, world),
        name_server(api, cluster.network.gateway),
    ):
        fill_in(folder, world)
        for command in documented("deploy/kubernetes"):
            await shell(command, cluster, folder)
        pods = f"{NAMESPACE}/pods"
        # One of the two commands, and has each camera's worker run in a Pod of its own.
        commands = await api.until(pods, lambda found: bool(found["items"]), WITHIN, labelSelector=COMMANDS)
        (first,) = commands["items"]
        await live(first, 2)
        workers = await api.get(pods, labelSelector=WORKERS)
        assert len(uids(workers)) == 2
        assert len({pod["spec"]["nodeName"] for pod in workers["items"]}) == 2
        assert all(pod["spec"]["priorityClassName"] == "nest-relay" for pod in workers["items"])
        # The other one goes on when it is gone, with the same workers.
        await api.delete(f"{pods}/{first['metadata']['name']}")

        def taken_over(found: Json) -> bool:
            return bool(found["items"]) and not uids(found) & uids(commands)

        successor = await api.until(pods, taken_over, WITHIN, labelSelector=COMMANDS)
        await live(successor["items"][0], 2)
        assert uids(await api.get(pods, labelSelector=WORKERS)) == uids(workers)
        await api.delete(NAMESPACE)
        await api.gone(NAMESPACE, WITHIN)  # the next test makes it again
