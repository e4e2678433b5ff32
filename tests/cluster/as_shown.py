"""The commands that docs/deployment.md shows for Kubernetes, and a world in which they are run as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.cluster.api import Api, Json
from tests.cluster.dns import name_server
from tests.cluster.engine import Cluster, skipped
from tests.cluster.pods import of
from tests.cluster.shipped import WITHIN, copied, fill_in, with_tls
from tests.fixtures.doc_commands import commands_under

PAGE: Final = "docs/deployment.md"
ON_A_CLUSTER, MOVED, BESIDE, IN_ONE_POD = SECTIONS = (
    "Kubernetes",
    "From one machine to a cluster, and back",
    "A supervisor beside the cluster",
    "One relay in one Pod",
)
"""The headings under which the page shows commands for Kubernetes."""
PREPARED: Final = ("docker ", "cd ", "cp ")
"""How commands begin that the tests stand in for: the image is played, and the files are in a folder of the test's."""
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
        demo_world(2, "320x180", [*here, *options], here) as world,
        with_tls(cluster, world),
        name_server(api, cluster.network.gateway),
    ):
        fill_in(manifests, world)
        yield world, manifests


async def executed(command: str, cluster: Cluster, pod: Json) -> tuple[int, str]:
    """What `kubectl … exec … -- COMMAND` does in that Pod, and what it says. Nodes here take no such calls.

    It runs in the namespaces of the Pod's first process, with its user and its environment.
    """
    node, _ = of(cluster, pod)
    first = node.first_process(pod["metadata"]["name"])
    environment = Path(f"/proc/{first}/environ").read_text().rstrip("\0").split("\0")
    user = pod["spec"]["securityContext"]["runAsUser"]
    namespaces = [f"--target={first}", "--mount", "--uts", "--net", "--pid"]
    enter = ["nsenter", *namespaces, f"--setuid={user}", f"--setgid={user}"]
    inside = ["env", "--ignore-environment", *environment, *shlex.split(command.partition(" -- ")[2])]
    process = await asyncio.create_subprocess_exec(
        *["timeout", str(WITHIN), *enter, "--", *inside], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
