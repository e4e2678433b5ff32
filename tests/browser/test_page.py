"""The page as people use it: one relay, browser and page for all tests, each of which leaves them as they were."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings
from relay_supervisor.http.links import ViewerSettings
from tests.fixtures.accessibility import grave_findings
from tests.fixtures.chromium import chromium
from tests.fixtures.dashboard import Dashboard, decoding, picture, served, until
from tests.fixtures.fake_relay import live_camera

pytestmark = [
    pytest.mark.browser,
    pytest.mark.media,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

TOKEN: Final = "a-token-that-is-long-enough"
SETTINGS: Final = HttpSettings(
    token=Secret(TOKEN),
    viewers=ViewerSettings(access="links", link_secret=Secret("a-secret-that-is-long-enough")),
)
DESKTOP: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 390, "height": 844}
PULLED: Final = "[...new Set(window.relay.tracks.map((track) => track.camera))].sort().join()"
SHOWN: Final = "[...document.querySelectorAll('.tile:not([hidden]) h2')].map((name) => name.textContent).join()"
HIDE: Final = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
REFUSAL: Final = {"operation": "sessions/new", "times": -1, "correlation": "view", "status": 500}
SHIFT: Final = """(ms) => {
  const now = performance.now.bind(performance);
  performance.now = () => now() + ms;
}"""


class World(NamedTuple):
    """What the tests share: the first two cameras play, the third has its picture outside the page."""

    browser: Browser
    page: Page
    dashboard: Dashboard

    @property
    def url(self) -> str:
        return self.dashboard.server.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with chromium() as browser, served(3, SETTINGS) as dashboard:
        for number in range(2):
            await dashboard.publish(number)
        page = await browser.new_page(viewport=DESKTOP)
        await page.goto(f"{dashboard.server.url}/?token={TOKEN}")
        yield World(browser, page, dashboard)


@contextlib.asynccontextmanager
async def opened(world: World, viewport: dict[str, int] = DESKTOP, *, playing: bool = True) -> AsyncIterator[Page]:
    """The dashboard with its first two cameras playing, without what an earlier test left in the browser."""
    page, cameras = world.page, world.dashboard.relay.cameras
    errors: list[str] = []
    page.on("pageerror", note := lambda error: errors.append(str(error)))
    await page.set_viewport_size(viewport)  # type: ignore[arg-type]
    await page.goto(world.url)
    if playing:
        await decoding(page, [camera.id for camera in cameras[:2]])
        await until(page, "document.querySelectorAll('.tile[data-playing=\"yes\"]').length === 2", within=30.0)
    else:
        await until(page, "document.getElementById('live').textContent.includes('of')")
    try:
        yield page
    finally:
        page.remove_listener("pageerror", note)
        await page.evaluate("localStorage.clear()")
        await page.goto("about:blank")
    assert errors == []


async def enlarged(page: Page, name: str = "Front door, live") -> None:
    await page.get_by_role("button", name=name).click()
    await page.wait_for_selector("#large[open]")
    await until(page, "document.getElementById('large-video').videoWidth > 0", within=30.0)


async def says(page: Page, selector: str, words: str, within: float = 30.0) -> None:
    """Wait until the element's text holds `words`."""
    await until(page, f"document.querySelector({selector!r})?.innerText.includes({words!r})", within=within)


# --- the large view -----------------------------------------------------------------------------------------------


