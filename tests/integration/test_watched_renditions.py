"""Smaller pictures on a live relay: real workers, the simulated SFU, and stock aiortc as the page."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_common.protocol import Republish
from tests.fixtures.running_relay import SMALL, RunningRelay, running_relay
from tests.fixtures.stock_page import HttpViews, StockPage

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]

WITHIN = 40.0
OVER = 4.0
"""Seconds over which a rate is measured."""


@contextlib.asynccontextmanager
async def porch(mode: str = "keyframes", **variant: Any) -> AsyncIterator[tuple[RunningRelay, str]]:
    """A relay with one camera that is live, and its id."""
    sections = {"cameras": {"renditions": mode}}
    async with running_relay(1, size="640x360", options=SMALL, sections=sections, sfu_variant=variant) as relay:
        await relay.until_live(within=WITHIN)
        yield relay, relay.supervisor.status().cameras[0].id


@contextlib.asynccontextmanager
async def page_of(relay: RunningRelay, camera: str, quality: str) -> AsyncIterator[tuple[StockPage, str]]:
    """A page that watches, and the mid of its video."""
    page = StockPage(HttpViews(relay.http, relay.supervisor.url))
    try:
        answer = await page.open([camera], {camera: quality})
        yield page, next(track.mid for track in answer.tracks if track.kind == "video")
    finally:
        await page.close()


async def received(relay: RunningRelay, mid: str) -> int:
    """Bytes of video that the SFU has sent to the one page."""
    sessions = (await relay.sfu("sessions"))["sessions"]
    (track,) = (track for session in sessions for track in session["pulled"] if track["mid"] == mid)
    return int(track["bytes"])


async def rate(relay: RunningRelay, mid: str) -> float:
    """Bytes a second, over seconds in which there are some: small pictures may be four seconds apart."""
    before, began = await received(relay, mid), time.monotonic()
    await asyncio.sleep(OVER)
    async with asyncio.timeout(WITHIN):
        while (now := await received(relay, mid)) == before:
            await asyncio.sleep(0.1)
    return (now - before) / (time.monotonic() - began)


async def subscribers(relay: RunningRelay, name: str) -> dict[str, int]:
    """How many viewers the SFU sends each layer of a camera's newest publication."""
    layers = (await relay.published(name))[-1].get("layers", {})
    return {rid: layer["subscribers"] for rid, layer in layers.items()}


async def until_subscribed(relay: RunningRelay, name: str, wanted: dict[str, int]) -> None:
    async with asyncio.timeout(WITHIN):
        while await subscribers(relay, name) != wanted:
            await asyncio.sleep(0.1)


async def series(relay: RunningRelay) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=relay.supervisor.url, timeout=20.0) as http:
        text = (await http.get("/metrics")).raise_for_status().text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("relay_rendition_")
    }


async def test_a_small_tile_gets_the_small_layer_and_an_enlarged_one_the_original_without_an_offer() -> None:
    async with porch() as (relay, camera), page_of(relay, camera, "small") as (page, mid):
        name = relay.camera("Front Door").name
        assert relay.camera(name).renditions == "keyframes"
        await until_subscribed(relay, name, {"a": 0, "b": 1})
        await relay.until(lambda: relay.camera(name).rendition.watched == 1, WITHIN, "it is known to be watched")
        before = relay.camera(name).rendition.pictures
        await relay.until(lambda: relay.camera(name).rendition.pictures > before + 1, WITHIN, "small pictures are made")
        small = await rate(relay, mid)
        moved = await series(relay)

        views = HttpViews(relay.http, relay.supervisor.url)
        answer = await views.update(page.view, qualities={camera: "full"})
        assert (answer.action, answer.offer) == ("none", "")
        assert [(track.mid, track.quality) for track in answer.tracks if track.kind == "video"] == [(mid, "full")]
        await until_subscribed(relay, name, {"a": 1, "b": 0})
        full = await rate(relay, mid)
        assert small < full / 4, "the smaller picture is what it costs less"
        await relay.until(lambda: relay.camera(name).rendition.watched == 0, WITHIN, "nobody has the small one")

        await views.update(page.view, qualities={camera: "small"})
        await until_subscribed(relay, name, {"a": 0, "b": 1})
        assert relay.supervisor.viewers.outcomes["requalified"] == 2
    for counter in ("pictures_total", "sent_packets_total", "sent_bytes_total"):
        assert moved[f"relay_rendition_{counter}"] > 0
    assert (moved["relay_rendition_up"], moved["relay_rendition_viewers"]) == (1.0, 1.0)
    assert moved["relay_rendition_cpu_ratio"] > 0
    assert moved["relay_rendition_smooth"] == moved["relay_rendition_limited"] == 0.0


async def test_a_camera_that_is_published_anew_keeps_its_quality_also_at_an_sfu_without_policies() -> None:
    async with porch("smooth", simulcast_policies=False) as (relay, camera):
        async with page_of(relay, camera, "small") as (page, _):
            await until_subscribed(relay, "Front Door", {"a": 0, "b": 1})
            assert relay.supervisor.status().counters["sfu.policies_refused"] == 1
            await relay.until(lambda: relay.camera("Front Door").rendition.active == "smooth", WITHIN, "it is smooth")
            assert (await series(relay))["relay_rendition_smooth"] == 1.0
            before = relay.camera("Front Door").publication
            assert relay.supervisor.fleet.send(camera, Republish(publication=before, reason="the test asks for it"))
            await relay.until(lambda: relay.camera("Front Door").publication not in ("", before), WITHIN, "another one")
            answer = await relay.supervisor.viewers.update(page.view)
            assert [track.quality for track in answer.tracks if track.kind == "video"] == ["small"]
            await until_subscribed(relay, "Front Door", {"a": 0, "b": 1})
            await relay.supervisor.viewers.close(page.view)
        await relay.until(lambda: relay.camera("Front Door").rendition.active != "smooth", WITHIN, "nobody has it")


async def test_an_answer_that_refuses_simulcast_means_one_plain_publication() -> None:
    async with porch(simulcast="refused") as (relay, camera):
        await relay.until(lambda: bool(relay.camera("Front Door").rendition.reason), WITHIN, "why there is none")
        async with page_of(relay, camera, "small") as (_, mid):
            assert await rate(relay, mid) > 0
            front = relay.camera("Front Door")
            assert (front.renditions, front.rendition.refusals) == ("off", 1)
            assert await subscribers(relay, "Front Door") == {}
            moved = await series(relay)
            assert (moved["relay_rendition_refused_answers_total"], moved["relay_rendition_limited"]) == (1.0, 1.0)
            assert moved["relay_rendition_up"] == 0.0
