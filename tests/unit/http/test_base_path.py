"""Served under a path: what is stripped, whose word on it is believed, and where sign-in leads."""

from __future__ import annotations

import httpx
import pytest

from relay_common.clock import ManualClock
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.base_path import base_path
from tests.fixtures.fake_relay import FakeRelay

TOKEN = "a-token-that-is-long-enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def client(base: str = "", proxies: tuple[str, ...] = (), token: str = TOKEN) -> httpx.AsyncClient:
    clock = ManualClock()
    settings = HttpSettings(token=Secret(token), base_path=base, trusted_proxies=proxies)
    app = create_app(FakeRelay(clock, cameras=1), settings, clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay.example")


async def signed_in(http: httpx.AsyncClient, path: str, prefix: str | None = None) -> tuple[str, str]:
    """Where sign-in redirects to, and its cookie's path."""
    headers = {} if prefix is None else {"X-Forwarded-Prefix": prefix}
    reply = await http.post(path, data={"token": TOKEN}, headers=headers)
    assert reply.status_code == 303
    (cookie,) = [part for part in reply.headers["set-cookie"].split("; ") if part.lower().startswith("path=")]
    return reply.headers["location"], cookie[5:]


@pytest.mark.parametrize(
    ("proxies", "told", "secure"),
    [
        (("127.0.0.1",), "https", True),
        (("127.0.0.1",), "HTTPS", True),
        (("127.0.0.1",), "http", False),
        (("127.0.0.1",), "javascript", False),
        (("127.0.0.1",), None, False),
        ((), "https", False),
        (("192.0.2.1",), "https", False),
    ],
)
async def test_the_cookie_is_for_tls_alone_where_a_trusted_proxy_is_reached_over_it(
    proxies: tuple[str, ...], told: str | None, secure: bool
) -> None:
    headers = {} if told is None else {"X-Forwarded-Proto": told}
    reply = await client(proxies=proxies).post("/login", data={"token": TOKEN}, headers=headers)
    assert ("secure" in reply.headers["set-cookie"].lower().split("; ")) is secure


@pytest.mark.parametrize("text", ["/cameras", "/cameras/", "/home/cameras-2", "/~me/a.b", ""])
def test_a_path_is_taken_without_its_last_slash(text: str) -> None:
    assert base_path(text) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "cameras",
        "//evil.example",
        "/a//b",
        "/../x",
        "/a b",
        "/a;Path=/",
        "/a?b",
        "/a#b",
        "/%2f",
        "/ä",
        "/a\n",
        "/" + "a" * 200,
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="which is no path"):
        base_path(text)


async def test_the_base_path_is_stripped_and_everything_answers_with_and_without_it() -> None:
    http = client("/cameras")
    for prefix in ("", "/cameras"):
        assert (await http.get(f"{prefix}/livez")).status_code == 200
        assert (await http.get(f"{prefix}/api/stats")).status_code == 401
        assert (await http.get(f"{prefix}/api/stats", headers=BEARER)).status_code == 200
        assert (await http.get(f"{prefix}/static/style.css")).status_code == 200
        assert await signed_in(http, f"{prefix}/login") == ("/cameras/", "/cameras/")
        http.cookies.clear()
        described = (await http.get(f"{prefix}/api/openapi.json", headers=BEARER)).json()
        assert described["servers"] == [{"url": "/cameras"}]
    # Not a longer name that begins like it; and the path alone leads to the page, with its query.
    assert (await http.get("/cameras2/livez", headers=BEARER)).status_code == 404
    reply = await http.get("/cameras?token=x")
    assert (reply.status_code, reply.headers["location"]) == (308, "/cameras/?token=x")
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("forged", ["//evil.example", "https://evil.example", "/x;Domain=example", "/..", "/a\\b", "x"])
async def test_only_a_trusted_proxy_says_where_the_relay_is_seen_and_only_in_paths(forged: str) -> None:
    trusted, stranger = client(proxies=("127.0.0.1",)), client()
    assert await signed_in(trusted, "/login", "/home/cameras/") == ("/home/cameras/", "/home/cameras/")
    assert await signed_in(stranger, "/login", "/home/cameras/") == ("/", "/")
    assert await signed_in(trusted, "/login", forged) == ("/", "/")
    # The header says what was stripped already: nothing is stripped for it.
    reply = await trusted.get("/home/cameras/livez", headers=BEARER | {"X-Forwarded-Prefix": "/home/cameras"})
    assert reply.status_code == 404


async def test_without_a_base_path_nothing_has_changed() -> None:
    http = client()
    assert await signed_in(http, "/login") == ("/", "/")
    assert "servers" not in (await http.get("/api/openapi.json", headers=BEARER)).json()
