"""Who may watch: signed links, what their holders reach, and what `[viewers]` allows."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from relay_common.clock import ManualClock
from relay_common.config import CloudflareConfig, Config, HttpConfig, NestConfig, ViewersConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret, redact
from relay_supervisor.http.admission import MOST_OF_AN_ADDRESS
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.link_book import MOST_LINKS, LinkBook
from relay_supervisor.http.links import LinkError, Links, ViewerSettings, viewer_settings
from relay_supervisor.state.links import LinkRows
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import LocalStatus
from tests.fixtures.fake_relay import FakeRelay

TOKEN = "a-token-that-is-long-enough"
SECRET = Secret("a-secret-that-is-long-enough")
LINKS = ViewerSettings(access="links", link_secret=SECRET)


def served(viewers: ViewerSettings = LINKS, token: str = TOKEN) -> tuple[httpx.AsyncClient, FakeRelay, ManualClock]:
    clock = ManualClock()
    relay = FakeRelay(clock, cameras=2)
    app = create_app(relay, HttpSettings(token=Secret(token) if token else None, viewers=viewers), clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080"), relay, clock


async def shared(http: httpx.AsyncClient, seconds: int = 60) -> tuple[str, dict[str, str]]:
    """The path of a link to the first camera, and the header that its page sends."""
    reply = await http.post(
        "/api/cameras/cam00000/link", json={"seconds": seconds}, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert reply.status_code == 200, reply.text
    path: str = reply.json()["path"]
    query = parse_qs(urlsplit(path).query)
    return path, {"Authorization": f"Link cam00000.{query['expires'][0]}.{query['signature'][0]}"}


async def test_a_link_opens_its_camera_until_it_expires() -> None:
    http, relay, clock = served()
    path, link = await shared(http, 60)
    assert (await http.get(path)).status_code == 200
    status = (await http.get("/api/watch/cam00000", headers=link)).json()
    assert (status["name"], status["viewable"]) == ("Front door", True)
    assert not status.keys() & {"lease", "worker", "device"}
    view = await http.post("/api/view", json={"cameras": ["cam00000"]}, headers=link)
    assert view.json()["unavailable"] == [{"camera": "cam00000", "reason": "The camera is not live"}]
    clock.step_wall(60)
    assert (await http.get(path)).status_code == 403
    for reply in (
        await http.get("/api/watch/cam00000", headers=link),
        await http.post("/api/view", json={"cameras": ["cam00000"]}, headers=link),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "link_expired")
    assert len(relay.viewers) == 0


async def test_a_guest_whose_camera_is_gone_learns_nothing_of_the_others() -> None:
    http, relay, _ = served()
    _, link = await shared(http, 600)
    relay.cameras = relay.cameras[1:]
    reply = await http.get("/api/watch/cam00000", headers=link)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_camera")
    assert "cam00001" not in reply.text


async def test_one_address_has_64_requests_under_way_and_the_operator_any_number() -> None:
    http, relay, _ = served()
    _, link = await shared(http, 600)
    answered, go_on = [0], asyncio.Event()

    async def slow(*args: object, **more: object) -> None:
        answered[0] += 1
        await go_on.wait()

    relay.viewers.close = slow  # type: ignore[method-assign]
    asked = [asyncio.create_task(http.delete("/api/view/v", headers=link)) for _ in range(MOST_OF_AN_ADDRESS)]
    async with asyncio.timeout(30.0):
        while answered[0] < MOST_OF_AN_ADDRESS:
            await asyncio.sleep(0.01)
        refused = await http.delete("/api/view/v", headers=link)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert (await http.get("/api/stats", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200
    go_on.set()
    assert {reply.status_code for reply in await asyncio.gather(*asked)} <= {200, 204}
    assert (await http.delete("/api/view/v", headers=link)).status_code in (200, 204)


@pytest.mark.parametrize(
    ("state", "lease", "words", "when"),
    [
        ("live", "held", ("", ""), 0.0),
        ("connecting", "wanted", ("", "the relay waits until it may ask for its picture"), 0.0),
        ("reconnecting", "extending", ("", "it is being reconnected"), 0.0),
        ("degraded", "held_off", ("it keeps failing", "the relay tries again"), 60.0),
        ("offline", "parked", ("it cannot be reached", "the relay tries again when the camera is back"), 0.0),
        ("disabled", "released", ("it is switched off at the relay", ""), 0.0),
    ],
)
async def test_a_guest_is_told_nothing_of_the_account_or_of_other_cameras(
    state: str, lease: str, words: tuple[str, str], when: float
) -> None:
    http, relay, _ = served()
    _, link = await shared(http)
    camera = relay.cameras[0]
    camera.state, camera.lease.state, camera.lease.next_at = state, lease, 60.0
    camera.reason = camera.lease.last_error = "Google refused the refresh token of project my-project"
    camera.lease.next_action = (
        "waiting for the account: open https://nestservices.google.com/partnerconnections/my-project/auth?"
        "client_id=my-client; 10 commands a minute hold 45 cameras, and 44 are being served"
    )
    reply = await http.get("/api/watch/cam00000", headers=link)
    status = reply.json()
    assert ((status["reason"], status["next_action"]), status["next_at"]) == (words, when)
    for secret in ("my-project", "my-client", "account", "cameras", "44"):
        assert secret not in reply.text


async def test_a_link_opens_nothing_else() -> None:
    http, _, _ = served()
    _, link = await shared(http)
    for camera in ("cam00001", "none"):
        for reply in (
            await http.get(f"/api/watch/{camera}", headers=link),
            await http.post("/api/view", json={"cameras": ["cam00000", camera]}, headers=link),
        ):
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "not_allowed"), camera
    for path in ("/", "/api/cameras", "/api/stats", "/api/events", "/metrics", "/api/viewers", "/static/app.js"):
        assert (await http.get(path, headers=link)).status_code == 403, path
    for verb in ("restart", "disable", "link"):
        assert (await http.post(f"/api/cameras/cam00000/{verb}", json={}, headers=link)).status_code == 403, verb


async def test_a_link_counts_for_less_than_what_else_the_client_has() -> None:
    """Also where everybody may do everything, its page gets one camera only."""
    http, _, _ = served(token="")
    _, link = await shared(http)
    assert (await http.get("/api/stats")).status_code == 200
    assert (await http.get("/api/stats", headers=link)).status_code == 403


@pytest.mark.parametrize(
    "forged",
    [
        "cam00001.{expires}.{signature}",
        "cam00000.9{expires}.{signature}",
        "cam00000.{expires}.{signature}0",
        "cam00000.{expires}.",
        "cam00000.{expires}.é",
        "cam00000..",
        "..",
        "",
    ],
)
async def test_a_forged_link_opens_nothing(forged: str) -> None:
    http, _, _ = served()
    _, link = await shared(http)
    _, expires, signature = link["Authorization"].removeprefix("Link ").split(".")
    value = f"Link {forged.format(expires=expires, signature=signature)}".encode()
    reply = await http.get("/api/watch/cam00000", headers=[(b"Authorization", value)])
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "link_invalid")


async def test_another_secret_ends_all_links_and_the_same_keeps_them() -> None:
    clock = ManualClock()
    link = Links(LINKS, clock, LinkBook(clock)).make("cam00000", 60)
    query = {key: values[0] for key, values in parse_qs(urlsplit(link.path).query).items()}
    kept = Links(LINKS, clock, LinkBook(clock)).check("cam00000", query["expires"], query["signature"])
    assert (kept.cameras, kept.until) == (frozenset({"cam00000"}), float(link.expires_at))
    other = ViewerSettings(access="links", link_secret=Secret("another-secret-of-some-length"))
    with pytest.raises(LinkError):
        Links(other, clock, LinkBook(clock)).check("cam00000", query["expires"], query["signature"])


async def test_without_links_none_are_made_and_none_taken() -> None:
    http, _, clock = served(ViewerSettings(access="token", link_secret=SECRET))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    reply = await http.post("/api/cameras/cam00000/link", json={}, headers=bearer)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "links_off")
    path = Links(LINKS, clock, LinkBook(clock)).make("cam00000", 60).path
    assert (await http.get(path)).status_code == 403
    assert (await http.get("/watch/cam00000")).status_code == 401
    assert (await http.get("/watch/cam00000", headers=bearer)).status_code == 200


async def test_open_lets_everybody_watch_and_nothing_else() -> None:
    http, _, _ = served(ViewerSettings(access="open", link_secret=SECRET))
    assert (await http.get("/watch/cam00001")).status_code == 200
    assert (await http.get("/api/watch/cam00001")).status_code == 200
    assert (await http.post("/api/view", json={"cameras": ["cam00001"]})).status_code == 200
    assert (await http.get("/api/stats")).status_code == 401
    assert (await http.post("/api/cameras/cam00001/restart")).status_code == 401


# --- links that were given out, and revoked -----------------------------------------------------------------------


BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def listed(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The links that were given out, as the operator sees them."""
    links: list[dict[str, Any]] = (await http.get("/api/links", headers=BEARER)).json()["links"]
    return links


