"""Relay and browser through a real TURN server (coturn) over TCP, where UDP between them and the SFU is blocked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page, Response

from relay_supervisor.checks import remote
from relay_supervisor.checks.report import Grade
from tests.fixtures.dashboard import decoding
from tests.fixtures.running_relay import RunningRelay, running_relay
from tests.fixtures.turn_server import RELAY_ADDRESS, SECRET, USER, TurnServer, turn_server

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(180)]

TOKEN = "turn-api-token-of-the-simulated-account"


async def senders(relay: RunningRelay) -> set[str]:
    """The addresses from which the SFU's connected peers send."""
    sessions = (await relay.sfu("sessions"))["sessions"]
    return {session["address"][0] for session in sessions if session["address"]}


async def seen_through(relay: RunningRelay, page: Page, server: TurnServer) -> None:
    """The camera goes live and is decoded, and nothing reached the SFU but through the TURN server."""
    await relay.until_live(within=60.0)
    await page.goto(relay.supervisor.url)
    await decoding(page, [relay.supervisor.status().cameras[0].id])
    assert await senders(relay) == {RELAY_ADDRESS}
    assert "ALLOCATE processed, success" in server.said()


async def test_a_turn_key_carries_relay_and_viewer(
    chromium_page: Page, tmp_path: Path, unused_tcp_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    sections = {"cloudflare": {"turn": {"key_id": "key", "api_token": TOKEN}}}
    async with turn_server(unused_tcp_port, tmp_path) as server:
        keys = {"key_id": "key", "api_token": TOKEN, "urls": [server.url], "secret": SECRET}
        async with running_relay(1, sections=sections, before={"turn": keys | {"admit_only": RELAY_ADDRESS}}) as relay:
            answers: list[Response] = []
            chromium_page.on("response", lambda answer: answers.append(answer))
            await seen_through(relay, chromium_page, server)
            told = await relay.sfu("turn")
            of_relay, of_view = told["issued"][0], told["issued"][-1]
            assert len(told["issued"]) == 2
            assert told["lives"] == [48 * 3600, 12 * 3600]
            (given,) = [await answer.text() for answer in answers if answer.url.endswith("/api/view")]
            assert of_view in given
            assert of_relay not in given
            assert TOKEN not in given
            assert of_view not in "".join(answer.url for answer in answers)
            await chromium_page.goto("about:blank")
            async with asyncio.timeout(30):
                while of_view not in (await relay.sfu("turn"))["revoked"]:
                    await asyncio.sleep(0.1)
            assert of_relay not in (await relay.sfu("turn"))["revoked"]
            status = relay.supervisor.status()
            tried = await remote.turn(relay.supervisor.config.cloudflare)
            assert tried is not None
            assert tried.verdict is Grade.OK, tried
            assert server.url in tried.text
    said = "".join(capfd.readouterr())
    for secret in (TOKEN, SECRET):
        assert secret not in said
        assert secret not in repr(status)


async def test_a_static_turn_server_carries_relay_and_viewer(
    chromium_page: Page, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with turn_server(unused_tcp_port, tmp_path, static=True) as server:
        table = {"urls": server.url, "username": USER[0], "credential": USER[1]}
        async with running_relay(
            1, sections={"cloudflare": {"ice_servers": [table]}}, before={"turn": {"admit_only": RELAY_ADDRESS}}
        ) as relay:
            await seen_through(relay, chromium_page, server)
