"""A page whose own calls fail, or come while others are under way: it is put right by itself, and without haste."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.async_api import Page, Route

from relay_common.worker_stats import SinkStats
from relay_supervisor.status.model import LocalStatus
from tests.browser.test_dashboard import WATCH_EXCHANGE
from tests.fixtures.dashboard import Dashboard, decoding, first_that, follows, served, until
from tests.fixtures.local_responder import StockLocal

pytestmark = [pytest.mark.browser, pytest.mark.media, pytest.mark.timeout(300)]

GIVEN_UP: Final = "JSON.parse(sessionStorage.getItem('relay.local.unreachable') ?? '[]')"
REFUSAL: Final = {"operation": "sessions/new", "times": -1, "correlation": "view", "status": 500}


def tile_says(words: str) -> str:
    return f"document.querySelector('.tile').innerText.includes({words!r})"


# --- a view that the page and the relay see differently -----------------------------------------------------------


async def replaced_while_it_plays(page: Page, dashboard: Dashboard, cameras: list[str]) -> None:
    """The relay has not had to end the first view, which would have stopped all of its pictures."""
    await decoding(page, cameras, within=150.0)
    outcomes = dashboard.relay.viewers.outcomes
    await first_that(lambda: outcomes["closed"] == 1)
    assert (outcomes["opened"], outcomes["unanswered"], len(dashboard.relay.viewers)) == (2, 0, 1)
    assert await page.evaluate("window.playedOn"), "the old one is closed when the new one is connected"


@pytest.mark.parametrize("lost", ["answer", "offer"])
async def test_an_exchange_that_is_cut_off_costs_no_picture(chromium_page: Page, lost: str) -> None:
    """The page's answer to an offer, or the relay's reply with it: the SFU waits for an answer that never comes."""
    page = chromium_page
    async with served(2) as dashboard:
        await dashboard.publish(0)
        ids = [camera.id for camera in dashboard.relay.cameras]
        await page.goto(dashboard.server.url)
        await decoding(page, ids[:1])
        await page.evaluate(WATCH_EXCHANGE)
        cut: list[str] = []

        async def cut_off(route: Route) -> None:
            reply = await route.fetch() if lost == "offer" else None
            if cut or (reply is not None and not (await reply.json())["offer"]):
                await route.continue_()
                return
            cut.append(route.request.url)
            await route.abort()

        await page.route(f"**/api/view/*/{'answer' if lost == 'answer' else 'update'}", cut_off)
        await dashboard.publish(1)
        await replaced_while_it_plays(page, dashboard, ids)
        assert len(cut) == 1


REFUSES_ONE: Final = """() => {
  const apply = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = function setRemoteDescription(description) {
    if (!this.remoteDescription || window.refused) return apply.call(this, description);
    window.refused = true;
    return Promise.reject(new DOMException("not this one", "InvalidAccessError"));
  };
}"""
"""The first offer that changes a connection is not taken."""


async def test_a_connection_that_cannot_be_changed_is_replaced(chromium_page: Page) -> None:
    page = chromium_page
    async with served(2) as dashboard:
        await dashboard.publish(0)
        ids = [camera.id for camera in dashboard.relay.cameras]
        await page.add_init_script(f"({REFUSES_ONE})()")
        await page.goto(dashboard.server.url)
        await decoding(page, ids[:1])
        await page.evaluate(WATCH_EXCHANGE)
        await dashboard.publish(1)
        await replaced_while_it_plays(page, dashboard, ids)
        assert await page.evaluate("window.refused")


UNHEARD: Final = """async () => {
  const { Connection } = await import("./static/connection.js");
  const { Group } = await import("./static/group.js");
  const asked = [];
  const fetched = window.fetch;
  window.fetch = async (url, options) => {
    if (!url.endsWith("/view/v/update")) return fetched(url, options); // the page's own
    asked.push(JSON.parse(options.body).qualities.a);
    if (asked.length < 3) throw new TypeError("Failed to fetch");
    return Response.json({ action: "none", unavailable: [], tracks: [{ mid: "0", camera: "a", publication: "p" }] });
  };
  const connection = Object.assign(new Connection(), { view: "v", pc: { getTransceivers: () => [{ mid: "0" }] } });
  connection.tracks.set("0", { mid: "0", camera: "a", publication: "p" });
  const group = new Group(() => {});
  group.connection = connection;
  group.want(["a"], { a: "small" });
  const statuses = new Map([["a", { viewable: true, publication: "p" }]]);
  const heard = [];
  for (let second = 1; second <= 20; second += 1) {
    await new Promise((resolve) => setTimeout(resolve));
    group.follow(statuses, performance.now() + 1000 * second);
    heard.push(asked.length);
  }
  return [asked, heard];
}"""


async def test_what_the_relay_did_not_hear_is_asked_for_again(chromium_page: Page) -> None:
    """Which picture is wanted was told once: of a reply that was lost the relay knew nothing for half a minute."""
    page = chromium_page
    async with served(1) as dashboard:
        await page.goto(dashboard.server.url)
        asked, heard = await page.evaluate(UNHEARD)
        assert asked == ["small"] * 3
        assert heard[0] == 1, "not at once"


FROZEN: Final = """async () => {
  const { Connection } = await import("./static/connection.js");
  const asked = [];
  let reply;
  const fetched = window.fetch;
  window.fetch = (url, options) => {
    if (!url.endsWith("/view/v/update")) return fetched(url, options); // the page's own
    asked.push(JSON.parse(options.body).stale);
    const nothing = { action: "none", unavailable: [], tracks: [] };
    return new Promise((resolve) => { reply = () => resolve(Response.json(nothing)); });
  };
  const connection = Object.assign(new Connection(), { view: "v", pc: { getTransceivers: () => [] } });
  connection.update(["a", "b"]);
  connection.update(["a", "b"], ["a"]);
  connection.update(["a"]);
  for (let turn = 0; turn < 3; turn += 1) {
    reply();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return asked;
}"""


async def test_a_frozen_picture_is_not_forgotten_while_the_relay_is_slow(chromium_page: Page) -> None:
    page = chromium_page
    async with served(1) as dashboard:
        await page.goto(dashboard.server.url)
        assert await page.evaluate(FROZEN) == [[], ["a"]]


async def test_while_a_broken_connection_cannot_be_replaced_the_page_says_why(chromium_page: Page) -> None:
    page = chromium_page
    async with served(1) as dashboard:
        await dashboard.publish(0)
        await page.goto(dashboard.server.url)
        await decoding(page, ["cam00000"])
        dashboard.sfu.faults.change({"api": [REFUSAL]})
        viewers = dashboard.relay.viewers
        for view in list(viewers._views.values()):
            viewers._end(view, "lost")
        await until(page, tile_says("Cloudflare refuses viewers: 500"))
        dashboard.sfu.faults.change({"clear": True})
        await decoding(page, ["cam00000"])
        await until(page, f"!{tile_says('Cloudflare refuses viewers')}")


# --- how often a page tries ---------------------------------------------------------------------------------------


async def count_requests(page: Page, path: str, seconds: float) -> int:
    """How many requests to `path`, all of which fail, a page makes that has just been opened."""
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await route.abort()

    await page.route(path, refuse)
    await page.reload()
    await first_that(lambda: bool(asked))
    await page.wait_for_timeout(1000 * seconds)
    return len(asked)


async def test_a_relay_that_does_not_answer_is_not_asked_without_a_pause(chromium_page: Page) -> None:
    """Where it is the only way: one that was being started got hundreds of offers a second from every page."""
    page = chromium_page
    async with served(1) as dashboard:
        (camera,) = dashboard.relay.cameras
        camera.local, camera.sfu, camera.viewable = LocalStatus(on=True, publication="worker-1"), False, False
        camera.sinks = [SinkStats(name="studio", live=True)]
        await page.goto(dashboard.server.url)
        assert await count_requests(page, "**/whep/**", 5.0) <= 8


FAKES: Final = """
  const { Group } = await import("./static/group.js");
  const made = [];
  let refuse = true;
  class Fake extends EventTarget {
    pc = { connectionState: "new" };
    dead = false;
    async open(cameras) { this.cameras = cameras; if (refuse) throw new Error("refused"); }
    stream() { return null; }
    update() {}
    close() { this.dead = true; }
    become(state) {
      this.pc.connectionState = state;
      this.dispatchEvent(new Event(state === "connected" ? "ready" : "dead"));
    }
  }
  const group = new Group(() => {}, () => { const one = new Fake(); made.push(one); return one; });
  const seconds = (count) => new Promise((resolve) => setTimeout(resolve, 1000 * count));
  const follow = (publication) => group.follow(new Map([["a", { viewable: Boolean(publication), publication }]]), 0);
"""
PATIENT: Final = f"""async () => {{{FAKES}
  const often = async (publication, turns) => {{
    const before = made.length;
    for (let turn = 0; turn < turns; turn += 1) {{
      await seconds(0.1);
      group.want(["a"]);
      follow(publication);
    }}
    return made.length - before;
  }};
  return [await often("p", 60), await often("q", 1), await often("", 1), await often("q", 1)];
}}"""
SUPERSEDED: Final = f"""async () => {{{FAKES}
  refuse = false;
  group.want(["a"]);
  made[0].become("connected");
  group.renew();
  made[0].become("failed");
  await seconds(0.2);
  made[1].become("connected");
  await seconds(1);
  return made.length;
}}"""


async def test_a_refused_page_waits_longer_each_time_unless_something_has_changed(chromium_page: Page) -> None:
    """Each status, and each look at the statistics, had it try again."""
    page = chromium_page
    async with served(1) as dashboard:
        await page.goto(dashboard.server.url)
        patient, republished, _, back = await page.evaluate(PATIENT)
        # At once, when it learns of the publication, and after at least 0.25, 0.5, 1 and 2 s.
        assert patient <= 6
        assert republished >= 1, "another publication is tried at once"
        assert back >= 1, "and so is one that comes back"


async def test_a_connection_is_not_replaced_once_more_for_the_one_before_it(chromium_page: Page) -> None:
    """One that fails while the next is being made had a third one made."""
    page = chromium_page
    async with served(1) as dashboard:
        await page.goto(dashboard.server.url)
        assert await page.evaluate(SUPERSEDED) == 2


async def test_a_relay_that_was_away_for_a_moment_is_no_reason_to_give_the_direct_way_up(chromium_page: Page) -> None:
    page, local = chromium_page, StockLocal()
    async with served(1, local=local) as dashboard:
        (camera,) = dashboard.relay.cameras
        camera.local = LocalStatus(on=True, publication="worker-1")
        await page.goto("about:blank")
        await page.route("**/whep/**", lambda route: route.abort())
        async with page.expect_request("**/api/view", timeout=60_000):
            await page.goto(dashboard.server.url)
        assert await page.evaluate(GIVEN_UP) == []
        # What is not reached is given up for as long as there is this tab: on the next page it is tried again.
        await page.unroute("**/whep/**")
        try:
            await page.reload()
            await first_that(lambda: local.asked == [camera.id])
        finally:
            await page.goto("about:blank")
            await local.aclose()


# --- the page of one camera ---------------------------------------------------------------------------------------

HIDE: Final = """() => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_a_camera_that_is_heard_is_followed_while_its_page_is_hidden(chromium_page: Page) -> None:
    """Its view was ended after three minutes in which the page asked for nothing, and with it the sound."""
    page = chromium_page
    async with served(1) as dashboard:
        await dashboard.publish(0)
        await page.goto(f"{dashboard.server.url}/watch/cam00000")
        await decoding(page, ["cam00000"])
        await page.get_by_role("button", name="Sound off").click()
        await until(page, "!document.getElementById('video').muted")
        await page.evaluate(HIDE)
        await follows(page, await dashboard.publish(0))


async def test_a_camera_that_is_not_found_for_a_moment_comes_back(chromium_page: Page) -> None:
    """A proxy answers 404 while it finds no relay, and a relay while it knows no cameras."""
    page = chromium_page
    why = "document.getElementById('why').textContent"
    async with served(1) as dashboard:
        cameras = dashboard.relay.cameras
        await page.goto(f"{dashboard.server.url}/watch/cam00000")
        await until(page, "document.getElementById('name').textContent === 'Front door'")
        asked: list[Any] = []

        async def nobody(route: Route) -> None:
            asked.append(route)
            await route.fulfill(status=404, body="404 page not found")

        await page.route("**/api/watch/*", nobody)
        await first_that(lambda: len(asked) >= 2)
        await page.unroute("**/api/watch/*")
        assert "404" not in await page.evaluate(why)
        dashboard.relay.cameras = []
        await until(page, f"{why}.includes('cam00000')")
        dashboard.relay.cameras = cameras
        await until(page, f"!{why}.includes('cam00000')")
