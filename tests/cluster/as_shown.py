"""The commands that docs/deployment.md shows for Kubernetes, and a world in which they are run as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.cluster.api import Api, Json
from tests.cluster.dns import name_server
from tests.cluster.engine import Cluster, skipped
from tests.cluster.pod_relay import FPS
from tests.cluster.pods import of
from tests.cluster.shipped import TOKEN, WITHIN, copied, fill_in, with_tls
from tests.fixtures.doc_commands import commands_under
from tests.fixtures.ports import free_port

PAGE: Final = "docs/deployment.md"
ON_A_CLUSTER, MOVED, BESIDE, IN_ONE_POD = SECTIONS = (
    "Kubernetes",
    "From one machine to a cluster, and back",
    "A supervisor beside the cluster",
    "One relay in one Pod",
)
"""The headings under which the page shows commands for Kubernetes."""
PREPARED: Final = ("relay-supervisor auth", "relay-supervisor check", "openssl ", "docker ", "cd ")
"""How commands begin that the tests stand in for: the image is played or built, and the secrets are in their files."""
ENDLESS: Final = " port-forward "


def shown(heading: str) -> list[str]:
    """The commands that the page shows under a heading, as they stand there, but those that the tests stand in for."""
    found = commands_under(PAGE, heading)
    assert found, heading
    return [one for one in found if not one.startswith(PREPARED) and ENDLESS not in one]


@contextlib.asynccontextmanager
async def prepared(cluster: Cluster, api: Api, folder: Path, *options: str) -> AsyncIterator[tuple[DemoWorld, Path]]:
    """Simulators with two cameras as Google and Cloudflare are reached, and the filled in manifests of a cluster."""
    if shutil.which("kubectl") is None:
        skipped("kubectl is not installed (apt install kubernetes-client)")
    manifests = copied(folder / "deploy" / "kubernetes")
    here = ("--shared-clip", "--plain", "--host", cluster.network.gateway)
    async with (
        demo_world(2, "320x180", [*here, "--fps", str(FPS), *options], here) as world,
        with_tls(cluster, world),
        name_server(api, cluster.network.gateway),
    ):
        fill_in(folder, world)
        yield world, manifests


def forwarding(heading: str) -> str:
    """The command under a heading that forwards a port of this machine."""
    (found,) = [one for one in commands_under(PAGE, heading) if ENDLESS in one]
    return found


async def serves(command: str, cluster: Cluster) -> None:
    """Run one that forwards a port, as it stands there but for the port here, until the dashboard answers through it.

    True nodes take such a call, others do not, and nothing is done.
    """
    if not cluster.nodes[0].TAKES_CALLS:
        return
    port = free_port()
    words = [*shlex.split(command)[:-1], f"{port}:{command.split()[-1]}"]
    process = await asyncio.create_subprocess_exec(
        *words, env=_environment(cluster), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with asyncio.timeout(WITHIN), httpx.AsyncClient(headers=headers, trust_env=False, verify=False) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):  # it has yet to listen
                    (await http.get(f"http://127.0.0.1:{port}/api/stats")).raise_for_status()
                    return
                assert process.returncode is None, f"{command} has ended"
                await asyncio.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _environment(cluster: Cluster) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}


async def executed(command: str, cluster: Cluster, pod: Json) -> tuple[int, str]:
    """What `kubectl … exec deployment/NAME -- COMMAND` does in that Pod, one of the Deployment's, and what it says.

    Played nodes take no such calls: there it runs in the namespaces of the Pod's first process, with its user and its
    environment.
    """
    node, _ = of(cluster, pod)
    if node.TAKES_CALLS:
        words = [f"pod/{pod['metadata']['name']}" if "deployment/" in one else one for one in shlex.split(command)]
        return await _said(words, _environment(cluster))
    first = node.first_process(pod["metadata"]["name"])
    environment = Path(f"/proc/{first}/environ").read_text().rstrip("\0").split("\0")
    user = pod["spec"]["securityContext"]["runAsUser"]
    namespaces = [f"--target={first}", "--mount", "--uts", "--net", "--pid"]
    enter = ["nsenter", *namespaces, f"--setuid={user}", f"--setgid={user}"]
    inside = ["env", "--ignore-environment", *environment, *shlex.split(command.partition(" -- ")[2])]
    return await _said([*enter, "--", *inside])


async def _said(words: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit code of a command, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *["timeout", str(WITHIN), *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
