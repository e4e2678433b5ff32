"""All clients of public servers share one TLS context, and ask the environment for nothing but its authorities."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay_common.authorities import DIRECTORY, FILE, public_authorities
from relay_common.clock import ManualClock, SystemClock
from relay_common.cloudflare.client import SfuClient
from relay_common.cloudflare.errors import SfuError
from relay_common.cloudflare.turn import TurnKey
from relay_common.config import NestConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_common.simulation.camera.certs import make_server_context
from relay_supervisor.google.credentials import exchange
from relay_supervisor.google.errors import TokenUnavailable
from relay_supervisor.google.leases.account import open_api
from relay_supervisor.google.oauth import TokenSource
from tests.fixtures.scripted_http import ScriptedServer, reply

NEST = NestConfig(
    project_id="p", client_id="i.apps", client_secret=Secret("s" * 16), refresh_token=Secret("1//" + "r" * 16)
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without authorities of its own; what a test makes of it is read anew, and forgotten."""
    for name in (FILE, DIRECTORY):
        monkeypatch.delenv(name, raising=False)
    public_authorities.cache_clear()
    yield monkeypatch
    public_authorities.cache_clear()


def token_source(url: str) -> TokenSource:
    return TokenSource(
        project_id="p",
        client_id="i.apps",
        client_secret=Secret("s" * 16),
        refresh_token=Secret("1//" + "r" * 16),
        token_url=url,
        clock=ManualClock(),
    )


async def refused_by(url: str) -> list[str]:
    """What Google's and Cloudflare's clients say against the certificate of a server; empty when they trust it."""
    said = []
    tokens, sfu = token_source(f"{url}/token"), client_of(url)
    try:
        await tokens.token()
    except TokenUnavailable as error:
        said.append(str(error))
    try:
        await sfu.new_session()
    except SfuError as error:
        said.append(str(error))
    for one in (tokens, sfu):
        await one.aclose()
    return said


def client_of(url: str) -> SfuClient:
    return SfuClient("app", Secret("s" * 16), clock=SystemClock(), rng=random.Random(1), base_url=url)


def hashed(file: Path, directory: Path) -> None:
    """Put a certificate where OpenSSL looks for it in a directory."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not installed (apt install openssl)")
    name = subprocess.check_output([openssl, "x509", "-hash", "-noout", "-in", str(file)], text=True).strip()
    directory.mkdir()
    shutil.copy(file, directory / f"{name}.0")


@pytest.mark.parametrize("named", ["", FILE, DIRECTORY])
async def test_a_network_with_an_authority_of_its_own_is_used_where_the_environment_names_it(
    tmp_path: Path, environment: pytest.MonkeyPatch, named: str
) -> None:
    context, authority = make_server_context(tmp_path)
    hashed(authority, tmp_path / "hashed")
    if named:
        value = str(authority) if named == FILE else f"{tmp_path}:{tmp_path / 'hashed'}"
        environment.setenv(named, value)
    async with ScriptedServer(context) as server:
        server.answer = answer
        said = await refused_by(f"https://127.0.0.1:{server.port}")
    if named:
        assert said == []
        assert [line for line, *_ in server.requests] == ["POST /token", "POST /apps/app/sessions/new"]
    else:
        assert len(said) == 2
        assert all("its certificate is not trusted" in one for one in said)
        assert server.requests == []


def answer(line: str, headers: dict[str, str], body: bytes) -> bytes:
    """Google's and Cloudflare's answers."""
    if "/token" in line:
        text = b'{"access_token": "ya29.a", "expires_in": 3599, "token_type": "Bearer"}'
        return reply("200 OK", text, "Content-Type: application/json")
    return reply("201 Created", b'{"sessionId": "s"}', "Content-Type: application/json")


def test_the_authorisation_trusts_the_same(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """Its code is traded by a client of its own, which used the environment's proxies, too."""
    seen: list[Any] = []

    class Client(httpx.Client):
        def __init__(self, **options: Any) -> None:
            seen.append((options["verify"], options["trust_env"]))
            super().__init__(**options)

    environment.setattr(httpx, "Client", Client)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"refresh_token": "1//r"}))
    given = exchange(
        Secret("4/c"), client_id="i", client_secret=Secret("s"), token_url="https://x", transport=transport
    )
    assert given.reveal() == "1//r"
    assert seen == [(public_authorities(), False)]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (FILE, "/none.pem", "No such file or directory"),
        (FILE, "/dev/null", "it holds no certificate"),
        (DIRECTORY, "/:/none", "=/none cannot be used: there is no such directory"),
    ],
)
def test_authorities_that_cannot_be_used_are_a_mistake_of_the_configuration(
    environment: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigError, match=why) as caught:
        public_authorities()
    assert name in caught.value.message


async def test_the_certificates_are_read_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(context: ssl.SSLContext, *args: Any, **named: Any) -> None:
        read.append(context)
        load(context, *args, **named)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
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
        tokens = token_source(f"http://127.0.0.1:{google.port}/token")
        assert (await tokens.token()).reveal() == "ya29.a"
        await tokens.aclose()
    assert proxy.requests == []
