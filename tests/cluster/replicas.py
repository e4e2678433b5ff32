"""Supervisors of one relay, or of several accounts, as processes beside a true API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import httpx

from tests.cluster.pod_relay import BETWEEN_LOOKS, LOOPBACK, Trial
from tests.fixtures.ports import free_ports
from tests.fixtures.supervisor_process import environment, toml

TOKEN: Final = "a token for the dashboard"


class One:
    """One of the supervisors; of the accounts `nests` where these are given, which it gives up soon."""

    def __init__(self, world: Trial, name: str, nests: Sequence[dict[str, Any]] = ()) -> None:
        self._world, self.name = world, name
        self._port, peer, _ = free_ports(3)
        directory = world.world.directory / name
        directory.mkdir()
        sections = world.sections(replica=name, peer_listen=f"{LOOPBACK}:{peer}")
        sections |= {
            "paths": {"state_dir": str(directory / "state"), "runtime_dir": str(directory / "run")},
            "http": {"listen": f"{LOOPBACK}:{self._port}", "token": TOKEN},
            "viewers": {"link_secret": "a secret for the links"},
            "log": {"level": "info"},
        }
        near = json.loads(json.dumps(world.world.document(**sections)).replace(world.cluster.network.gateway, LOOPBACK))
        near["cluster"] = sections["cluster"]
        self._file = directory / "relay.toml"
        tables = json.loads(json.dumps(nests).replace(world.cluster.network.gateway, LOOPBACK))
        if nests:
            del near["nest"]
        self._file.write_text(toml(near) + "".join(toml({"[nest]": one}) for one in tables))
        self._options = ["2.0"] if nests else []
        self.log = directory / "log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = [sys.executable, "-m", "tests.cluster.replica_process", str(self._file)]
        program += [self._world.cluster.network.gateway, *self._options]
        variables = environment(None) | {"KUBECONFIG": os.environ["KUBECONFIG"]}
        with self.log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(*program, stderr=log, env=variables)

    async def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await asyncio.wait_for(self._process.wait(), 30.0)

    async def ask(self, path: str, method: str = "GET", **body: Any) -> httpx.Response:
        headers, url = {"Authorization": f"Bearer {TOKEN}"}, f"http://{LOOPBACK}:{self._port}{path}"
        return await self._world.http.request(method, url, headers=headers, json=body or None)

    async def status(self) -> dict[str, Any]:
        """The status that it gives, with its own seat; {} while it serves none."""
        try:
            seat, stats = await self.ask("/api/seat"), await self.ask("/api/stats")
            # One that has just won its seat may not show its cameras yet.
            return {**stats.raise_for_status().json(), "seat": seat.json()}
        except httpx.HTTPError:
            return {}

    async def counts_as_commanding(self) -> bool:
        """Whether its metrics say that it commands."""
        lines = (await self.ask("/metrics")).raise_for_status().text.splitlines()
        return lines.count("relay_in_command 1.0") == 1

    async def until(self, condition: Callable[[dict[str, Any]], bool], within: float, what: str) -> float:
        began = time.monotonic()
        while not ((found := await self.status()) and condition(found)):
            assert time.monotonic() - began < within, f"{self.name}: not {what}: {found}\n{self.log.read_text()}"
            await asyncio.sleep(BETWEEN_LOOKS)
        return time.monotonic() - began


def commands(status: dict[str, Any]) -> bool:
    return bool(status["seat"]["commands"])


def known(status: dict[str, Any]) -> bool:
    """Whether it stands by, and whoever commands knows."""
    return not commands(status) and bool(status["seat"]["known"])


def live(status: dict[str, Any]) -> bool:
    return commands(status) and {camera["state"] for camera in status["cameras"]} == {"live"}


def instances(status: dict[str, Any]) -> dict[str, str]:
    """Each camera's worker."""
    return {one["id"]: one["worker"]["instance"] for one in status["cameras"]}


def untouched(status: dict[str, Any]) -> bool:
    """Whether each camera's worker has connected to it once."""
    return {one["source_sessions"] for one in status["cameras"]} == {1}


@contextlib.asynccontextmanager
async def two(world: Trial, nests: Sequence[dict[str, Any]] = ()) -> AsyncIterator[tuple[One, One]]:
    both = One(world, "relay-a", nests), One(world, "relay-b", nests)
    try:
        yield both
    finally:
        for one in both:
            await one.end(signal.SIGKILL)


async def sent(world: Trial, name: str, control: str = "") -> int:
    """How many commands of that name the simulated Google has seen, or that whose control address is `control`."""
    answer = await world.http.get(f"{control or world.world.endpoints['control']['nest']}/commands")
    return sum(one["command"].startswith(name) for one in answer.json()["commands"])
