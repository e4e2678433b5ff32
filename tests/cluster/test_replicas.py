"""Two supervisors of one relay as processes, on a true API server: killed, told to end, and without the API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.pod_relay import LIVE, LOOPBACK, Trial, trial
from tests.fixtures.ports import free_ports
from tests.fixtures.supervisor_process import environment, toml

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

TOKEN = "a token for the dashboard"


class One:
    """One of the supervisors."""

    def __init__(self, world: Trial, name: str) -> None:
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
        self._file.write_text(toml(near))
        self.log = directory / "log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = [sys.executable, "-m", "tests.cluster.replica_process", str(self._file)]
        program.append(self._world.cluster.network.gateway)
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
            await asyncio.sleep(0.1)
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


async def show_the_same(one: One, other: One) -> None:
    """`other` stands by: it shows what `one` has, and what is made through it is there at both."""
    assert (await other.ask("/api/stats")).json()["seat"]["replica"] == one.name
    assert (await other.ask("/")).text == (await one.ask("/")).text
    cameras = [found["id"] for found in (await other.ask("/api/cameras")).json()["cameras"]]
    view = (await other.ask("/api/view", "POST", cameras=cameras)).json()
    assert {track["camera"] for track in view["tracks"]} == set(cameras), view
    assert "relay_viewers 1.0" in (await one.ask("/metrics")).text.splitlines()
    assert (await other.ask(f"/api/view/{view['view']}", "DELETE")).status_code == 200
    assert "relay_viewers 0.0" in (await one.ask("/metrics")).text.splitlines()


@contextlib.asynccontextmanager
async def two(world: Trial) -> AsyncIterator[tuple[One, One]]:
    both = One(world, "relay-a"), One(world, "relay-b")
    try:
        yield both
    finally:
        for one in both:
            await one.end(signal.SIGKILL)


async def sent(world: Trial, name: str) -> int:
    """How many commands of that name the simulated Google has seen."""
    answer = await world.http.get(f"{world.world.endpoints['control']['nest']}/commands")
    return sum(one["command"].startswith(name) for one in answer.json()["commands"])


async def test_another_goes_on_without_a_generate_and_without_the_api_server(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trial(cluster, api, namespace, monkeypatch, 2, ("--lease", "40")) as world, two(world) as (one, other):
        await one.start()
        await one.until(live, LIVE, "live")
        before = instances(await one.status())
        generates = await sent(world, "Generate")
        await other.start()
        await other.until(known, LIVE, "known to stand by")
        assert (await one.counts_as_commanding(), await other.counts_as_commanding()) == (True, False)
        await show_the_same(one, other)

        await one.end(signal.SIGKILL)
        silent = (await other.ask("/api/cameras")).json()["error"]
        assert (silent["code"], "relay-a" in silent["message"]) == ("commander_silent", True)
        took = await other.until(live, LIVE, "live after a kill")
        assert await other.counts_as_commanding()
        print(f"taken over {took:.1f} s after a kill")
        assert instances(await other.status()) == before

        await one.start()
        await one.until(known, LIVE, "known to stand by")
        assert (await other.status())["seat"]["others"] == ["relay-a"]
        began = time.monotonic()
        await other.end()
        await one.until(live, LIVE, "live after the other one's end")
        print(f"taken over {time.monotonic() - began:.1f} s after the other was told to end")
        assert instances(await one.status()) == before

        await other.start()
        await other.until(known, LIVE, "known to stand by")
        extends = await sent(world, "Extend")
        cluster.control_plane.api_server.stop()
        try:
            began = time.monotonic()
            await one.until(lambda status: "promises" in status["seat"]["state"], LIVE, "under promises")
            print(f"under promises {time.monotonic() - began:.1f} s after the API server was away")
            await other.end(signal.SIGKILL)
            await other.start()  # it promises with the key of its earlier life
            while await sent(world, "Extend") < extends + 4:
                assert time.monotonic() - began < LIVE, one.log.read_text()
                assert live(await one.status())
                await asyncio.sleep(0.5)
            print(f"each stream extended twice, {time.monotonic() - began:.1f} s after the API server was away")
        finally:
            cluster.control_plane.api_server.start()
        took = await one.until(lambda status: status["seat"]["state"] == "in command", LIVE, "in command again")
        print(f"in command again {took:.1f} s after the API server was back")
        assert instances(await one.status()) == before
        await one.end(signal.SIGKILL)
        began = time.monotonic()
        await one.start()
        await one.until(live, LIVE, "live after its own restart")
        print(f"back {time.monotonic() - began:.1f} s after it was started again")
        assert instances(await one.status()) == before
        await one.until(untouched, LIVE, "connected to each camera once")
        assert await sent(world, "Generate") == generates
        await one.end()