async def test_closing_the_large_view_shows_the_wall_at_once(world: World) -> None:
    async with opened(world) as page:
        both = await page.evaluate(PULLED)
        assert both.count(",") == 1
        await enlarged(page)
        # Longer than a tile out of sight is pulled.
        await page.evaluate(SHIFT, 60_000)
        frames = "window.relay.stats().then((all) => Object.values(all).map((one) => one.framesDecoded))"
        before = await page.evaluate(frames)
        await until(page, f"{frames}.then((now) => now.every((n, i) => n > {before}[i] + 20))", within=30.0)
        assert await page.evaluate(PULLED) == both
        # Only now: a picture that stood still when the clock was put forward is taken for frozen, and pulled again.
        asked = dict(world.dashboard.relay.viewers.outcomes)
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#large", state="hidden")
        # At once, as nothing had to be asked for; a busy machine may starve one for a moment.
        await until(page, "document.querySelectorAll('.tile[data-playing=\"yes\"]').length === 2")
        assert dict(world.dashboard.relay.viewers.outcomes) == asked
        # Also after minutes; where the picture fills the screen, only what is seen is paid for then.
        await enlarged(page, "Driveway, live")
        await page.evaluate(SHIFT, 301_000)
        await page.wait_for_timeout(2500)
        assert await page.evaluate(PULLED) == both
        await page.get_by_role("button", name="Full screen").click()
        await until(page, "document.fullscreenElement?.id === 'large-stage'")
        await page.wait_for_timeout(1500)
        await page.evaluate(SHIFT, 301_000)
        await until(page, f"{PULLED} === 'cam00001'", within=30.0)
        await page.evaluate("document.exitFullscreen()")
        await until(page, f"{PULLED} === {both!r}", within=30.0)


async def test_full_screen_picture_in_picture_and_volume(world: World) -> None:
    async with opened(world) as page:
        await enlarged(page)
        await page.get_by_role("button", name="Full screen").click()
        await until(page, "document.fullscreenElement?.id === 'large-stage'")
        await page.get_by_role("button", name="Leave full screen").evaluate("(button) => button.click()")
        await until(page, "!document.fullscreenElement && document.getElementById('large').open")
        await page.get_by_label("Volume").fill("0.3")
        assert await page.evaluate("document.getElementById('large-video').volume") == 0.3
        await page.get_by_label("Volume").fill("0")
        await page.get_by_role("button", name="Sound off").click()
        volume = "[document.getElementById('large-video').volume, document.getElementById('large-video').muted]"
        assert await page.evaluate(volume) == [0.3, False]
        assert await page.get_by_label("Volume").input_value() == "0.3"
        # An arrow key on the slider changes the volume, not the camera.
        await page.get_by_label("Volume").press("ArrowRight")
        assert await page.inner_text("#large-name") == "Front door"
        # It is kept, and holds for tiles.
        await page.reload()
        await page.wait_for_selector(".tile video", state="attached")
        assert await page.evaluate("document.querySelector('.tile video').volume") == 0.35


NO_FULL_SCREEN: Final = """() => {
  delete Element.prototype.requestFullscreen;
  for (const name of ["fullscreenElement", "fullscreenEnabled", "exitFullscreen"]) delete Document.prototype[name];
  HTMLVideoElement.prototype.webkitEnterFullscreen = function enter() {
    window.filled = this.id;
    this.dispatchEvent(new Event("webkitbeginfullscreen"));
  };
}"""
"""As on an iPhone: there only a video fills the screen."""


async def test_where_only_a_video_can_fill_the_screen_it_does_and_plays_on_afterwards(world: World) -> None:
    async with opened(world, PHONE) as page:
        await page.evaluate(NO_FULL_SCREEN)
        await enlarged(page)
        await page.get_by_role("button", name="Full screen").click()
        assert await page.evaluate("window.filled") == "large-video"
        # Its own controls switch the sound, and it is paused when that ends.
        await page.evaluate("document.getElementById('large-video').muted = true")
        await page.get_by_role("button", name="Sound off").wait_for()
        await page.evaluate("""() => {
          const video = document.getElementById("large-video");
          video.pause();
          video.dispatchEvent(new Event("webkitendfullscreen"));
        }""")
        assert not await page.evaluate("document.getElementById('large-video').paused")


NO_H264: Final = """() => {
  const all = RTCRtpReceiver.getCapabilities.bind(RTCRtpReceiver);
  const without = (kind) => ({ codecs: all(kind).codecs.filter(({ mimeType }) => mimeType !== "video/H264") });
  RTCRtpReceiver.getCapabilities = without;
  window.h264 = () => { RTCRtpReceiver.getCapabilities = all; };
  const answer = RTCPeerConnection.prototype.createAnswer;
  RTCPeerConnection.prototype.createAnswer = function createAnswer() {
    for (const one of this.getTransceivers()) {
      if (one.receiver.track.kind === "video") one.setCodecPreferences(RTCRtpReceiver.getCapabilities("video").codecs);
    }
    return answer.call(this);
  };
}"""
"""As a Firefox that has not downloaded its plugin yet: neither listed nor answered."""


