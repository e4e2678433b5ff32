"""Two accounts over two supervisors, on a true API server: spread, shown by either, and moved when one is killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.pod_relay import FPS, LIVE, RELAY, Trial, trial
from tests.cluster.replicas import One, instances, sent, two
from tests.fixtures.ports import free_ports
from tests.fixtures.running_relay import SMALL

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]

ACCOUNTS = ("home", "shop")


def here(status: dict[str, Any]) -> list[str]:
    """The accounts that the supervisor which was asked commands, all of whose cameras are live as far as it knows."""
    every = status.get("accounts", [])
    if {one["live"] for one in every} != {1} or any(one["problem"] for one in every):
        return []
    return [one["name"] for one in every if one["here"]]


async def trusted(world: Trial, other: DemoWorld) -> None:
    """Have workers trust the cameras of both."""
    every = [Path(one.endpoints["rtsp"]["ca_file"]).read_text() for one in (world.world, other)]
    await world.api.patch(f"{world.namespace}/configmaps/relay-ca", {"data": {"ca.pem": "\n".join(every)}})


def nests(world: Trial, other: DemoWorld) -> list[dict[str, Any]]:
    """The accounts' tables."""
    first = free_ports(8)  # which are not used by anything else while the test runs
    found = zip((world.world, other), ACCOUNTS, sorted(first)[::4], strict=True)
    return [one.endpoints["nest"] | {"account": name, "ports": port} for one, name, port in found]


async def one_each(one: One, other: One) -> tuple[str, str]:
    """Wait until each commands one of the accounts; their names."""
    began = time.monotonic()
    while True:
        found = here(await one.status()), here(await other.status())
        if [len(accounts) for accounts in found] == [1, 1]:
            break
        assert time.monotonic() - began < LIVE, f"{found}\n{one.log.read_text()}\n{other.log.read_text()}"
        await asyncio.sleep(0.1)
    (first,), (second,) = found
    assert {first, second} == set(ACCOUNTS)
    return first, second


async def shown_by_either(one: One, other: One, theirs: str) -> None:
    """Each shows both; what concerns an account that the other commands is passed on to that."""
    status = await one.status()
    assert {camera["account"] for camera in status["cameras"]} == set(ACCOUNTS)
    assert instances(status) == instances(await other.status())
    began = time.monotonic()
    while True:  # a worker's first report to the new commander may come between two answers
        listed = [(await either.ask("/api/cameras")).json()["cameras"] for either in (one, other)]
        if listed[0] == listed[1]:
            break
        assert time.monotonic() - began < LIVE, listed
        await asyncio.sleep(0.2)
    camera = next(found["id"] for found in status["cameras"] if found["account"] == theirs)
    assert (await one.ask(f"/api/cameras/{camera}/keyframe", "POST")).status_code == 200
    pages = [(await either.ask(f"/accounts/{theirs}/")).text for either in (one, other)]
    assert pages[0] == pages[1]
    assert "static/app.js" in pages[0]
    assert "static/accounts.js" in (await one.ask("/")).text
    view = (await one.ask(f"/accounts/{theirs}/api/view", "POST", cameras=[camera])).json()
    assert {track["camera"] for track in view["tracks"]} == {camera}, view


async def commanding(one: One) -> set[str]:
    """The accounts that its own metrics say it commands."""
    lines = (await one.ask("/metrics")).raise_for_status().text.splitlines()
    return {name for name in ACCOUNTS if f'relay_in_command{{relay="{name}"}} 1.0' in lines}


async def test_an_account_moves_when_its_holder_is_gone(
    cluster: Cluster, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    there = (*SMALL, "--fps", str(FPS), "--unlimited", "--host", cluster.network.gateway, "--seed", "1")
    async with (
        trial(cluster, api, namespace, monkeypatch, 1) as world,
        demo_world(1, "320x180", there, sfu=False) as second,
    ):
        await trusted(world, second)
        controls = [home.endpoints["control"]["nest"] for home in (world.world, second)]
        async with two(world, nests(world, second)) as (one, other):
            await asyncio.gather(one.start(), other.start())
            mine, theirs = await one_each(one, other)
            before = instances(await one.status())
            generates = [await sent(world, "Generate", control) for control in controls]
            leases = await api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace.rpartition('/')[2]}/leases")
            holders = {lease["metadata"]["name"]: lease["spec"]["holderIdentity"] for lease in leases["items"]}
            assert holders == {f"{RELAY}-{mine}-command": one.name, f"{RELAY}-{theirs}-command": other.name}
            await shown_by_either(one, other, theirs)
            assert (await commanding(one), await commanding(other)) == ({mine}, {theirs})

            await other.end(signal.SIGKILL)
            began = time.monotonic()
            await one.until(lambda status: len(here(status)) == 2, LIVE, "in command of both")
            took = time.monotonic() - began
            figure(f"an account taken over {took:.1f} s after its supervisor was killed")
            assert await commanding(one) == set(ACCOUNTS)
            assert instances(await one.status()) == before
            assert [await sent(world, "Generate", control) for control in controls] == generates
            await one.end()
