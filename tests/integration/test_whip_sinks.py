"""A camera at Cloudflare's SFU and at WHIP servers at once: each by itself, and they come and go while it plays."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from relay_common.causes import Cause
from relay_common.config import WhipConfig
from relay_common.secrets import Secret
from relay_common.simulation.sfu.options import SfuVariant
from relay_common.worker_stats import SinkStats
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.fixtures.whip_server import TOKEN, WhipServer

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]


def table(server: WhipServer, name: str = "studio", **more: Any) -> dict[str, Any]:
    return {"name": name, "url": server.url, "bearer_token": TOKEN, **more}


def sink(relay: RunningRelay, name: str) -> SinkStats:
    (camera,) = relay.supervisor.status().cameras
    return next((found for found in camera.sinks if found.name == name), SinkStats())


async def live_at(relay: RunningRelay, name: str) -> None:
    await relay.until(lambda: sink(relay, name).live, 90.0, f"live at {name or 'the SFU'}")


def configured(relay: RunningRelay, *tables: dict[str, Any]) -> None:
    """What a reload of a configuration with these [[whip]] tables does."""
    whip = [WhipConfig(**one | {"bearer_token": Secret(one["bearer_token"])}) for one in tables]
    relay.supervisor._reconfigured(msgspec.structs.replace(relay.supervisor.config, whip=whip))


async def test_a_camera_is_published_at_both_and_a_lossy_one_costs_the_other_nothing() -> None:
    async with WhipServer() as server, running_relay(1, sections={"whip": table(server)}) as relay:
        await relay.until_live()
        await live_at(relay, "")
        await live_at(relay, "studio")
        assert [(s.name, s.kind) for s in relay.supervisor.status().sinks] == [("", "cloudflare"), ("studio", "whip")]
        name = relay.supervisor.status().cameras[0].name
        before = (await relay.published(name))[-1]
        server.sfu.faults.upstream_loss = 0.5
        await relay.until(lambda: sink(relay, "studio").nacks > 100, 60.0, "half of it is lost")
        after = (await relay.published(name))[-1]
        assert after["lost"] == before["lost"] == 0
        assert after["packets"] > before["packets"] + 100
        clean, lossy = sink(relay, ""), sink(relay, "studio")
        assert (clean.nacks, clean.retransmitted, clean.dropped, clean.publications) == (0, 0, 0, 1)
        assert lossy.retransmitted > 0
        assert lossy.publications == 1
        session = next(iter(server.sessions))
    assert server.ended == [session], "it is ended when the relay stops"


async def test_sinks_come_and_go_while_the_camera_plays() -> None:
    async with WhipServer() as server, running_relay(1) as relay:
        await relay.until_live()
        before, name = sink(relay, ""), relay.supervisor.status().cameras[0].name
        configured(relay, table(server))
        await live_at(relay, "studio")
        await relay.until(lambda: set(server.packets()) == {"video", "audio"}, 30.0, "picture and sound are received")
        (first,) = server.sessions
        configured(relay, table(server, url=server.url.replace("{name}", "elsewhere")))
        await relay.until(lambda: first in server.ended, 30.0, "the session at the old address is ended")
        await relay.until(lambda: bool(server.packets().get("video")), 30.0, "published at the new address")
        await live_at(relay, "studio")
        configured(relay)
        await relay.until(lambda: not server.sessions, 30.0, "the session is ended")
        await relay.until(lambda: sink(relay, "studio").name == "", 30.0, "the worker has left it")
        after = sink(relay, "")
        assert after.video_packets > before.video_packets
        assert (after.publications, after.nacks, after.dropped) == (1, 0, 0)
        assert (await relay.published(name))[-1]["lost"] == 0


async def test_a_server_that_refuses_is_named_and_the_camera_is_live() -> None:
    async with WhipServer() as server, running_relay(1, sections={"whip": table(server)}) as relay:
        server.refusal = 409
        await relay.until_live()
        await live_at(relay, "")
        await relay.until(lambda: "409" in sink(relay, "studio").reason, 30.0, "the refusal is reported")
        camera = relay.supervisor.status().cameras[0]
        assert camera.state == "live"
        assert camera.viewable
        assert "studio: the server answered POST with 409" in camera.reason
        assert TOKEN not in msgspec.json.encode(relay.supervisor.status()).decode()
        server.refusal = 0
        await live_at(relay, "studio")


async def test_a_server_that_is_started_again_is_found_at_once() -> None:
    async with WhipServer() as server, running_relay(1, sections={"whip": table(server)}) as relay:
        await relay.until_live()
        await live_at(relay, "")
        await live_at(relay, "studio")
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        await server.stop()
        await relay.until(lambda: not sink(relay, "studio").live, 30.0, "the loss is noticed")
        await asyncio.sleep(5.0)
        async with WhipServer(port) as again:
            took = await relay.until(lambda: bool(again.packets().get("video")), 30.0, "published again")
        # At most a second to the next attempt, and what connecting takes on a busy machine; the SFU's pauses grow to
        # 10 s.
        assert took < 10.0
        assert sink(relay, "").publications == 1


async def test_a_whip_server_alone_is_enough() -> None:
    async with WhipServer() as server, running_relay(1, sections={"whip": table(server)}, sfu=False) as relay:
        server.refusal = 503
        await relay.until(lambda: bool(relay.supervisor.status().cameras), 30.0, "the camera is listed")
        await relay.until(lambda: "503" in sink(relay, "studio").reason, 30.0, "the refusal is reported")
        camera = relay.supervisor.status().cameras[0]
        assert camera.state != "live"
        assert (camera.verdict.code, camera.verdict.stage) == (Cause.SINK_FAILS.value, "sink")
        assert "studio" in camera.reason
        server.refusal = 0
        await live_at(relay, "studio")
        await relay.until_live()
        camera = relay.supervisor.status().cameras[0]
        assert (camera.viewable, camera.sfu, camera.verdict.code) == (False, False, Cause.NONE.value)
        assert [(one.name, one.kind) for one in relay.supervisor.status().sinks] == [("studio", "whip")]
        await relay.until(lambda: set(server.packets()) == {"video", "audio"}, 30.0, "picture and sound are received")


async def test_a_server_that_is_told_to_gets_the_small_layer_and_another_the_original_alone() -> None:
    async with WhipServer() as told, WhipServer() as untold:
        sections = {"whip": table(told, renditions=True), "cameras": {"renditions": "keyframes"}}
        async with running_relay(1, sections=sections, sfu=False) as relay:
            await relay.until_live(within=60.0)
            configured(relay, table(told, renditions=True), table(untold, "archive"))
            await live_at(relay, "studio")
            await live_at(relay, "archive")
            await relay.until(lambda: set(told.layers()) == {"a", "b"}, 30.0, "both layers are received")
            before = told.layers()["b"]
            await relay.until(lambda: told.layers()["b"] > before + 2, 60.0, "as if somebody watched it")
            await relay.until(lambda: untold.packets().get("video", 0) > 0, 30.0, "the other has the picture")
            assert untold.layers() == {}
            camera = relay.supervisor.status().cameras[0]
            assert (camera.rendition.watched, camera.rendition.refusals, camera.rendition.reason) == (1, 0, "")
            assert camera.renditions == "off", "viewers of the relay itself can have none"
            configured(relay, table(told), table(untold, "archive"))
            await relay.until(lambda: told.layers() == {} and bool(told.packets()), 30.0, "published plainly again")
            await relay.until(lambda: relay.supervisor.status().cameras[0].rendition.watched == 0, 30.0, "by nobody")
            assert sink(relay, "archive").publications == 1


async def test_a_server_that_refuses_simulcast_is_published_at_plainly_once_with_a_note() -> None:
    async with WhipServer(variant=SfuVariant(simulcast="refused")) as server:
        sections = {"whip": table(server, renditions=True), "cameras": {"renditions": "keyframes"}}
        async with running_relay(1, sections=sections) as relay:
            await relay.until_live(within=60.0)
            await live_at(relay, "")  # one sink is enough for a camera to be live, and the other may be the slower one
            await live_at(relay, "studio")
            await relay.until(lambda: server.packets().get("video", 0) > 0, 30.0, "the picture is received")
            assert server.layers() == {}
            note = "studio: the answer refuses simulcast"
            await relay.until(lambda: relay.supervisor.status().cameras[0].rendition.reason == note, 30.0, "the note")
            camera = relay.supervisor.status().cameras[0]
            assert (camera.rendition.refusals, camera.renditions) == (1, "keyframes"), "the SFU takes them"
            assert sink(relay, "studio").publications == 1
            await relay.until(lambda: len(server.ended) == 1, 30.0, "the session in two layers is ended")
            assert len(server.sessions) == 1
