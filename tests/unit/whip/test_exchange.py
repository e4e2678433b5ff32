"""WHIP's requests, and what every kind of answer to them means."""

from __future__ import annotations

import time

import pytest

from relay_common.errors import Remedy
from relay_common.secrets import Secret
from relay_common.whip.endpoint import UnusableUrl, WhipEndpoint, followed, is_private, parse_endpoint
from relay_common.whip.errors import LONGEST_WAIT, WhipError, wait_of
from relay_common.whip.exchange import (
    MOST_REDIRECTS,
    Exchange,
    WhipPatch,
    WhipResponse,
    created,
    ending,
    publishing,
    restarted,
    restarting,
    trickling,
)
from relay_common.whip.links import MOST_SERVERS, RecommendedServer, ice_servers, links

TOKEN = "tok-3n-0123456789"
URL = "https://whip.example/live/key-in-the-path?app=1"
ANSWER = b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"


def endpoint(url: str = URL, token: str = TOKEN) -> WhipEndpoint:
    return parse_endpoint(url, Secret(token))


def made(*headers: tuple[str, str], status: int = 201, body: bytes = ANSWER) -> WhipResponse:
    return WhipResponse(status, [("content-type", "application/sdp"), *headers], body)


def redirect(location: str, status: int = 307) -> WhipResponse:
    return WhipResponse(status, [("location", location)] if location else [])


def test_an_offer_is_posted_as_sdp_with_the_token() -> None:
    request = publishing(endpoint(), "v=0 offer").request
    assert (request.method, request.url, request.body) == ("POST", URL, b"v=0 offer")
    assert request.headers["Content-Type"] == "application/sdp"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in publishing(endpoint(token=""), "v=0 offer").request.headers
    assert TOKEN not in repr(endpoint()) + repr(request)
    assert "key-in-the-path" not in repr(endpoint()) + repr(request)


@pytest.mark.parametrize(
    ("location", "resource"),
    [
        ("/sessions/7", "https://whip.example/sessions/7"),
        ("7?x=y", "https://whip.example/live/7?x=y"),
        ("https://media3.example:8443/s/7", "https://media3.example:8443/s/7"),
        ("//media3.example/s/7", "https://media3.example/s/7"),
    ],
)
def test_the_session_is_where_location_says(location: str, resource: str) -> None:
    session = created(URL, made(("location", location), ("etag", '"1"')))
    assert (session.resource, session.notes) == (resource, ())
    assert session.answer == ANSWER.decode()


@pytest.mark.parametrize(
    "location", ["", "http://whip.example/s/7", "ftp://whip.example/", "https://u:p@whip.example/"]
)
def test_without_a_usable_location_the_session_is_left_not_ended(location: str) -> None:
    session = created(URL, made(*[("location", location)] if location else []))
    assert session.resource == ""
    assert "cannot be ended" in session.notes[0]
    assert session.answer


def test_small_deviations_of_a_server_are_noted() -> None:
    odd = WhipResponse(200, [("content-type", "text/plain"), ("location", "/1")], b"\r\n" + ANSWER)
    session = created(URL, odd)
    assert session.answer.startswith("v=0")
    assert len(session.notes) == 2
    with pytest.raises(WhipError, match="no SDP"):
        created(URL, made(("location", "/1"), body=b"<html>"))
    with pytest.raises(WhipError, match="no SDP"):
        created(URL, made(("location", "/1"), body=b"v=0" + b" " * 200_000))


@pytest.mark.parametrize("status", [307, 308])
def test_redirects_are_followed_with_the_same_request(status: int) -> None:
    exchange = publishing(endpoint(), "v=0 offer")
    assert exchange.receive(redirect("/eu/live", status), 0.0) is None
    assert (exchange.request.method, exchange.request.url) == ("POST", "https://whip.example/eu/live")
    assert exchange.request.body == b"v=0 offer"
    assert exchange.request.headers["Authorization"] == f"Bearer {TOKEN}"
    last = made(("location", "s/1"))
    assert exchange.receive(last, 0.0) is last
    assert created(exchange.request.url, last).resource == "https://whip.example/eu/s/1"


def test_the_token_stays_with_the_host_that_it_is_for() -> None:
    exchange = publishing(endpoint(), "v=0 offer")
    assert exchange.receive(redirect("https://elsewhere.example/live"), 0.0) is None
    assert "Authorization" not in exchange.request.headers
    assert "Authorization" not in ending(endpoint(), "https://whip.example:8443/s/1").request.headers
    local = endpoint("http://192.168.1.5:1984/whip")
    assert "Authorization" in ending(local, "https://192.168.1.5/s/1").request.headers  # by https it is safer
    assert "Authorization" not in ending(local, "http://192.168.1.5:8080/s/1").request.headers


