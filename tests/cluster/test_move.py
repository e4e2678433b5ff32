"""A relay moves from one machine into a cluster and back, by the commands of docs/deployment.md, without a Generate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from relay_supervisor.commands.demo_world import DemoWorld
from tests.cluster.api import Api
from tests.cluster.as_shown import MOVED, ON_A_CLUSTER, prepared, shown
from tests.cluster.engine import Cluster
from tests.cluster.shipped import COMMANDS, NAMESPACE, TOKEN, WITHIN, fill_in, live, reachable, shell
from tests.fixtures.ports import free_ports

pytestmark = [pytest.mark.timeout(500), pytest.mark.media]

CAMERAS: Final = 2
RUN: Final = "relay-supervisor run"
APPLIED: Final = "kubectl apply -k ."


class Box:
    """The machine that the relay comes from: its folder has relay.toml, the secrets and the state."""

    def __init__(self, folder: Path, runtime: str, cluster: Cluster, world: DemoWorld) -> None:
        self._folder, self._cluster, self.port = folder, cluster, free_ports(1)[0]
        folder.mkdir()
        fill_in(folder, world)
        text = (folder / "relay.toml").read_text()
        text += f'\n[http]\nlisten = "127.0.0.1:{self.port}"\ntoken_file = "secrets/http_token"\n'
        text += f'\n[paths]\nstate_dir = "{folder / "state"}"\nruntime_dir = "{runtime}"\n'
        (folder / "relay.toml").write_text(text)
        trusted = folder / "trusted.pem"
        trusted.write_bytes(cluster.control_plane.authority.certificate)
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "SSL_CERT_FILE": str(trusted),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    async def runs(self, command: str) -> asyncio.subprocess.Process:
        log = (self._folder / "log").open("ab")
        with log:
            return await asyncio.create_subprocess_shell(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )

    async def does(self, command: str) -> None:
        process = await self.runs(command)
        async with asyncio.timeout(WITHIN):
            assert await process.wait() == 0, f"{command}: {(self._folder / 'log').read_text()[-3000:]}"

    @contextlib.asynccontextmanager
    async def relay(self) -> AsyncIterator[None]:
        """`relay-supervisor run` until its cameras are live, and until it is stopped."""
        process = await self.runs(f"exec {RUN}")
        try:
            deadline = time.monotonic() + WITHIN
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(headers=headers, trust_env=False, verify=False) as http:
                connected = 0
                while connected != CAMERAS:
                    assert time.monotonic() < deadline, (self._folder / "log").read_text()[-3000:]
                    assert process.returncode is None, (self._folder / "log").read_text()[-3000:]
                    await asyncio.sleep(0.2)
                    with contextlib.suppress(httpx.TransportError):
                        answer = await http.get(f"http://127.0.0.1:{self.port}/api/stats")
                        connected = answer.json()["totals"]["connected"]
            yield
            async with asyncio.timeout(WITHIN):
                await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def generates(world: DemoWorld) -> int:
    """How many streams the simulated Google was asked for."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        answer = await http.get(f"{world.endpoints['control']['nest']}/commands")
    return sum(one["command"].startswith("Generate") for one in answer.json()["commands"])


@pytest.fixture
def runtime() -> Iterator[str]:
    """A directory for sockets: the path of `tmp_path` is too long for theirs where it lies in another temporary one."""
    with tempfile.TemporaryDirectory(prefix="move-", dir="/tmp") as folder:
        yield folder


async def test_a_relay_moves_into_a_cluster_and_back(cluster: Cluster, api: Api, tmp_path: Path, runtime: str) -> None:
    stopped, there, applied, ended, waited, back, run_again = shown(MOVED)
    deployed = shown(ON_A_CLUSTER)
    assert applied == f"{APPLIED[:-1]}deploy/kubernetes"
    async with prepared(cluster, api, tmp_path) as (world, manifests):
        box = Box(tmp_path / "box", runtime, cluster, world)
        for command in deployed[: deployed.index(APPLIED)]:
            await shell(command, cluster, manifests)
        async with box.relay():
            asked = await generates(world)
            assert asked == CAMERAS
            await box.does(stopped)
        began = time.monotonic()
        await box.does(there)
        await shell(applied, cluster, tmp_path)
        found = await api.until(f"{NAMESPACE}/pods", reachable, WITHIN, labelSelector=COMMANDS)
        await live(found["items"][0], CAMERAS)
        print(f"in the cluster after {time.monotonic() - began:.1f} s")
        assert await generates(world) == asked
        began = time.monotonic()
        for command in (ended, waited):
            await shell(command, cluster, manifests)
        assert (await api.get(f"{NAMESPACE}/pods", labelSelector=COMMANDS))["items"] == []
        await box.does(back)
        assert run_again == RUN
        async with box.relay():
            print(f"and back after {time.monotonic() - began:.1f} s")
            assert await generates(world) == asked
            await box.does("relay-supervisor stop")
        await api.delete(NAMESPACE)
        await api.gone(NAMESPACE, WITHIN)
