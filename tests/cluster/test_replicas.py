"""Two supervisors of one relay as processes, on a true API server: killed, told to end, and without the API server."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster
from tests.cluster.pod_relay import LIVE, trial
from tests.cluster.replicas import One, instances, known, live, sent, two, untouched

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]


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
        cluster.control_plane.api_server_dies()
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
            await cluster.control_plane.api_server.up()
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
