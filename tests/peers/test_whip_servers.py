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
"""Seconds within which a server that was killed and listens again is sent to, and has the sound."""
KEYFRAMES = 2.0
"""Seconds between the camera's keyframes, with the next of which the picture begins: over RTSP it cannot be asked for
one.
"""


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


async def receives(server: WhipPeer) -> tuple[float, float]:
    """Wait until the server has sound and picture; returns the seconds that each took."""
    began, heard = time.monotonic(), 0.0
    while True:
        got = await server.received()
        took = time.monotonic() - began
        if got.audio:
            heard = heard or took
        if got.video and got.audio:
            return heard, took
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
    sound, picture = await receives(server)
    print(f"{name}: sound {sound:.1f} s, picture {picture:.1f} s")
    assert sound <= BACK
    assert picture <= BACK + KEYFRAMES
