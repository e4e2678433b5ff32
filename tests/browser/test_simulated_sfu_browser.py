"""A real Chromium pulls from the simulated SFU through the API, as a viewer of the dashboard would."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from playwright.async_api import Page

from relay_common.simulation.sfu.simulator import SfuSimulator, SfuTimings, SfuVariant
from tests.fixtures.stock_publisher import StockPublisher, encoded_loop

pytestmark = [pytest.mark.browser, pytest.mark.media]

PAGE = """
<body><script>
const pc = new RTCPeerConnection({bundlePolicy: "max-bundle"});
pc.ontrack = (event) => {
  const element = document.createElement(event.track.kind);
  element.autoplay = true;
  element.volume = 0.01;
  element.srcObject = new MediaStream([event.track]);
  document.body.append(element);
};
async function answer(offer) {
  await pc.setRemoteDescription({type: "offer", sdp: offer});
  await pc.setLocalDescription(await pc.createAnswer());
  return pc.localDescription.sdp;
}
async function received() {
  const report = await pc.getStats();
  return [...report.values()].filter((entry) => entry.type === "inbound-rtp");
}
</script></body>
"""


class Viewer:
    """A page and its SFU session; the test acts as the backend between them."""

    def __init__(self, page: Page, api: httpx.AsyncClient, app: str) -> None:
        self.page, self._api, self._app, self.session = page, api, app, ""

    async def open(self) -> None:
        await self.page.set_content(PAGE)
        self.session = (await self._api.post(f"{self._app}/sessions/new")).json()["sessionId"]

    async def call(self, method: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._api.request(method, f"{self._app}/sessions/{self.session}/{operation}", json=body)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        assert not [track for track in result.get("tracks", ()) if "errorCode" in track], result
        return result

    async def pull(self, *publishers: StockPublisher) -> list[str]:
        """Pull both tracks of each publisher; their mids."""
        tracks = [
            {"location": "remote", "sessionId": publisher.session, "trackName": f"{publisher.name}-{kind}"}
            for publisher in publishers
            for kind in ("video", "audio")
        ]
        pulled = await self.call("POST", "tracks/new", {"tracks": tracks})
        assert pulled["requiresImmediateRenegotiation"]
        answer = await self.page.evaluate("answer", pulled["sessionDescription"]["sdp"])
        await self.call("PUT", "renegotiate", {"sessionDescription": {"type": "answer", "sdp": answer}})
        return [track["mid"] for track in pulled["tracks"]]

    async def received(self) -> dict[str, dict[str, Any]]:
        """The page's inbound-rtp statistics by mid."""
        return {entry["mid"]: entry for entry in await self.page.evaluate("received()")}

    async def plays(self, *mids: str, frames: int = 30) -> dict[str, dict[str, Any]]:
        """Wait until each mid decodes `frames` more frames, or hears sound."""
        before = await self.received()
        deadline = time.monotonic() + 30
        while True:
            now = await self.received()
            late = [mid for mid in mids if not _progress(before.get(mid, {}), now.get(mid, {}), frames)]
            if not late:
                return now
            assert time.monotonic() < deadline, f"nothing plays on mids {late}: {now}"
            await asyncio.sleep(0.1)


def _progress(before: dict[str, Any], now: dict[str, Any], frames: int) -> bool:
    if now.get("kind") == "video":
        return bool(now.get("framesDecoded", 0) >= before.get("framesDecoded", 0) + frames)
    return bool(now.get("totalAudioEnergy", 0) > before.get("totalAudioEnergy", 0))


def _retransmitted(sfu: SfuSimulator, viewer: Viewer) -> int:
    """Packets sent to the viewer once more."""
    pulled = next(s for s in sfu.sessions() if s["session"] == viewer.session)["pulled"]
    return sum(track["retransmitted"] for track in pulled)