@pytest.mark.parametrize("location", ["http://whip.example/live", "", "http://127.0.0.1/", "\x00", "x" * 3000])
def test_a_redirect_never_leads_to_http_or_nowhere(location: str) -> None:
    exchange = publishing(endpoint(), "v=0 offer")
    with pytest.raises(WhipError, match="redirected POST"):
        exchange.receive(redirect(location), 0.0)


def test_redirects_end() -> None:
    exchange = publishing(endpoint(), "v=0 offer")
    for number in range(MOST_REDIRECTS):
        assert exchange.receive(redirect(f"/{number}"), 0.0) is None
    with pytest.raises(WhipError, match="more than 5"):
        exchange.receive(redirect("/again"), 0.0)


def refused(status: int, *headers: tuple[str, str], body: bytes = b"") -> WhipError:
    with pytest.raises(WhipError) as caught:
        publishing(endpoint(), "v=0 offer").receive(WhipResponse(status, headers, body), 1_000_000.0)
    assert caught.value.status == status
    return caught.value


def test_refusals_are_told_apart() -> None:
    for status in (401, 403):
        error = refused(status)
        assert (error.unauthorized, error.remedy) == (True, Remedy.FATAL)
        assert "bearer_token" in str(error)
    for status in (301, 302, 303, 400, 404, 405, 406, 409, 415, 422, 429, 500, 503):
        error = refused(status)
        assert (error.unauthorized, error.remedy) == (False, Remedy.RETRY)
    assert "path of url" in str(refused(404))
    assert "H.264" in str(refused(406))
    assert refused(503, ("retry-after", "7")).retry_after == 7.0


def test_what_a_server_says_is_quoted_short_and_without_secrets() -> None:
    error = refused(400, body=f"bad token {TOKEN} a=ice-pwd:hushhush ".encode() + b"x" * 10_000)
    assert "bad token [redacted]" in error.message
    assert "hushhush" not in error.message
    assert len(error.message) < 300
    assert refused(502, body=b"<html><body>Bad Gateway").message == "the server answered POST with 502"
    assert "key-in-the-path" not in str(error)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("7", 7.0), (" 7 ", 7.0), ("", 0.0), ("-7", 0.0), ("soon", 0.0), ("9" * 400, LONGEST_WAIT)),
        ("Mon, 12 Jan 1970 13:47:00 GMT", 20.0),
        ("Mon, 12 Jan 1970 13:46:00 GMT", 0.0),
        ("Mon, 12 Jan 9999 13:46:00 GMT", LONGEST_WAIT),
        ("Mon, 99 Jan 9999 13:46:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float) -> None:
    assert wait_of(text, 1_000_000.0) == seconds


def test_ending_is_a_delete_without_a_body() -> None:
    request = ending(endpoint(), "https://whip.example/s/1").request
    assert (request.method, request.body) == ("DELETE", b"")
    assert set(request.headers) == {"Authorization", "Accept-Encoding"}


SESSION = "https://whip.example/s/1"


def test_a_restart_matches_any_ice_session_and_candidates_only_theirs() -> None:
    request = restarting(endpoint(), SESSION, "a=ice-ufrag:x").request
    assert (request.method, request.url, request.body) == ("PATCH", SESSION, b"a=ice-ufrag:x")
    assert request.headers["If-Match"] == "*"
    assert request.headers["Content-Type"] == "application/trickle-ice-sdpfrag"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert trickling(endpoint(), SESSION, "a=candidate:1", '"7"').request.headers["If-Match"] == '"7"'
    assert "If-Match" not in trickling(endpoint(), SESSION, "a=candidate:1", "").request.headers


def test_a_restart_goes_where_it_is_redirected() -> None:
    exchange = restarting(endpoint(), SESSION, "a=ice-ufrag:x")
    assert exchange.receive(redirect("/eu/s/1"), 0.0) is None
    assert exchange.request.url == "https://whip.example/eu/s/1"
    assert exchange.request.headers["If-Match"] == "*"
    assert exchange.request.headers["Content-Type"] == "application/trickle-ice-sdpfrag"


def test_only_200_with_a_fragment_is_a_restart() -> None:
    took = WhipResponse(200, [("etag", '"8"')], b"a=ice-ufrag:theirs\r\n")
    assert restarted(took) == WhipPatch("a=ice-ufrag:theirs\r\n", '"8"')
    assert "theirs" not in repr(restarted(took))
    for other in (WhipResponse(204), WhipResponse(200), WhipResponse(200, (), b"x" * 200_000)):
        with pytest.raises(WhipError, match="restarted nothing"):
            restarted(other)


@pytest.mark.parametrize(
    ("status", "never"),
    [(400, False), (404, False), (405, True), (412, False), (415, True), (422, True), (428, False), (501, True)],
)
def test_a_server_that_never_takes_a_patch_is_told_from_one_that_does_not_now(status: int, never: bool) -> None:
    with pytest.raises(WhipError) as caught:
        restarting(endpoint(), SESSION, "a=ice-ufrag:x").receive(WhipResponse(status), 0.0)
    assert (caught.value.status, caught.value.never) == (status, never)


@pytest.mark.parametrize(
    ("tag", "kept"),
    [('"1"', '"1"'), ('W/"1"', 'W/"1"'), ("*", "*"), ("", ""), ("a b", ""), ("x" * 300, ""), ("a\x00", ""), ("ä", "")],
)
def test_the_tag_of_a_session_is_kept_if_it_can_be_sent_back(tag: str, kept: str) -> None:
    assert created(URL, made(("location", "/1"), ("etag", tag))).etag == kept


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://whip.example/live", "private networks"),
        ("http://8.8.8.8/live", "private networks"),
        ("https://user:pw@whip.example/", "password"),
        ("rtmp://whip.example/", "no web address"),
        ("https:///live", "no web address"),
        ("https://whip.example:99999/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://whip.example/ä", "no URL"),
        ("", "no web address"),
    ],
)
def test_urls_that_nothing_is_sent_to(url: str, why: str) -> None:
    with pytest.raises(UnusableUrl, match=why):
        parse_endpoint(url, Secret(""))