async def test_a_browser_without_h264_is_told_and_plays_when_it_has_it(world: World) -> None:
    context = await world.browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    try:
        page = await context.new_page()
        await page.add_init_script(f"({NO_H264})()")
        await page.goto(f"{world.url}/?token={TOKEN}")
        for part in ("#banner", '[data-camera="cam00000"] .why'):
            await says(page, part, "This browser has no H.264")
            await says(page, part, "Use another browser")
        sound = "window.relay.stats().then((all) => all.cam00000?.audioPacketsReceived > 0)"
        await until(page, sound, within=30.0)
        await picture(page, "no-h264")
        await page.goto(f"{world.url}/watch/cam00000")
        await says(page, "#why", "This browser has no H.264")
        # The plugin has arrived.
        await page.evaluate("window.h264()")
        await decoding(page, ["cam00000"])
        await page.wait_for_selector("#why", state="hidden")
    finally:
        await context.close()


ARRIVES: Final = """() => {
  const apply = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = async function setRemoteDescription(description) {
    window.h264();
    // For long enough that the page sees it meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    return apply.call(this, description);
  };
}"""


async def test_a_codec_that_arrives_while_a_connection_is_being_made_is_not_missed(world: World) -> None:
    """It was made for the sound alone and would never show a picture."""
    context = await world.browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    try:
        page = await context.new_page()
        await page.add_init_script(f"({NO_H264})(); ({ARRIVES})()")
        await page.goto(f"{world.url}/?token={TOKEN}")
        await decoding(page, ["cam00000", "cam00001"])
        await until(page, "window.relay.pcs.length === 1")
    finally:
        await context.close()


async def test_a_picture_that_floats_is_pulled_while_the_page_is_hidden(world: World) -> None:
    async with opened(world) as page:
        await enlarged(page)
        await page.get_by_role("button", name="Picture in picture").click()
        await until(page, "document.pictureInPictureElement?.id === 'large-video'")
        await page.get_by_role("button", name="Sound on").click()
        await page.evaluate(HIDE, True)
        await page.evaluate(SHIFT, 6_000)
        await until(page, f"{PULLED} === 'cam00000'", within=30.0)
        await page.evaluate(HIDE, False)
        await page.get_by_role("button", name="Back into the page").click()
        await until(page, "!document.pictureInPictureElement")
        await page.evaluate(HIDE, True)
        await page.evaluate(SHIFT, 6_000)
        await until(page, "window.relay.pcs.length === 0", within=30.0)
        await page.evaluate(HIDE, False)


async def test_on_a_phone_share_and_actions_come_before_the_plots(world: World) -> None:
    async with opened(world, viewport=PHONE) as page:
        await enlarged(page)
        tops = [(await page.locator(f"#large-{name}").bounding_box() or {"y": 0.0})["y"]
                for name in ("stage", "share", "restart", "plots")]  # fmt: skip
        assert tops == sorted(tops)
        share = await page.locator("#large-share").bounding_box()
        assert share is not None
        assert share["y"] + share["height"] < PHONE["height"], "without scrolling"
        assert await page.evaluate("document.getElementById('large').scrollWidth <= window.innerWidth")


async def test_one_freeze_is_one(world: World) -> None:
    async with opened(world) as page:
        counted = "import('./static/format.js').then((format) => [0, 1, 2].map((n) => format.counted(n, 'freeze')))"
        assert await page.evaluate(counted) == ["0 freezes", "1 freeze", "2 freezes"]
        await enlarged(page)
        # So it is said how many there are, of which a busy machine has some.
        said = "/ fps, (1 freeze|(?!1 )\\d+ freezes)$/.test(one.textContent)"
        await until(page, f"[...document.querySelectorAll('#large-facts dd')].some((one) => {said})", within=30.0)


