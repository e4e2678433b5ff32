"""A relay as it is shipped: the manifests, by the commands of docs/deployment.md, with simulators that Pods reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from relay_supervisor.commands.demo_world import DemoWorld
from relay_supervisor.commands.setup_files import SECRETS_DIR, write_private
from tests.cluster.api import Json
from tests.cluster.engine import Cluster
from tests.fixtures.doc_commands import blocks
from tests.fixtures.product_source import ROOT
from tests.fixtures.supervisor_process import toml

NAMESPACE: Final = "/api/v1/namespaces/nest-relay"
COMMANDS: Final = "nest-relay/commands=nest-relay"
"""The label of the supervisor that commands."""
WORKERS: Final = "nest-relay/relay=nest-relay"
TOKEN: Final = "a token for the dashboard"
WITHIN: Final = 120.0
"""Seconds for everything, on a machine that has much else to do."""


def fill_in(folder: Path, world: DemoWorld, **sections: dict[str, Any]) -> None:
    """What `relay-supervisor auth` makes, relay.toml and a file for each secret, and the two that a user makes up."""
    nest, cloudflare = dict(world.endpoints["nest"]), dict(world.endpoints["cloudflare"])
    files = {
        "google_client_secret": nest.pop("client_secret"),
        "google_refresh_token": nest.pop("refresh_token"),
        "cloudflare_app_secret": cloudflare.pop("app_secret"),
        "http_token": TOKEN,
        "link_secret": f"links by {TOKEN}",
    }
    secrets = folder / SECRETS_DIR
    secrets.mkdir(exist_ok=True)
    for name, value in files.items():
        write_private(secrets / name, f"{value}\n")
    for key in ("client_secret", "refresh_token"):
        nest[f"{key}_file"] = f"{SECRETS_DIR}/google_{key}"
    cloudflare["app_secret_file"] = f"{SECRETS_DIR}/cloudflare_app_secret"
    (folder / "relay.toml").write_text(toml({"nest": nest, "cloudflare": cloudflare, **sections}))


class Sent(NamedTuple):
    """A command to Google: from which address, and when (monotonic seconds)."""

    by: str
    at: float


@contextlib.asynccontextmanager
async def with_tls(cluster: Cluster, world: DemoWorld, sent: list[Sent] | None = None) -> AsyncIterator[None]:
    """The simulators' servers as Google's and Cloudflare's are: the relay sends no secret elsewhere without TLS.

    `sent` gets each command that goes through.
    """
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
                        connect = partial(forwarded, gateway, parts.port, sent)
                        server = await asyncio.start_server(connect, gateway, ssl=context)
                        await servers.enter_async_context(server)
                        fronts[parts.port] = f"{gateway}:{server.sockets[0].getsockname()[1]}"
                    section[name] = parts._replace(scheme="https", netloc=fronts[parts.port]).geturl()
        yield


async def forwarded(
    host: str, port: int, sent: list[Sent] | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection to a simulator."""
    peer = writer.get_extra_info("peername")[0]
    there, back = await asyncio.open_connection(host, port)
    await asyncio.gather(carried(reader, back, peer, sent), carried(there, writer, peer, None))


async def carried(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str, sent: list[Sent] | None
) -> None:
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while data := await reader.read(65536):
            if sent is not None:
                sent.extend([Sent(peer, time.monotonic())] * data.count(b":executeCommand HTTP"))
            writer.write(data)


def documented(folder: str) -> list[str]:
    """The commands of docs/deployment.md that deploy the manifests of a folder, but the last, which never ends."""
    shown = [one.text for one in blocks()]
    shown = shown[shown.index(f"cd {folder}") + 1 :]
    shown = shown[: next(n for n, one in enumerate(shown) if " port-forward " in one)]
    return [one for one in shown if one.startswith(("cp ", "kubectl "))]


async def shell(command: str, cluster: Cluster, folder: Path) -> str:
    """Run one of them, and return what it says. Raises AssertionError with that when it fails."""
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
    return said.decode()


def reachable(found: Json) -> bool:
    """Whether there are Pods, each with its address: kubelets say that some time after a container has begun to run."""
    return bool(found["items"]) and all(pod["status"].get("podIP") for pod in found["items"])


async def live(pod: Json, cameras: int) -> None:
    """Return once the relay itself says that so many cameras are live."""
    deadline = time.monotonic() + WITHIN
    async with dashboard(pod) as http:
        found: Json = {}
        while not found or found["totals"]["connected"] != cameras:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)
            with contextlib.suppress(httpx.TransportError):  # one that takes over begins to serve anew
                found = (await http.get("/api/stats")).json()


def dashboard(pod: Json, timeout: float = 5.0) -> httpx.AsyncClient:
    """A client of the dashboard of a supervisor's Pod: one a look, so without the certificates of TLS (28 ms)."""
    address, headers = f"http://{pod['status']['podIP']}:8080", {"Authorization": f"Bearer {TOKEN}"}
    return httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, verify=False, timeout=timeout)


def copied(folder: Path) -> Path:
    """Copy the manifests to `folder`, without the component that asks for more than Kubernetes 1.20 has.

    tests/unit/deploy looks at that.
    """
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    file = folder / "kustomization.yaml"
    text = file.read_text()
    assert text.count("components:\n  - current\n") == 1
    file.write_text(text.replace("components:\n  - current\n", ""))
    return folder
