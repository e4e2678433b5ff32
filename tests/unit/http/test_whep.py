"""WHEP at the supervisor: who may watch, from which sites, and what a player is told."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from relay_common.clock import ManualClock
from relay_common.local_messages import LocalPatched
from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.auth import COOKIE, Gatekeeper
from relay_supervisor.http.links import ViewerSettings
from relay_supervisor.http.whep import FRAGMENT, MAX_OFFER, MOST_CANDIDATES, OFFER
from tests.fixtures.fake_relay import FakeRelay

TOKEN = "a-token-that-is-long-enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"
SITE = "https://home.example"
TYPE = {"Content-Type": OFFER}


def served(token: str = TOKEN, base_path: str = "") -> tuple[httpx.AsyncClient, FakeRelay]:
    clock = ManualClock()
    relay = FakeRelay(clock, cameras=2)
    relay.local.answer, relay.local.origins = "v=0\r\n", {SITE}
    viewers = ViewerSettings(access="links", link_secret=Secret("a-secret-that-is-long-enough"))
    settings = HttpSettings(token=Secret(token) if token else None, viewers=viewers, base_path=base_path)
    app = create_app(relay, settings, clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080"), relay


async def link_to(http: httpx.AsyncClient, camera: str) -> dict[str, str]:
    made = await http.post(f"/api/cameras/{camera}/link", json={"seconds": 60}, headers=BEARER)
    return {key: values[0] for key, values in parse_qs(urlsplit(made.json()["path"]).query).items()}


async def test_an_offer_is_answered_with_a_session() -> None:
    http, relay = served(base_path="/cameras")
    reply = await http.post("/cameras/whep/cam00000", content=SDP, headers=BEARER | TYPE)
    assert (reply.status_code, reply.text, reply.headers["content-type"]) == (201, "v=0\r\n", OFFER)
    assert reply.headers["location"] == "/cameras/whep/cam00000/viewer-1"
    assert reply.headers["etag"].startswith('"')
    assert reply.headers["accept-patch"] == FRAGMENT
    ((camera, offer, visitor, link),) = relay.local.opened
    assert (camera, offer, visitor.operator, link) == ("cam00000", SDP, True, None)
    assert "access-control-allow-origin" not in reply.headers
    ended = await http.delete(reply.headers["location"], headers=BEARER)
    assert ended.status_code == 200
    assert [viewer for viewer, _ in relay.local.closed] == ["viewer-1"]


async def test_a_player_may_choose_the_smaller_picture() -> None:
    http, relay = served()
    for query in ("", "?quality=small", "?quality=full"):
        made = await http.post(f"/whep/cam00000{query}", content=SDP, headers=BEARER | TYPE)
        assert (made.status_code, made.headers["location"]) == (201, f"/whep/cam00000/viewer-1{query}")
    assert relay.local.qualities == ["", "small", "full"]
    refused = await http.post("/whep/cam00000?quality=tiny", content=SDP, headers=BEARER | TYPE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")


async def test_nobody_watches_without_a_credential() -> None:
    http, relay = served()
    for method, path in (("POST", "/whep/cam00000"), ("PATCH", "/whep/cam00000/v"), ("DELETE", "/whep/cam00000/v")):
        assert (await http.request(method, path, content=SDP, headers=TYPE)).status_code == 401
    assert relay.local.opened == relay.local.closed == []


async def test_a_link_in_the_address_serves_players_that_send_no_header() -> None:
    http, relay = served()
    query = await link_to(http, "cam00000")
    reply = await http.post("/whep/cam00000", params=query, content=SDP, headers=TYPE)
    assert reply.status_code == 201
    location = reply.headers["location"]
    assert parse_qs(urlsplit(location).query) == {key: [value] for key, value in query.items()}
    ((_, _, visitor, link),) = relay.local.opened
    assert (visitor.operator, visitor.link) == (False, query["signature"].partition("-")[0])
    assert link is not None
    assert (link.camera, link.signature) == ("cam00000", query["signature"])
    assert (await http.delete(location)).status_code == 200
    other = await http.post("/whep/cam00001", params=query, content=SDP, headers=TYPE)
    assert other.status_code == 403
    header = {"Authorization": f"Link cam00000.{query['expires']}.{query['signature']}"}
    assert (await http.post("/whep/cam00000", content=SDP, headers=header | TYPE)).status_code == 201
    assert (await http.post("/whep/cam00001", content=SDP, headers=header | TYPE)).status_code == 403
    assert (
        await http.post("/whep/cam00000", params=query | {"expires": "1"}, content=SDP, headers=TYPE)
    ).status_code == 403


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (SDP.encode(), "text/plain", 415),
        (b"", OFFER, 400),
        (b"hello", OFFER, 400),
        (b"v=0\xff", OFFER, 400),
        (b"v=0" + bytes(MAX_OFFER), OFFER, 413),
        (b"v=0\r\n" + b"a=candidate:1 \r\n" * (MOST_CANDIDATES + 1), OFFER, 400),
    ],
)
async def test_what_is_no_offer_goes_no_further(content: bytes, kind: str, status: int) -> None:
    http, relay = served()
    reply = await http.post("/whep/cam00000", content=content, headers=BEARER | {"Content-Type": kind})
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"code", "message", "hint"}
    assert relay.local.opened == []


async def test_refusals_say_when_to_come_back() -> None:
    http, relay = served()
    relay.local.answer = ""
    reply = await http.post("/whep/cam00000", content=SDP, headers=BEARER | TYPE)
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["retry-after"]) == (404, "local_off", "2")


async def test_further_candidates() -> None:
    http, relay = served()
    relay.local.answer = "v=0\r\nm=video 9 x 96\r\na=ice-ufrag:raw\r\n"
    tag = (await http.post("/whep/cam00000", content=SDP, headers=BEARER | TYPE)).headers["etag"]
    patch = BEARER | {"Content-Type": FRAGMENT}

    async def patched(**headers: str) -> httpx.Response:
        return await http.patch("/whep/cam00000/viewer-1", content="a=ice-ufrag:x\r\n", headers=patch | headers)

    assert tag == '"raw"'
    assert (await patched(**{"If-Match": tag})).status_code == 204
    assert (await patched()).status_code == 428
    assert (await patched(**{"If-Match": "x" * 300})).status_code == 400
    assert relay.local.matches == ['"raw"']
    assert (await patched(**{"If-Match": tag, "Content-Type": OFFER})).status_code == 415
    relay.local.patched = LocalPatched(request=1, status=412, reason="it names another")
    assert (await patched(**{"If-Match": '"another"'})).status_code == 412
    relay.local.patched = LocalPatched(request=1, status=200, fragment="a=ice-ufrag:y\r\n")
    reply = await patched(**{"If-Match": "*"})
    assert (reply.status_code, reply.text, reply.headers["content-type"]) == (200, "a=ice-ufrag:y\r\n", FRAGMENT)
    assert reply.headers["etag"] == '"y"', "another ICE session"
    relay.local.patched = LocalPatched(request=1, status=422, reason="ICE is not restarted")
    reply = await patched(**{"If-Match": tag})
    assert (reply.status_code, reply.json()["error"]["message"]) == (422, "ICE is not restarted")


async def test_a_page_that_plays_direct_reports_what_it_receives_under_its_session() -> None:
    http, relay = served()
    await http.post("/whep/cam00000", content=SDP, headers=BEARER | TYPE)
    told = {"cameras": [{"camera": "cam00000", "bytes": 90_000, "frames": 0}]}
    relay.local.sent = "full"
    reply = await http.post("/api/view/viewer-1/received", json=told, headers=BEARER)
    faults = [{"camera": "cam00000", "reason": "nothing but green"}]
    assert reply.json() == {"faults": faults, "quality": "full"}
    ((viewer, visitor, received),) = relay.local.reports
    assert (viewer, visitor.operator, received[0].bytes) == ("viewer-1", True, 90_000)
    assert (await http.post("/api/view/viewer-1/received", json=told)).status_code == 401
    assert (await http.post("/api/view/viewer-2/received", json=told, headers=BEARER)).status_code == 410


async def test_other_sites_play_only_where_they_are_allowed_and_never_with_a_cookie() -> None:
    http, relay = served()
    origin = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
    asked = await http.options("/whep/cam00000", headers=origin | {"Access-Control-Request-Method": "POST"})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == SITE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    reply = await http.post("/whep/cam00000", content=SDP, headers=origin | BEARER | TYPE)
    assert reply.status_code == 201
    assert {"Location", "Link", "ETag"} <= set(reply.headers["access-control-expose-headers"].split(", "))
    cookie = {"Cookie": f"{COOKIE}={Gatekeeper(Secret(TOKEN), ManualClock()).new_cookie()}"}
    assert (await http.post("/whep/cam00000", content=SDP, headers=cookie | TYPE)).status_code == 201
    denied = await http.post("/whep/cam00000", content=SDP, headers=origin | cookie | TYPE)
    assert denied.status_code == 401
    assert denied.headers["access-control-allow-origin"] == SITE, "its page may read why"
    opened = len(relay.local.opened)
    foreign = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
    for method in ("OPTIONS", "POST"):
        refused = await http.request(method, "/whep/cam00000", content=SDP, headers=foreign | BEARER | TYPE)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert len(relay.local.opened) == opened
    elsewhere = await http.post("/api/cameras/cam00000/restart", headers=origin | BEARER)
    assert elsewhere.status_code == 403, "nothing but playing"
    assert (await http.get("/api/stats", headers=origin | cookie)).headers.get("access-control-allow-origin") is None


async def test_a_foreign_host_is_refused_here_too() -> None:
    http, relay = served(token="")
    headers = TYPE | {"Host": "rebound.example"}
    assert (await http.post("/whep/cam00000", content=SDP, headers=headers)).status_code == 421
    assert (await http.post("/whep/cam00000", content=SDP, headers=TYPE)).status_code == 201
    assert len(relay.local.opened) == 1
