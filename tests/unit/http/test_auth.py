"""Who gets in, and what a browser may be used for."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_common.clock import ManualClock
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.auth import COOKIE, FailureLimiter, Gatekeeper, same_origin
from relay_supervisor.net import check_listen
from tests.fixtures.fake_relay import FakeRelay

TOKEN = "a-token-that-is-long-enough"


def client(token: str | None = None, base: str = "http://127.0.0.1:8080") -> tuple[httpx.AsyncClient, ManualClock]:
    clock = ManualClock()
    relay = FakeRelay(clock, cameras=1)
    app = create_app(relay, HttpSettings(token=Secret(token) if token else None), clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base), clock


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9000", ("::1", 9000)),
        ("127.8.8.8:1", ("127.8.8.8", 1)),
    ],
)
def test_loopback_needs_no_token(listen: str, expected: tuple[str, int]) -> None:
    assert check_listen(listen, None) == expected


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:80", "192.0.2.2:80", "relay.example:80"])
def test_elsewhere_needs_a_token(listen: str) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        check_listen(listen, None)
    assert "[http]" in caught.value.message
    assert caught.value.hint
    assert check_listen(listen, Secret(TOKEN))[1] > 0


@pytest.mark.parametrize("listen", ["", "8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1", "a@127.0.0.1:1"])
def test_what_is_no_address_is_an_error_that_names_the_key(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"\[http\] listen"):
        check_listen(listen, None)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter") as caught:
        check_listen("0.0.0.0:80", Secret("hunter2"))
    assert "hunter2" not in str(caught.value)


async def test_strict_headers_on_every_answer() -> None:
    http, _ = client()
    for path in ("/", "/api/stats", "/static/app.js", "/nothing", "/metrics", "/livez"):
        headers = (await http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http:" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"]


async def test_the_page_itself_needs_nothing_that_the_policy_forbids() -> None:
    http, _ = client()
    for name in ("/", "/static/login.html"):
        page = (await http.get(name)).text
        assert "style=" not in page
        assert "<style" not in page
        assert "onclick" not in page
        assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in page


async def test_without_a_token_only_loopback_names_are_served() -> None:
    http, _ = client()
    assert (await http.get("/api/stats")).status_code == 200
    assert (await http.get("/api/stats", headers={"Host": "localhost:8080"})).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "192.0.2.2:8080", "", "[::1"):
        reply = await http.get("/api/stats", headers={"Host": host})
        assert (reply.status_code, reply.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8080"}, 403),
    ],
)
async def test_state_changes_only_from_our_own_page(headers: dict[str, str], status: int) -> None:
    http, _ = client()
    reply = await http.post("/api/cameras/cam00000/restart", headers=headers)
    assert reply.status_code == status


def test_same_origin_is_about_host_and_port() -> None:
    assert same_origin("Relay.example", "https://relay.example", "")
    assert not same_origin("relay.example:81", "https://relay.example", "")


async def test_with_a_token_nothing_is_told_without_it() -> None:
    http, _ = client(TOKEN)
    for path in ("/api/stats", "/api/cameras", "/api/events", "/metrics", "/static/app.js", "/nothing"):
        reply = await http.get(path)
        assert reply.status_code == 401, path
        assert reply.json()["error"]["code"] == "unauthorized"
    page = await http.get("/")
    assert page.status_code == 401
    assert "Sign in" in page.text
    assert (await http.post("/api/view", json={"cameras": ["x"]})).status_code == 401
    ready = await http.get("/readyz")
    assert ready.json() == {"ready": True}  # probes get the verdict, not the cameras
    good = await http.get("/api/stats", headers={"Authorization": f"Bearer {TOKEN}"})
    assert good.status_code == 200


async def test_signing_in_gives_a_cookie_that_holds_no_token() -> None:
    http, clock = client(TOKEN, "http://relay.example")
    assert (await http.post("/login", data={"token": "wrong"})).status_code == 401
    reply = await http.post("/login", data={"token": TOKEN})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert (await http.get("/api/stats")).status_code == 200
    clock.step_wall(31 * 86400)
    assert (await http.get("/api/stats")).status_code == 401


async def test_a_link_with_the_token_signs_in_and_leaves_the_address() -> None:
    http, _ = client(TOKEN)
    reply = await http.get("/", params={"token": TOKEN})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert (await http.get("/")).status_code == 200


@pytest.mark.parametrize("value", ["", "x", "9999999999.", "9999999999.00", "9999999999.é", "٣.x", "1" * 99 + ".x"])
async def test_a_forged_cookie_opens_nothing(value: str) -> None:
    http, _ = client(TOKEN)
    reply = await http.get("/api/stats", headers={"Cookie": f"{COOKIE}={value}".encode()})
    assert reply.status_code == 401


async def test_wrong_tokens_lock_the_address_out_for_a_while_and_never_the_right_one() -> None:
    http, clock = client(TOKEN)
    wrong = {"Authorization": "Bearer wrong"}
    right = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(9):
        assert (await http.get("/api/stats", headers=wrong)).status_code == 401
    reply = await http.get("/api/stats", headers=wrong)
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) > 0
    # Another site's page can make an operator's browser ask with any token it likes.
    assert (await http.get("/api/stats", headers=right)).status_code == 200
    assert (await http.get(f"/?token={TOKEN}")).status_code == 303
    http.cookies.clear()
    assert (await http.get("/api/stats", headers=wrong)).status_code == 429
    await clock.advance(61)
    assert (await http.get("/api/stats", headers=wrong)).status_code == 401


@pytest.mark.parametrize(
    ("paused", "tries", "locked_for"), [(0.0, 0, 50.0), (40.0, 0, 10.0), (56.0, 7, 1.0), (180.0, 10, 60.0)]
)
def test_a_lock_out_ends_while_the_relay_stands_still_and_a_pause_gives_no_more_tries(
    paused: float, tries: int, locked_for: float
) -> None:
    """Ten in any minute, the pause included; the right token gets in all the while."""
    clock = ManualClock()
    gate = Gatekeeper(Secret(TOKEN), clock)
    for _ in range(10):
        gate.check_token("wrong", "192.0.2.1")
        clock._now += 1.0
    clock._now += paused
    before, waits = gate.failures, [gate.check_token("wrong", "192.0.2.1") for _ in range(20)]
    assert gate.failures - before == tries
    assert waits[-1] == locked_for
    assert gate.check_token(TOKEN, "192.0.2.1") is None


def test_a_host_with_many_addresses_has_ten_tries_with_all_of_them() -> None:
    gate = Gatekeeper(Secret(TOKEN), ManualClock())
    tries = [gate.check_token("wrong", f"2001:db8:7:1::{number:x}") for number in range(1, 30)]
    assert tries == [0.0] * 9 + [60.0] * 20
    assert gate.check_token("wrong", "2001:db8:7:2::1") == 0.0, "the next network is another one"
    assert gate.check_token(TOKEN, "2001:db8:7:1::1") is None


async def test_behind_a_trusted_proxy_each_client_has_its_own_lock() -> None:
    clock = ManualClock()
    behind = HttpSettings(token=Secret(TOKEN), trusted_proxies=("127.0.0.1",))
    app = create_app(FakeRelay(clock, cameras=1), behind, clock)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay.example")

    async def status(client: str, token: str = "wrong") -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": client}
        return (await http.get("/api/stats", headers=headers)).status_code

    assert [await status("203.0.113.9") for _ in range(11)] == [401] * 9 + [429] * 2
    assert await status("203.0.113.10") == 401
    # What the client itself wrote in front changes nothing.
    assert await status("203.0.113.77, 203.0.113.9") == 429


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_an_origin_that_cannot_be_read_is_not_ours(headers: dict[str, str]) -> None:
    http, _ = client()
    assert (await http.post("/api/cameras/cam00000/restart", headers=headers)).status_code == 403


async def test_a_form_with_many_fields_is_refused_in_words() -> None:
    http, _ = client(TOKEN)
    assert (await http.post("/login", content=b"token=" + b"x" * 8187)).status_code == 413
    reply = await http.post("/login", content="&".join(f"f{n}=1" for n in range(9)))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


_TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.sampled_from(["/", "/login", "/api/view", "/api/stats", "/watch/x", "/api/view/x", "/static/x", "/readyz"]),
    st.dictionaries(
        st.sampled_from(
            ["Origin", "Host", "Authorization", "Cookie", "Sec-Fetch-Site", "X-Forwarded-For", "Content-Type", "Range"]
        ),
        _TEXT,
    ),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=40),
    st.binary(max_size=60),
)
async def test_nothing_a_client_sends_is_an_internal_error(
    method: str, path: str, headers: dict[str, str], query: str, body: bytes
) -> None:
    http, _ = client(TOKEN)
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    url = httpx.URL(f"http://127.0.0.1:8080{path}", query=query.encode())
    reply = await http.request(method, url, headers=sent, content=body)
    assert reply.status_code < 500


async def test_the_limiter_remembers_a_bounded_number_of_addresses() -> None:
    limiter = FailureLimiter(ManualClock())
    for number in range(5000):
        limiter.failed(str(number))
    assert len(limiter._failures) == 1024