async def test_a_link_is_listed_until_it_ends_with_its_use() -> None:
    http, relay, clock = served()
    relay.cameras[0].local = LocalStatus(on=True)
    reply = await http.post("/api/cameras/cam00000/link", json={"seconds": 3600}, headers=BEARER)
    made = reply.json()
    assert made["path"].removeprefix("/watch") == made["whep_path"].removeprefix("/whep")
    (link,) = await listed(http)
    assert link == {
        "id": made["id"],
        "camera": "cam00000",
        "name": "Front door",
        "made_at": clock.wall(),
        "expires_at": made["expires_at"],
        "seen_at": 0.0,
        "revoked_at": 0.0,
        "views": 0,
    }
    assert made["path"].rpartition("-")[2] not in (await http.get("/api/links", headers=BEARER)).text
    clock.step_wall(60)
    assert (await http.get(made["path"])).status_code == 200
    assert (await listed(http))[0]["seen_at"] == clock.wall()
    clock.step_wall(3540)
    assert await listed(http) == []


async def test_a_revoked_link_opens_nothing_and_the_others_stay() -> None:
    http, _, _ = served()
    _, link = await shared(http)
    _, other = await shared(http)
    name = link["Authorization"].rpartition(".")[2].partition("-")[0]
    reply = await http.delete(f"/api/links/{name}", headers=BEARER)
    assert (reply.status_code, reply.json()) == (200, {"id": name, "camera": "cam00000", "views": 0, "saved": False})
    refused = await http.get("/api/watch/cam00000", headers=link)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "link_revoked")
    assert (await http.get("/api/watch/cam00000", headers=other)).status_code == 200
    assert {one["id"] for one in await listed(http) if one["revoked_at"]} == {name}
    # The signature holds for one id: another's does not help.
    forged = link["Authorization"].replace(name, other["Authorization"].rpartition(".")[2].partition("-")[0])
    reply = await http.get("/api/watch/cam00000", headers={"Authorization": forged})
    assert reply.json()["error"]["code"] == "link_invalid"
    assert (await http.delete("/api/links/none", headers=BEARER)).status_code == 404
    for method, path in (("GET", "/api/links"), ("DELETE", f"/api/links/{name}")):
        assert (await http.request(method, path, headers=other)).status_code == 403
        assert (await http.request(method, path)).status_code == 401