async def test_two_cameras_in_one_session_play_and_can_be_switched(chromium_page: Page) -> None:
    units = encoded_loop()
    async with (
        SfuSimulator(variant=SfuVariant(padding_probes=True)) as sfu,
        httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as api,
    ):
        app = f"{sfu.base_url}/apps/app"
        porch, yard = (StockPublisher(api, app, name, units) for name in ("porch", "yard"))
        viewer = Viewer(chromium_page, api, app)
        try:
            await asyncio.gather(porch.publish(), yard.publish(), viewer.open())
            mids = await viewer.pull(porch)
            # A second camera is a renegotiation of the same session.
            mids += await viewer.pull(yard)
            assert mids == ["0", "1", "2", "3"]
            await viewer.plays(*mids)
            # Unless what is pulled happens to begin with one.
            plis = sum(sfu.published(f"{name}-video")["plis_forwarded"] for name in ("porch", "yard"))
            assert plis > 0, "Chromium asks for its first key frame"

            # The viewer sees one continuous stream when the source changes; aiortc's loop supplies the keyframe.
            update = [
                {"location": "remote", "mid": mids[index], "sessionId": yard.session, "trackName": f"yard-{kind}"}
                for index, kind in enumerate(("video", "audio"))
            ]
            await viewer.call("PUT", "tracks/update", {"tracks": update})
            assert sfu.published("porch-video")["subscribers"] == 0
            assert sfu.published("yard-video")["subscribers"] == 2
            await porch.close()
            await viewer.plays(*mids)

            # Which packets are lost is chance, and these pictures are a packet each: sixty of them can all arrive.
            sfu.faults.downstream_loss = 0.05
            deadline = time.monotonic() + 30
            while not (asked := (await viewer.received())["0"]["nackCount"]) or not _retransmitted(sfu, viewer):
                assert time.monotonic() < deadline, f"{asked} packets asked for: {sfu.sessions()}"
                await asyncio.sleep(0.1)
            await viewer.plays(*mids, frames=60)
            sfu.faults.downstream_loss = 0

            await viewer.call("PUT", "tracks/close", {"tracks": [{"mid": mid} for mid in mids], "force": True})
            assert sfu.published("yard-video")["subscribers"] == 0
        finally:
            await asyncio.gather(porch.close(), yard.close())


PUBLISHER = """
<body><canvas width="320" height="240"></canvas><script>
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
setInterval(() => {
  for (let index = 0; index < 400; index++) {
    context.fillStyle = `hsl(${Math.random() * 360} 80% 50%)`;
    context.fillRect(Math.random() * 320, Math.random() * 240, 20, 20);
  }
}, 33);
const pc = new RTCPeerConnection();
async function offer(sendEncodings = []) {
  const [track] = canvas.captureStream(30).getVideoTracks();
  pc.addTransceiver(track, {direction: "sendonly", sendEncodings});
  await pc.setLocalDescription(await pc.createOffer());
  return pc.localDescription.sdp;
}
const accept = (sdp) => pc.setRemoteDescription({type: "answer", sdp});
async function sent() {
  const entries = [...(await pc.getStats()).values()];
  const find = (type) => entries.find((entry) => entry.type === type) || {};
  return {
    outbound: find("outbound-rtp"),
    remote: find("remote-inbound-rtp"),
    pair: entries.find((entry) => entry.type === "candidate-pair" && entry.nominated) || {},
  };
}
</script></body>
"""