# --- the wall -----------------------------------------------------------------------------------------------------


async def test_tiles_are_put_in_order_hidden_and_searched_and_that_is_kept(world: World) -> None:
    relay = world.dashboard.relay
    three = list(relay.cameras)
    async with opened(world) as page:
        try:
            relay.cameras = [*three, *(live_camera(number, relay.clock) for number in range(3, 30))]
            await until(page, "document.querySelectorAll('.tile').length === 30")
            assert (await page.evaluate(SHOWN)).startswith("Front door,Driveway,Garden,Garage")
            await page.get_by_role("button", name="Arrange").click()
            await page.get_by_role("button", name="Move to the front: Garden").click()
            await page.get_by_role("button", name="Move back: Front door").click()
            await page.get_by_role("button", name="Hide or show Garage").click()
            assert (await page.evaluate(SHOWN)).startswith("Garden,Driveway,Front door,Garage"), "seen while arranging"
            await picture(page, "arranging")
            await page.get_by_role("button", name="Done").click()
            order = "Garden,Driveway,Front door,Living room,Nursery,Camera 7"
            assert (await page.evaluate(SHOWN)).startswith(order)
            assert await page.inner_text("#tools-said") == "1 hidden"
            # What plays goes on while it is moved, and what is hidden is not pulled.
            assert not await page.evaluate("document.querySelector('[data-camera=\"cam00000\"] video').paused")
            await page.reload()
            await until(page, f"{SHOWN}.startsWith('{order}')")
            # The large view steps through what is shown, in its order.
            await enlarged(page, "Driveway, live")
            await page.get_by_role("button", name="Next camera").click()
            await says(page, "#large-name", "Front door")
            await page.keyboard.press("Escape")
            await page.get_by_label("Search cameras").fill(" camera 2")
            assert await page.evaluate(SHOWN) == ",".join(f"Camera {number}" for number in range(20, 30))
            assert await page.inner_text("#tools-said") == "10 of 30"
            await page.get_by_label("Search cameras").fill("attic")
            assert await page.inner_text("#tools-said") == "No camera is called that"
            await page.get_by_label("Search cameras").fill("")
            await page.get_by_role("button", name="Arrange").click()
            await page.get_by_role("button", name="Show all, as listed").click()
            await page.get_by_role("button", name="Done").click()
            assert (await page.evaluate(SHOWN)).startswith("Front door,Driveway,Garden,Garage,Living room")
        finally:
            relay.cameras = three


async def test_a_tile_is_dragged_to_another_place(world: World) -> None:
    async with opened(world) as page:
        await page.get_by_role("button", name="Arrange").click()
        await page.locator('[data-camera="cam00000"] h2').drag_to(page.locator('[data-camera="cam00002"] h2'))
        assert await page.evaluate(SHOWN) == "Driveway,Garden,Front door"
        await page.reload()
        await until(page, f"{SHOWN} === 'Driveway,Garden,Front door'")


TERMS: Final = {
    "Queue": "wait for their turn at Google",
    "This page": "1,000 GB a month are free",
    "Lease": "extends it in time",
}


async def test_terms_are_explained_on_hover_focus_and_tap(world: World) -> None:
    async with opened(world, playing=False) as page:
        bubble = page.get_by_role("tooltip")
        for term, words in TERMS.items():
            button = page.get_by_role("button", name=term, exact=True).first
            await button.hover()
            assert words in await bubble.inner_text()
            await page.mouse.move(600, 790)
            await bubble.wait_for(state="hidden")
            await button.focus()
            await page.keyboard.press("Enter")
            assert words in await bubble.inner_text()
            await page.keyboard.press("Escape")
            await bubble.wait_for(state="hidden")
            # A finger does not hover.
            await button.dispatch_event("click")
            await bubble.wait_for(state="visible")
            await page.mouse.click(600, 790)
            await bubble.wait_for(state="hidden")
        # In a dialog, too, outside of which everything is inert.
        await page.get_by_role("button", name="Front door, live").click()
        await page.locator("#large-facts .term").click()
        await page.locator("#large").get_by_role("tooltip").wait_for(state="visible")
        await page.keyboard.press("Escape")
        await bubble.wait_for(state="hidden")
        assert await page.evaluate("document.getElementById('large').open")


