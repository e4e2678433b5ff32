"""Real Chromium publishes simulcast at the simulated SFU and plays it back: switched between layers, nothing breaks.

Chromium encodes, packs and decodes, and is written by others than the SFU and the relay.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import Any, Literal

import httpx
import pytest
from playwright.async_api import Page

from relay_common.simulation.sfu.simulator import SfuSimulator, SfuVariant
from tests.browser.test_simulated_sfu_browser import Viewer

pytestmark = [pytest.mark.browser, pytest.mark.media]

PUBLISHER = """
<body><canvas width="640" height="360"></canvas><script>
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
const HUES = [0, 120, 240, 60];
let turn = 0;
setInterval(() => {
  turn += 1;
  for (let part = 0; part < 4; part++) {
    const [left, top] = [part % 2 * 320, (part >> 1) * 180];
    // Never still, so that every picture says something about every block; and of one colour as far as it matters.
    for (let index = 0; index < 60; index++) {
      const light = 50 + 8 * Math.sin(turn / 5 + part) + 6 * Math.random();
      context.fillStyle = `hsl(${HUES[part]} 100% ${light}%)`;
      context.fillRect(left + index % 10 * 32, top + Math.floor(index / 10) * 30, 32, 30);
    }
  }
}, 33);
const pc = new RTCPeerConnection();
async function offer(sendEncodings) {
  const [track] = canvas.captureStream(30).getVideoTracks();
  const transceiver = pc.addTransceiver(track, {direction: "sendonly", sendEncodings});
  const known = RTCRtpSender.getCapabilities("video").codecs;
  const wanted = known.filter((codec) => codec.mimeType === "video/H264" || codec.mimeType === "video/rtx");
  transceiver.setCodecPreferences(wanted);
  await pc.setLocalDescription(await pc.createOffer());
  return pc.localDescription.sdp;
}
const accept = (sdp) => pc.setRemoteDescription({type: "answer", sdp});
</script></body>
"""

LOOK = """
() => {
  const video = document.querySelector("video"), canvas = new OffscreenCanvas(32, 18);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  window.sizes = [];
  const strongest = (x, y) => {
    const sums = [0, 0, 0], {data} = context.getImageData(x - 4, y - 2, 8, 4);
    for (let at = 0; at < data.length; at++) if (at % 4 < 3) sums[at % 4] += data[at] / 32;
    return sums.map((sum) => (sum > 128 ? 1 : 0)).join("");
  };
  const look = () => {
    context.drawImage(video, 0, 0, 32, 18);
    const colours = [strongest(8, 4), strongest(24, 4), strongest(8, 13), strongest(24, 13)].join(" ");
    if (sizes.at(-1)?.width !== video.videoWidth) sizes.push({width: video.videoWidth, pictures: ""});
    sizes.at(-1).pictures += colours === "100 010 001 110" ? "." : "x";
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}
"""
"""Looks at every picture that is shown: its four quarters are red, green, blue and yellow, whatever the layer."""


class Publishing:
    """A page that publishes the layers `a` (640 wide) and `b` (320) as the track `canvas`."""

    def __init__(self, page: Page, api: httpx.AsyncClient, app: str) -> None:
        self.page, self._api, self._app, self.session = page, api, app, ""

    async def publish(self, sfu: SfuSimulator) -> None:
        await self.page.set_content(PUBLISHER)
        self.session = (await self._api.post(f"{self._app}/sessions/new")).json()["sessionId"]
        layers = [
            {"rid": "a", "scaleResolutionDownBy": 1, "maxBitrate": 1_500_000},
            {"rid": "b", "scaleResolutionDownBy": 2, "maxBitrate": 150_000},
        ]
        body = {
            "sessionDescription": {"type": "offer", "sdp": await self.page.evaluate("offer", layers)},
            "tracks": [{"location": "local", "mid": "0", "trackName": "canvas"}],
        }
        answer = (await self._api.post(f"{self._app}/sessions/{self.session}/tracks/new", json=body)).json()
        await self.page.evaluate("accept", answer["sessionDescription"]["sdp"])

        def both() -> bool:
            layers = (sfu.published("canvas") or {}).get("layers", {})
            return len(layers) == 2 and all(layer["packets"] for layer in layers.values())

        await until(both, lambda: str(sfu.published("canvas")))

    def track(self, rid: str, **policies: str) -> dict[str, Any]:
        wish = {"preferredRid": rid, **policies}
        return {"location": "remote", "sessionId": self.session, "trackName": "canvas", "simulcast": wish}


async def until(met: Any, state: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, state()
        await asyncio.sleep(0.1)


async def watch(viewer: Viewer, track: dict[str, Any]) -> str:
    """Pull a layer and play it; its mid."""
    await viewer.open()
    pulled = await viewer.call("POST", "tracks/new", {"tracks": [track]})
    reply = await viewer.page.evaluate("answer", pulled["sessionDescription"]["sdp"])
    await viewer.call("PUT", "renegotiate", {"sessionDescription": {"type": "answer", "sdp": reply}})
    (mid,) = [track["mid"] for track in pulled["tracks"]]
    await viewer.plays(mid)
    return str(mid)


async def shown(page: Page, width: int, pictures: int = 5) -> None:
    """Wait until the page has shown so many pictures of this width."""
    deadline = time.monotonic() + 30
    while True:
        sizes = await page.evaluate("sizes")
        if sizes and sizes[-1]["width"] == width and len(sizes[-1]["pictures"]) >= pictures:
            return
        assert time.monotonic() < deadline, sizes
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("at_keyframes", "pictures"),
    [
        (True, 5),
        (False, 5),
        # Sooner than Chromium heeds the next keyframe request (300 ms).
        (False, 1),
    ],
    ids=["keyframes", "at once", "at once and soon"],
)
async def test_no_picture_breaks_when_a_viewer_is_switched(
    chromium_page: Page, at_keyframes: bool, pictures: int
) -> None:
    assert chromium_page.context.browser is not None
    publishing = await chromium_page.context.browser.new_page()
    async with (
        SfuSimulator(variant=SfuVariant(switch_at_keyframes=at_keyframes)) as sfu,
        httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as api,
    ):
        app = f"{sfu.base_url}/apps/app"
        publisher = Publishing(publishing, api, app)
        await publisher.publish(sfu)
        assert sfu.published("canvas")["codec"] == "H264"
        viewer = Viewer(chromium_page, api, app)
        mid = await watch(viewer, publisher.track("b"))
        await chromium_page.evaluate(LOOK)
        await shown(chromium_page, 320)
        steps = [("a", 640), ("b", 320)] * 2
        for rid, width in steps:
            await viewer.call("PUT", "tracks/update", {"tracks": [{**publisher.track(rid), "mid": mid}]})
            await shown(chromium_page, width, pictures)
        sizes = await chromium_page.evaluate("sizes")
        assert [size["width"] for size in sizes] == [320, *(width for _, width in steps)]
        # Without waiting for a keyframe, one layer is decoded on top of the other, until the size changes.
        allowed = r"\.+" if at_keyframes else rf"\.{{{pictures}}}[.x]*"
        assert all(re.fullmatch(allowed, size["pictures"]) for size in sizes), sizes
        assert sfu.sessions()[-1]["pulled"][0]["switches"] == len(steps)
    await publishing.close()


@pytest.mark.parametrize("feedback", ["transport-cc", "remb"])
async def test_a_narrow_line_gets_the_small_layer_and_a_wide_one_the_large_again(
    chromium_page: Page, feedback: Literal["transport-cc", "remb"]
) -> None:
    """By Chromium's own feedback, and without a request: `priorityOrdering` allows it."""
    assert chromium_page.context.browser is not None
    publishing = await chromium_page.context.browser.new_page()
    async with (
        SfuSimulator(variant=SfuVariant(transport_cc=True, viewer_estimate=feedback)) as sfu,
        httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as api,
    ):
        app = f"{sfu.base_url}/apps/app"
        publisher = Publishing(publishing, api, app)
        await publisher.publish(sfu)
        viewer = Viewer(chromium_page, api, app)
        policies = {"priorityOrdering": "asciibetical", "ridNotAvailable": "asciibetical"}
        await watch(viewer, publisher.track("a", **policies))
        await chromium_page.evaluate(LOOK)
        await shown(chromium_page, 640)

        def large() -> float:
            published = sfu.service.sessions[publisher.session].published("canvas")
            return 0.0 if published is None else published.layers["a"].upstream.rate

        await until(lambda: large() > 600_000, lambda: str(sfu.published("canvas")))
        lines: list[tuple[float, float]] = []

        async def narrow() -> None:
            """The line is too narrow for the large layer, also where a busy machine makes fewer pictures of it."""
            while True:
                sfu.narrow(viewer.session, min(350_000.0, max(100_000.0, 0.6 * large())))
                lines.append((sfu.sessions()[-1]["line"]["available"] or math.inf, large()))
                await asyncio.sleep(0.05)

        narrowing = asyncio.create_task(narrow())
        await shown(chromium_page, 320)
        narrowing.cancel()
        if feedback == "transport-cc":
            # REMB grows by 8 % a second: too slow for a test.
            sfu.narrow(viewer.session, None)
            await shown(chromium_page, 640)
            line = sfu.sessions()[-1]["line"]
            assert line["probes"] >= 1
            assert line["congestions"] >= 1
        else:
            assert min(line for line, _ in lines) < max(rate for _, rate in lines), "the large one did not fit"
    await publishing.close()