async def test_a_browser_publishes_and_hears_feedback(chromium_page: Page) -> None:
    """Chromium's bandwidth estimator accepts our transport-cc feedback, and its RTX repairs loss."""
    variant = SfuVariant(transport_cc=True)
    async with (
        SfuSimulator(variant=variant, timings=SfuTimings(nack_give_up=15)) as sfu,
        httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as api,
    ):
        app = f"{sfu.base_url}/apps/app"
        await chromium_page.set_content(PUBLISHER)
        session = (await api.post(f"{app}/sessions/new")).json()["sessionId"]
        body = {
            "sessionDescription": {"type": "offer", "sdp": await chromium_page.evaluate("offer()")},
            "tracks": [{"location": "local", "mid": "0", "trackName": "canvas"}],
        }
        answer = (await api.post(f"{app}/sessions/{session}/tracks/new", json=body)).json()
        await chromium_page.evaluate("accept", answer["sessionDescription"]["sdp"])
        sfu.lose_upstream(session, 0.03)
        deadline = time.monotonic() + 30
        while True:
            sent, track = await chromium_page.evaluate("sent()"), sfu.published("canvas")
            assert track is not None
            estimate = sent["pair"].get("availableOutgoingBitrate", 0)
            if estimate > 500_000 and sent["remote"].get("roundTripTimeMeasurements") and track["retransmissions"]:
                break
            assert time.monotonic() < deadline, f"{sent} {track}"
            await asyncio.sleep(0.1)
        sfu.lose_upstream(session, 0)
        deadline = time.monotonic() + 30
        while sfu.published("canvas")["lost"]:
            assert time.monotonic() < deadline, sfu.published("canvas")
            await asyncio.sleep(0.05)
        assert sfu.published("canvas")["codec"] in ("VP8", "H264")
        assert sfu.published("canvas")["gaps"] == []


async def test_a_viewer_chooses_a_layer_of_a_browsers_simulcast(chromium_page: Page) -> None:
    """Chromium sends its layers only if the answer names their rids; the viewer gets the small one, then the large."""
    assert chromium_page.context.browser is not None
    publishing = await chromium_page.context.browser.new_page()
    async with (
        SfuSimulator() as sfu,
        httpx.AsyncClient(headers={"Authorization": "Bearer secret"}, timeout=30) as api,
    ):
        app = f"{sfu.base_url}/apps/app"
        # Of anything smaller Chromium sends one layer only.
        await publishing.set_content(PUBLISHER.replace('width="320" height="240"', 'width="640" height="360"'))
        session = (await api.post(f"{app}/sessions/new")).json()["sessionId"]
        layers = [{"rid": "h", "scaleResolutionDownBy": 1}, {"rid": "l", "scaleResolutionDownBy": 2}]
        body = {
            "sessionDescription": {"type": "offer", "sdp": await publishing.evaluate("offer", layers)},
            "tracks": [{"location": "local", "mid": "0", "trackName": "canvas"}],
        }
        answer = (await api.post(f"{app}/sessions/{session}/tracks/new", json=body)).json()
        await publishing.evaluate("accept", answer["sessionDescription"]["sdp"])

        deadline = time.monotonic() + 30
        while any(layer["packets"] == 0 for layer in (sfu.published("canvas") or {})["layers"].values()):
            assert time.monotonic() < deadline, sfu.published("canvas")
            await asyncio.sleep(0.1)

        viewer = Viewer(chromium_page, api, app)
        await viewer.open()
        track = {"location": "remote", "sessionId": session, "trackName": "canvas", "simulcast": {"preferredRid": "l"}}
        pulled = await viewer.call("POST", "tracks/new", {"tracks": [track]})
        reply = await chromium_page.evaluate("answer", pulled["sessionDescription"]["sdp"])
        await viewer.call("PUT", "renegotiate", {"sessionDescription": {"type": "answer", "sdp": reply}})
        (mid,) = [track["mid"] for track in pulled["tracks"]]
        assert (await viewer.plays(mid))[mid]["frameWidth"] == 320

        wish = {**track, "mid": mid, "simulcast": {"preferredRid": "h"}}
        await viewer.call("PUT", "tracks/update", {"tracks": [wish]})
        deadline = time.monotonic() + 30
        while (await viewer.received())[mid]["frameWidth"] != 640:
            assert time.monotonic() < deadline, await viewer.received()
            await asyncio.sleep(0.1)
        await viewer.plays(mid)