# --- what is wrong ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def changed(*objects: msgspec.Struct) -> Iterator[None]:
    """Objects of the status that a test changes: afterwards they are as they were."""
    before = [msgspec.structs.asdict(one) for one in objects]
    try:
        yield
    finally:
        for one, fields in zip(objects, before, strict=True):
            for name, value in fields.items():
                setattr(one, name, value)


async def test_why_and_what_next_cover_the_slate_on_tile_and_large_view(world: World) -> None:
    camera = world.dashboard.relay.cameras[0]
    tile = f'[data-camera="{camera.id}"]'
    async with opened(world) as page:
        await enlarged(page)
        with changed(camera, camera.lease):
            # Its publication goes on: a slate is sent.
            camera.state, camera.reason = "reconnecting", "the camera sends no video"
            camera.lease.next_action, camera.lease.next_at = "generate again in about 10 min", time.time() + 600
            for part in ("#large-why", f"{tile} .why"):
                await says(page, part, "Reconnecting")
                await says(page, part, "The camera sends no video")
                assert re.search(r"Generate again in\s(10:00|9:\d\d)\s*$", await page.inner_text(part)), "the time once"
                # And it is counted down here, whatever the last status said.
                await says(page, part, "in\u00a09:")
                assert await page.locator(part).is_visible()
            await until(page, "window.relay.stats().then((all) => all.cam00000.fps > 0)")
            await picture(page, "large-stalled")
            await page.keyboard.press("Escape")
            await picture(page, "stalled")
        await page.wait_for_selector(f'{tile}[data-playing="yes"]')


async def test_a_refusal_of_viewers_is_told_on_tiles_and_in_a_banner(world: World) -> None:
    async with opened(world, playing=False) as page:
        try:
            world.dashboard.sfu.faults.change({"api": [REFUSAL]})
            await page.reload()
            for part in ('[data-camera="cam00000"] .why', "#banner"):
                await says(page, part, "Cloudflare refuses viewers: 500")
                await says(page, part, "This page tries again by itself")
            assert "on its way" not in await page.inner_text('[data-camera="cam00000"]')
            assert await page.inner_text('[data-camera="cam00000"] .pill') == "Live, not shown"
            await picture(page, "refused")
        finally:
            world.dashboard.sfu.faults.change({"clear": True})
        await decoding(page, ["cam00000"])
        await page.wait_for_selector("#banner", state="hidden")


async def test_a_revoked_grant_is_a_banner_whose_link_can_be_clicked(world: World) -> None:
    budget = world.dashboard.relay.budget
    async with opened(world, PHONE, playing=False) as page:
        with changed(budget):
            budget.auth_error = (
                f"Google has revoked the grant ({'x' * 120}). Run `relay auth` or see https://example.com/auth?a=b."
            )
            await says(page, "#banner", "revoked the grant")
            assert await page.get_attribute("#banner a", "href") == "https://example.com/auth?a=b"
            assert await page.get_attribute("#banner a", "rel") == "noopener noreferrer"
            assert await page.inner_text("#banner code") == "relay auth"
            assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            await picture(page, "revoked-phone")
        await page.wait_for_selector("#banner", state="hidden")


async def test_of_a_relay_that_is_gone_the_page_says_for_how_long(world: World) -> None:
    async with opened(world, playing=False) as page:
        await page.route("**/api/events*", lambda route: route.abort())
        await page.reload()
        silent = "(document.getElementById('banner').innerText.match(/has not answered for 0:(\\d\\d)/) ?? [])[1]"
        await until(page, f"window.silent = {silent}")
        await until(page, f"{silent} > window.silent")
        # What is read out does not change every second.
        read_out = (
            "The relay has not answered: its figures are old. Pictures continue as long as the cameras' workers run"
        )
        assert await page.text_content("#banner-said") == read_out
        assert await page.get_attribute("#cameras", "data-old") == "yes"
        await page.unroute("**/api/events*")
        await page.wait_for_selector("#banner", state="hidden")
        assert await page.get_attribute("#cameras", "data-old") == "no"


