"""All clients of public servers share one TLS context, and none asks the environment."""

from __future__ import annotations

import random
import ssl
from typing import Any

import pytest

from relay_common.authorities import public_authorities
from relay_common.clock import ManualClock
from relay_common.cloudflare.client import SfuClient
from relay_common.cloudflare.turn import TurnKey
from relay_common.config import NestConfig
from relay_common.secrets import Secret
from relay_supervisor.google.leases.account import open_api
from relay_supervisor.google.oauth import TokenSource
from tests.fixtures.scripted_http import ScriptedServer, reply

NEST = NestConfig(
    project_id="p", client_id="i.apps", client_secret=Secret("s" * 16), refresh_token=Secret("1//" + "r" * 16)
)


async def test_the_certificates_are_read_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(context: ssl.SSLContext, *args: Any, **named: Any) -> None:
        read.append(context)
        load(context, *args, **named)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    public_authorities.cache_clear()
    clock = ManualClock()
    sfu = SfuClient("app", Secret("s" * 16), clock=clock, rng=random.Random(1))
    turn = TurnKey("a" * 32, Secret("t" * 16))
    _, tokens, google = open_api(NEST, clock)
    assert len(read) == 1
    for one in (sfu, turn, tokens, google):
        await one.aclose()


async def test_a_proxy_or_password_of_the_environment_gets_no_refresh_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer() as google, ScriptedServer() as proxy:
        google.answer = lambda line, headers, body: reply(
            "200 OK",
            b'{"access_token": "ya29.a", "expires_in": 3599, "token_type": "Bearer"}',
            "Content-Type: application/json",
        )
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        tokens = TokenSource(
            project_id="p",
            client_id="i.apps",
            client_secret=Secret("s" * 16),
            refresh_token=Secret("1//" + "r" * 16),
            token_url=f"http://127.0.0.1:{google.port}/token",
            clock=ManualClock(),
        )
        assert (await tokens.token()).reveal() == "ya29.a"
        await tokens.aclose()
    assert proxy.requests == []
