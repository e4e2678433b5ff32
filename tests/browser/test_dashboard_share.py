"""A link to one camera: shared on the dashboard, framed by another site, and expired."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from playwright.async_api import Frame, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from relay_common.secrets import Secret
from relay_supervisor.http.app import HttpSettings
from relay_supervisor.http.links import ViewerSettings
from relay_supervisor.http.server import HttpServer
from tests.fixtures.dashboard import decoding, first_that, picture, served, until

pytestmark = [pytest.mark.browser, pytest.mark.media]

TOKEN = "a-token-that-is-long-enough"


def settings(*frame_ancestors: str) -> HttpSettings:
    secret = Secret("a-secret-that-is-long-enough")
    viewers = ViewerSettings(access="links", link_secret=secret, frame_ancestors=frame_ancestors)
    return HttpSettings(token=Secret(TOKEN), viewers=viewers)


ASK = """async ([path, body]) => {
  const link = [location.pathname.split("/").at(-1), ...new URLSearchParams(location.search).values()].join(".");
  const headers = { Authorization: `Link ${link}`, "Content-Type": "application/json" };
  const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  return [reply.status, (await reply.json()).error?.code];
}"""


async def made(page: Page, before: str = "") -> str:
    """Make another link than the one `before`."""
    await page.get_by_role("button", name="Make a link").click()
    await until(page, f"![{before!r}, ''].includes(document.getElementById('share-link').value)")
    return await page.input_value("#share-link")


async def frames_decoded(frame: Frame | Page, camera: str) -> int:
    stats: dict[str, dict[str, Any]] = await frame.evaluate("window.relay ? window.relay.stats() : {}")
    return int(stats.get(camera, {}).get("framesDecoded", 0))


async def test_a_shared_link_shows_its_camera_only_and_ends(chromium_page: Page) -> None:
    page = chromium_page
    assert page.context.browser is not None
    async with served(2, settings()) as dashboard:
        for number in range(2):
            await dashboard.publish(number)
        door, drive = (camera.id for camera in dashboard.relay.cameras)
        await page.goto(f"{dashboard.server.url}/?token={TOKEN}")
        await page.get_by_role("button", name="Front door, live").click()
        await page.get_by_role("button", name="Share a link").click()
        await page.wait_for_selector("#share[open]")
        link = await made(page)
        assert "until" in await page.inner_text("#share-made")
        frame = await page.input_value("#share-frame")
        assert frame.startswith(f'<iframe src="{link.replace("&", "&amp;")}" title="Front door"')
        assert "No site may show it in a frame yet" in await page.inner_text("#share-framing")
        assert not await page.is_visible("#share-whep"), "it cannot be watched without Cloudflare here"
        dashboard.relay.cameras[0].local.on = True
        await page.select_option("#share-seconds", "3600")
        link = await made(page, link)
        assert await page.input_value("#share-whep") == link.replace("/watch/", "/whep/")
        dashboard.relay.cameras[0].local.on = False
        await page.click(".given summary")
        await page.get_by_role("button", name="Revoke the link to Front door").first.wait_for()
        await picture(page, "share")

        # Another person, who has only the link.
        stranger = await (await page.context.browser.new_context()).new_page()
        errors: list[str] = []
        stranger.on("pageerror", lambda error: errors.append(str(error)))
        await stranger.goto(link)
        await decoding(stranger, [door])
        await until(stranger, "document.getElementById('name').textContent === 'Front door'")
        await picture(stranger, "watch")
        assert await stranger.evaluate(f"window.relay.tracks.every((track) => track.camera === '{door}')")
        for path, body in (
            (f"/api/watch/{drive}", None),
            ("/api/view", {"cameras": [drive]}),
            ("/api/cameras", None),
            (f"/api/cameras/{door}/restart", {}),
        ):
            assert await stranger.evaluate(ASK, [path, body]) == [403, "not_allowed"], path
        await stranger.goto(link.replace(door, drive))
        await until(stranger, "document.getElementById('why').textContent.startsWith('This link is not valid')")
        # Without the link nothing is shown, and the page says so without repeated requests.
        await stranger.goto(f"{dashboard.server.url}/watch/{door}")
        await until(stranger, "document.getElementById('why').textContent.startsWith('A token is needed')")
        await stranger.goto(link)
        await decoding(stranger, [door])
        await until(page, "document.getElementById('share-given').innerText.includes('1 watching')")
        await page.get_by_role("button", name="Revoke the link to").first.click()
        assert "Whoever watches with it is cut off" in await page.inner_text("#confirm[open]")
        await page.locator("#confirm-yes").click()
        await first_that(lambda: dashboard.relay.viewers.outcomes["revoked"] == 1)
        await until(
            stranger, "document.getElementById('why').textContent === 'This link has been revoked. Ask for another'"
        )
        await until(page, "document.getElementById('share-given').innerText.includes('revoked')")
        assert await page.is_hidden("#share-made")
        await stranger.context.close()
        assert errors == []


async def test_a_frame_in_another_site_plays_until_the_link_ends(chromium_page: Page) -> None:
    page = chromium_page
    html = ""

    async def home(request: Request) -> Response:
        return HTMLResponse(html)

    outside = HttpServer(Starlette(routes=[Route("/", home)]), "127.0.0.1", 0)
    await outside.start()
    async with contextlib.AsyncExitStack() as cleanup, served(1, settings(outside.url)) as dashboard:
        cleanup.push_async_callback(outside.stop)
        await dashboard.publish(0)
        door = dashboard.relay.cameras[0].id
        reply = await page.request.post(
            f"{dashboard.server.url}/api/cameras/{door}/link",
            data={"seconds": 3600},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        link = dashboard.server.url + (await reply.json())["path"]

        html = f'<iframe src="{link}"></iframe><iframe src="{dashboard.server.url}/livez"></iframe>'
        await page.goto(outside.url)
        _, camera, other = page.frames
        async with asyncio.timeout(30):
            while await frames_decoded(camera, door) < 10:
                await asyncio.sleep(0.2)
        assert other.url == "chrome-error://chromewebdata/", "only a camera's page may be framed"
        dashboard.clock.shift = 3600
        # A page that does not stop by itself, as this one has not yet, is cut off.
        dashboard.relay.viewers.sweep(dashboard.relay.clock.now())
        assert (len(dashboard.relay.viewers), dashboard.relay.viewers.outcomes["expired"]) == (0, 1)
        async with asyncio.timeout(30):
            while await camera.inner_text("#why") != "This link has expired. Ask for another":
                await asyncio.sleep(0.2)