async def test_for_how_long_it_is_gone_counts_from_its_last_status(world: World) -> None:
    """Of one that stands still that is noticed after 15 s: it "had not answered for 0:00" then."""
    async with opened(world, playing=False) as page:
        said = await page.evaluate("""() => {
          const now = performance.now.bind(performance);
          performance.now = () => now() + 20000;
          document.dispatchEvent(new Event("visibilitychange"));
          return document.getElementById("banner").innerText;
        }""")
        found = re.search(r"has not answered for 0:(\d\d)", said)
        assert found is not None, said
        assert int(found[1]) >= 20


# --- accessibility ------------------------------------------------------------------------------------------------


LOOKS: Final = (("desktop", "light"), ("phone", "dark"), ("desktop", "dark"), ("phone", "light"))


async def judged(page: Page, what: str, looks: Sequence[tuple[str, str]] = LOOKS) -> list[str]:
    """Grave findings of axe-core on what the page shows, at both widths and in both colour schemes."""
    found = []
    for width, scheme in looks:
        await page.set_viewport_size(DESKTOP if width == "desktop" else PHONE)  # type: ignore[arg-type]
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        found += [f"{what}, {width}, {scheme}: {finding}" for finding in await grave_findings(page)]
    return found


async def test_axe_finds_nothing_serious(world: World) -> None:
    relay = world.dashboard.relay
    garden = relay.cameras[2]
    with changed(garden, relay.budget):
        garden.state, garden.reason = "offline", "Google says that the camera is offline"
        relay.budget.auth_error = "Google has revoked the access. Renew it at https://example.com/auth"
        relay.events.publish("camera", "is offline", garden.id)
        async with opened(world) as page:
            await says(page, "#banner", "revoked")
            await page.click(".events summary")
            found = await judged(page, "dashboard")
            await page.get_by_role("button", name="Arrange").click()
            found += await judged(page, "arranging", LOOKS[:2])
            await page.get_by_role("button", name="Done").click()
            await enlarged(page)
            found += await judged(page, "large view")
            await page.get_by_role("button", name="Share a link").click()
            await page.wait_for_selector("#share[open]")
            await page.get_by_role("button", name="Make a link").click()
            await until(page, "document.getElementById('share-link').value !== ''")
            await page.click(".given summary")
            found += await judged(page, "share dialog")
            link = await page.input_value("#share-link")
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Next camera").click()
            await page.get_by_role("button", name="Next camera").click()
            await says(page, "#large-why", "is offline")
            found += await judged(page, "large view of a camera that is offline", LOOKS[:2])
        guest = await (await world.browser.new_context()).new_page()
        await guest.goto(world.url)
        found += await judged(guest, "login")
        await guest.goto(link)
        await decoding(guest, ["cam00000"])
        found += await judged(guest, "watch page")
        await guest.goto(link.replace("signature=", "signature=0"))
        await says(guest, "#why", "This link is not valid")
        found += await judged(guest, "watch page with a link that is not valid", LOOKS[:2])
        # Were there something, it would be found.
        await guest.evaluate("document.body.append(new Image())")
        assert ["image-alt" in finding for finding in await grave_findings(guest)] == [True]
        await guest.context.close()
    assert not found, "\n".join(found)


async def test_a_tampered_link_shows_no_controls(world: World) -> None:
    guest = await (await world.browser.new_context()).new_page()
    try:
        link = f"{world.url}/watch/cam00000?expires=4102444800&signature={'0' * 64}"
        await guest.goto(link)
        await says(guest, "#why", "This link is not valid")
        assert await guest.evaluate(
            "[...document.querySelectorAll('button, input')].every((e) => !e.checkVisibility())"
        )
        assert not await guest.get_by_role("button").count()
    finally:
        await guest.context.close()