def test_plain_http_is_for_private_hosts() -> None:
    for host in ("127.0.0.1", "localhost", "go2rtc", "nas.local", "10.1.2.3", "192.168.0.9", "[::1]", "[fd00::1]"):
        assert endpoint(f"http://{host}:1984/api").overheard
    assert not endpoint().overheard
    assert not is_private("example.com")
    assert not is_private("2001:4860:4860::8888")
    with pytest.raises(UnusableUrl, match="cannot be sent"):
        parse_endpoint(URL, Secret("two words"))
    assert endpoint().place == "https://whip.example:443"
    assert endpoint("http://[::1]:80/x").place == "http://[::1]:80"


def test_a_reference_is_resolved_as_rfc_3986_says() -> None:
    assert followed("https://h.example/a/b", "../c") == "https://h.example/c"
    assert followed("http://10.0.0.1/a", "https://h.example/b") == "https://h.example/b"
    with pytest.raises(UnusableUrl, match="from https to http"):
        followed("https://h.example/a", "http://10.0.0.1/b")


def test_ice_servers_come_from_link_headers() -> None:
    headers = [
        '<stun:stun.example.net>; rel="ice-server"',
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="us,er"; credential="my\\"Pass;word"; '
        'credential-type="password", <turns:t.example>; rel=ice-server; username=u; credential=c',
        '<https://whip.example/ext>; rel="urn:ietf:params:whip:ext:core:layer"',
        '<javascript:x>; rel="ice-server"',
        '<turn:oauth.example>; rel="ice-server"; credential-type="oauth"',
    ]
    assert ice_servers(headers) == (
        RecommendedServer(url="stun:stun.example.net"),
        RecommendedServer(url="turn:turn.example.net?transport=udp", username="us,er", credential='my"Pass;word'),
        RecommendedServer(url="turns:t.example", username="u", credential="c"),
    )
    assert "Pass" not in repr(ice_servers(headers))
    assert len(ice_servers([f"<stun:{n}.example>; rel=ice-server" for n in range(100)])) == MOST_SERVERS


@pytest.mark.parametrize("header", ["", "<", "<a", "a>", '<stun:a>;rel="', ";;;", "<>;=;,<x>", "<stun:a>;rel"])
def test_a_malformed_link_is_no_error(header: str) -> None:
    assert ice_servers([header]) == ()


def test_a_link_header_is_read_in_linear_time() -> None:
    began = time.process_time()
    for hostile in (
        '<a>;x="' + "\\" * 500_000,
        "<" * 500_000,
        ", " * 500_000,
        "<a>" + ";" * 500_000,
        "<a>; " + "x" * 500_000,
    ):
        list(links(hostile))
    assert time.process_time() - began < 1.0


def test_an_exchange_is_one_request() -> None:
    exchange = Exchange(endpoint(), "DELETE", "https://whip.example/s/1")
    assert exchange.receive(WhipResponse(204), 0.0) is not None
