"""Other people's WHIP servers: one camera is published at all of them, and comes back to one that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
import pytest
import pytest_asyncio

from relay_common.config import WhipConfig
from relay_common.worker_stats import SinkStats
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.peers.janus_server import JanusServer
from tests.peers.whip_peers import ChromiumServer, Go2rtcServer, NodeServer, WhipPeer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.media,
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.timeout(180),
]

WATCHED = 30.0 if os.environ.get("RELAY_PEERS_LONG") == "1" else 10.0
"""Seconds for which nothing may be lost."""
BACK = 3.0
"""Seconds within which a server that was killed and listens again has the picture and the sound."""
LATEST = 30.0
"""What it takes when no word comes that the port is closed (7 s), attempts fail and a keyframe is waited for."""
NOT_ALWAYS = (
    "go2rtc was back after 2.7 s and, other times, after 9.1 and 9.7 s; why is not known. The others took 1.3 to 2.9 s"
)


class Everywhere(NamedTuple):
    """One camera, live at Cloudflare's SFU and at every server."""

    relay: RunningRelay
    servers: dict[str, WhipPeer]

    def sink(self, name: str) -> SinkStats:
        (camera,) = self.relay.supervisor.status().cameras
        return next(found for found in camera.sinks if found.name == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everywhere(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everywhere]:
    directory = tmp_path_factory.mktemp("servers")
    servers: list[WhipPeer] = [
        Go2rtcServer(directory),
        JanusServer(directory),
        NodeServer("werift"),
        NodeServer("libdatachannel"),
        ChromiumServer(),
    ]
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            stack.push_async_callback(server.close)
        await asyncio.gather(*(server.open() for server in servers))
        relay = await stack.enter_async_context(running_relay(1))
        tables = [WhipConfig(name=server.name, url=server.url) for server in servers]
        relay.supervisor._reconfigured(msgspec.structs.replace(relay.supervisor.config, whip=tables))
        await relay.until_live()
        for server in servers:
            await receives(server)
        yield Everywhere(relay, {server.name: server for server in servers})


async def receives(server: WhipPeer) -> float:
    """Wait until the server has picture and sound; returns the seconds it took."""
    began = time.monotonic()
    while True:
        got = await server.received()
        took = time.monotonic() - began
        if got.video and got.audio:
            return took
        assert took < 60, f"{server.name}: {got}"
        await asyncio.sleep(0.02)


async def test_every_server_takes_the_camera_without_a_loss(everywhere: Everywhere) -> None:
    await asyncio.sleep(WATCHED)
    for name, server in everywhere.servers.items():
        sent = everywhere.sink(name)  # of the last second: what is received is asked for later, and is more
        got = await server.received()
        assert got.lost == 0, name
        assert got.video >= sent.video_packets > WATCHED * 20, name
        assert got.audio >= sent.audio_packets > WATCHED * 20, name
        assert (sent.loss, sent.nacks, sent.dropped, sent.publications) == (0.0, 0, 0, 1), name


@pytest.mark.parametrize("name", ["go2rtc", "janus", "werift", "libdatachannel", "chromium"])
async def test_a_server_that_is_killed_and_started_is_back_soon(everywhere: Everywhere, name: str) -> None:
    server = everywhere.servers[name]
    await server.kill()
    await server.start()
    took = await receives(server)
    print(f"{name}: {took:.1f} s")
    assert took <= LATEST, "longer than without a word from the server's host: it was not looked for"
    if took > BACK:
        pytest.xfail(f"{took:.1f} s: {NOT_ALWAYS}")