async def test_a_link_of_an_earlier_release_is_valid_listed_once_used_and_can_be_revoked() -> None:
    http, _, clock = served()
    end = int(clock.wall()) + 60
    code = hmac.new(SECRET.reveal().encode(), f"relay-link:cam00000:{end}".encode(), hashlib.sha256).hexdigest()
    link = {"Authorization": f"Link cam00000.{end}.{code}"}
    assert await listed(http) == []
    assert (await http.get("/api/watch/cam00000", headers=link)).status_code == 200
    (found,) = await listed(http)
    assert (found["id"], found["made_at"], found["seen_at"]) == (f"cam00000.{end}", 0.0, clock.wall())
    await http.delete(f"/api/links/{found['id']}", headers=BEARER)
    assert (await http.get("/api/watch/cam00000", headers=link)).json()["error"]["code"] == "link_revoked"


async def test_the_list_outlives_the_supervisor_and_ends_with_its_secret(tmp_path: Path) -> None:
    clock = ManualClock()
    for key, found in (("one", 0), ("one", 2), ("other", 0), ("one", 0)):
        store = Store(tmp_path / "state.sqlite3", clock).open()
        book = LinkBook(clock, LinkRows(store))
        book.load(key)
        assert len(book.given()) == found
        assert sum(link.revoked_at > 0 for link in book.given()) == found // 2
        if not found and key == "one":
            revoked = book.give("cam00000", int(clock.wall()) + 60)
            book.give("cam00001", int(clock.wall()) + 60)
            assert book.revoke(revoked) is not None
            assert book.saved
        await store.database.flush(10.0)
        store.close()


def test_the_list_is_bounded_and_what_finds_no_room_counted() -> None:
    clock = ManualClock()
    book = LinkBook(clock)
    end = int(clock.wall()) + 60
    for number in range(MOST_LINKS):
        assert book.give("cam00000", end + number)
    assert book.give("cam00000", end) == ""
    book.used("an older one", "cam00000", end)
    assert (book.counters(), len(book.given())) == ({"unlisted": 1}, MOST_LINKS)
    with pytest.raises(LinkError, match="1000 links"):
        Links(LINKS, clock, book).make("cam00000", 60)
    clock.step_wall(61)
    assert Links(LINKS, clock, book).make("cam00000", 60).id


