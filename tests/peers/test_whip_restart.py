"""A WHIP server that can no longer be reached by the way that was found, and lives: ICE is restarted in its session
(RFC 9725 §4.3.3) where it takes that, else another session is made.
"""

from __future__ import annotations

import time

import msgspec
import pytest

from relay_common.config import WhipConfig
from relay_common.worker_stats import SinkStats
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.peers.broken_way import BrokenWay
from tests.peers.whip_peers import NodeServer, Received, WhipPeer

pytestmark = [pytest.mark.media, pytest.mark.serial, pytest.mark.timeout(180)]


def sink(relay: RunningRelay) -> SinkStats:
    (camera,) = relay.supervisor.status().cameras
    return next((found for found in camera.sinks if found.name == "studio"), SinkStats())


def counted(relay: RunningRelay) -> tuple[int, int]:
    """Restarts that succeeded, and that did not."""
    return sink(relay).restarts, sink(relay).restarts_failed


def pauses(relay: RunningRelay) -> int:
    """How often this process got no processor for a second or more."""
    return relay.supervisor.fleet.counters()["pauses"]


async def until_published(relay: RunningRelay, publications: int) -> None:
    await relay.until(lambda: sink(relay).publications >= publications and sink(relay).live, 60.0, "published")


async def cut(way: BrokenWay, relay: RunningRelay, server: WhipPeer, took: int) -> Received:
    """Silence the way, and wait for a restart to be counted; what the server had before.

    Three seconds are enough for one, of a machine that lets us have them.
    """
    before = await more_than(server, relay, Received())
    paused, done, failed = pauses(relay), sum(counted(relay)), counted(relay)[1]
    way.cut()
    await relay.until(lambda: ("PATCH", took) in way.requests, 60.0, "a restart is asked for")
    await relay.until(lambda: sum(counted(relay)) > done, 60.0, "it is counted")
    if took == 200 and counted(relay)[1] > failed:
        assert pauses(relay) > paused, (relay.summary(), sink(relay))
    return before


async def more_than(server: WhipPeer, relay: RunningRelay, before: Received) -> Received:
    """Wait until the server has more of both than `before`."""
    deadline = time.monotonic() + 60.0
    while True:
        got = await server.received()
        if got.video > before.video and got.audio > before.audio:
            return got
        assert time.monotonic() < deadline, (got, before, relay.summary(), sink(relay))


@pytest.mark.parametrize(("name", "took", "restarts"), [("werift", 200, (1, 0)), ("libdatachannel", 501, (0, 1))])
async def test_a_way_that_falls_silent_is_replaced(name: str, took: int, restarts: tuple[int, int]) -> None:
    server = NodeServer(name)
    await server.open()
    try:
        async with BrokenWay(server.url) as way, running_relay(1) as relay:
            tables = [WhipConfig(name="studio", url=way.url)]
            relay.supervisor._reconfigured(msgspec.structs.replace(relay.supervisor.config, whip=tables))
            await relay.until_live()
            await relay.until(lambda: sink(relay).live, 60.0, "published")
            kept = took == 200
            before, starved = await cut(way, relay, server, took), 0
            while kept and counted(relay)[1] > starved:
                starved += 1
                await until_published(relay, starved + 1)
                before = await cut(way, relay, server, took)
            after = await more_than(server, relay, before if kept else Received())
            assert counted(relay) == (restarts[0], restarts[1] + starved)
            await relay.until(lambda: sink(relay).live, 30.0, "published again")
            assert sink(relay).publications == (1 if kept else 2) + starved
            assert [method for method, _ in way.requests].count("POST") == (1 if kept else 2) + starved
            if kept:  # one stream of packets, numbered as before
                assert after.video > before.video
    finally:
        await server.close()