@pytest.mark.parametrize("body", [{"seconds": 0}, {"seconds": 91 * 86400}, {"seconds": "day"}, {"minutes": 1}])
async def test_a_link_has_an_end(body: dict[str, Any]) -> None:
    http, _, _ = served(token="")
    assert (await http.post("/api/cameras/cam00000/link", json=body)).status_code == 400
    assert (await http.post("/api/cameras/none/link", json={})).status_code == 404


async def test_only_a_camera_s_own_page_can_be_framed_and_only_where_it_is_said() -> None:
    http, _, _ = served(token="")
    headers = (await http.get("/watch/cam00000")).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    sites = ("https://home.example", "http://127.0.0.1:*")
    http, _, _ = served(ViewerSettings(access="links", link_secret=SECRET, frame_ancestors=sites), token="")
    headers = (await http.get("/watch/cam00000")).headers
    assert headers["content-security-policy"].endswith("frame-ancestors https://home.example http://127.0.0.1:*")
    assert "x-frame-options" not in headers
    assert "script-src 'self'" in headers["content-security-policy"]
    for path in ("/", "/api/watch/cam00000", "/login"):
        assert "frame-ancestors 'none'" in (await http.get(path)).headers["content-security-policy"]


def configured(listen: str, token: str, **viewers: Any) -> Config:
    nest = NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))
    return Config(
        nest=[nest],
        cloudflare=CloudflareConfig(app_id="a", app_secret=Secret("s")),
        http=HttpConfig(listen=listen, token=Secret(token)),
        viewers=ViewersConfig(**viewers),
    )


def test_who_may_watch_follows_from_who_may_do_everything() -> None:
    assert viewer_settings(configured("127.0.0.1:1", ""), "127.0.0.1").access == "open"
    # A token on loopback means that a proxy leads there: `open` would be open to the world.
    assert viewer_settings(configured("127.0.0.1:1", TOKEN), "127.0.0.1").access == "token"
    settings = viewer_settings(configured("0.0.0.0:1", TOKEN, access="links"), "0.0.0.0")
    assert settings.access == "links"
    assert len(settings.link_secret.reveal()) == 64, "one of its own"


@pytest.mark.parametrize(
    ("host", "token", "viewers", "key"),
    [
        ("0.0.0.0", TOKEN, {"access": "open"}, "access"),
        ("127.0.0.1", "", {"access": "token"}, "access"),
        ("127.0.0.1", "", {"link_secret": Secret("hunter2")}, "link_secret"),
        ("127.0.0.1", "", {"frame_ancestors": ["home.example"]}, "frame_ancestors"),
        ("127.0.0.1", "", {"frame_ancestors": ["https://a.example; script-src *"]}, "frame_ancestors"),
        ("127.0.0.1", "", {"frame_ancestors": ["*"]}, "frame_ancestors"),
    ],
)
def test_what_would_open_too_much_is_refused_at_the_start(
    host: str, token: str, viewers: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\[viewers\] {key}") as caught:
        viewer_settings(configured(f"{host}:8080", token, **viewers), host)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_links_do_not_reach_a_log() -> None:
    path = Links(LINKS, ManualClock(), LinkBook(ManualClock())).make("cam00000", 60).path
    signature = path.rpartition("=")[2]
    assert signature not in redact(f"GET http://relay.example{path} failed")
    assert signature not in redact(f"Authorization: Link cam00000.1700000060.{signature}")


def test_to_ask_whether_a_link_still_stands_is_no_use_of_it() -> None:
    """A session that it made is looked after every second."""
    clock = ManualClock()
    book = LinkBook(clock)
    links = Links(ViewerSettings(access="links", link_secret=Secret("a-secret-that-is-long-enough")), clock, book)
    made = links.make("cam00000", 600)
    (expires, signature) = (part.partition("=")[2] for part in made.path.partition("?")[2].split("&"))
    links.judge("cam00000", expires, signature)
    assert [link.seen_at for link in book.given()] == [0.0]
    links.check("cam00000", expires, signature)
    assert [link.seen_at for link in book.given()] == [clock.wall()]
    book.revoke(made.id)
    with pytest.raises(LinkError, match="revoked"):
        links.judge("cam00000", expires, signature)
