#!/usr/bin/env bash
# Chromium 156 shows WebRTC pictures that are seconds apart at wrong times for long after two of them were late.
# Seen 2026-11-29, Debian 12's chromium, headless, aiortc 1.16.0 as the sender.
#
# Guess: a picture that refers to no other and has long been due is shown when it has been decoded.
# Seen: keyframes every 2 s, of which the second and third alone come late (by 1.2 s). From the eighth on the receiver hands
# each over as it comes (MediaStreamTrackProcessor gets it within 10 ms). In the video element they follow each other by 1.5
# to 1.9 s, and now and then one stays for 3.4 or 3.8 s: the next is not shown at all, or as late as that. It lasts for at
# least twenty pictures. With small pictures in between that repeat them (an encoder's P pictures of the same, four a
# second), sent exactly as late, each is on the screen 2 s after the one before.
# Nothing has to come late for it: one picture 0.24 s after the first, then one every 2 s, all on time, are shown up to 1.7 s
# after requestVideoFrameCallback's receiveTime. Pictures that are 2 s apart from the first on are shown at once.
# Likely: the element's renderer places pictures by the duration that it averages of those before, and they are few.
#
# It takes python3 of 3.11 or later and Debian's chromium.
set -euo pipefail
command -v chromium >/dev/null || { echo "chromium is missing (apt install chromium)"; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 av==18.1.0 playwright==1.65.2

timeout 240 "$dir/venv/bin/python" - <<'PY'
import asyncio
import itertools
import sys
import time
from fractions import Fraction

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from playwright.async_api import async_playwright

APART, LATE, COUNT, BETWEEN = 2.0, 1.2, 22, 0.25
PAGE = """
async (offer) => {
  const pc = window.pc = new RTCPeerConnection(), video = document.createElement("video");
  video.muted = video.autoplay = true;
  document.body.append(video);
  window.left = [];
  pc.ontrack = async ({track}) => {
    video.srcObject = new MediaStream([track]);
    const reader = new MediaStreamTrackProcessor({track: track.clone(), maxBufferSize: 30}).readable.getReader();
    for (;;) {
      (await reader.read()).value.close();
      window.left.push(performance.now() / 1000);
    }
  };
  await pc.setRemoteDescription({type: "offer", sdp: offer});
  await pc.setLocalDescription(await pc.createAnswer());
  await new Promise((done) => {
    if (pc.iceGatheringState === "complete") done();
    pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done();
  });
  const context = new OffscreenCanvas(8, 8).getContext("2d", {willReadFrequently: true});
  window.seen = [];
  let last = -1000;
  setInterval(() => {
    if (!video.videoWidth) return;
    context.drawImage(video, 0, 0, 8, 8);
    const [shade] = context.getImageData(4, 4, 1, 1).data;
    if (Math.abs(shade - last) < 6) return;
    last = shade;
    window.seen.push(performance.now() / 1000);
  }, 20);
  return pc.localDescription.sdp;
}
"""


def coded(between: bool):
    """(media time, seconds late, access unit): a grey picture of another shade every two seconds."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 180, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 90000), Fraction(4), 1
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1"}
    steps = round(APART / BETWEEN) if between else 1
    for index, step in itertools.product(range(COUNT), range(steps)):
        at = index * APART + step * BETWEEN
        picture = av.VideoFrame(320, 180, "yuv420p")
        for plane, value in zip(picture.planes, (40 + index % 2 * 60 + index % 5 * 20, 128, 128)):
            plane.update(bytes([value]) * (plane.line_size * plane.height))
        picture.pts, picture.time_base = round(at * 90000), Fraction(1, 90000)
        picture.pict_type = av.video.frame.PictureType.NONE if step else av.video.frame.PictureType.I
        (packet,) = encoder.encode(picture)
        yield at, (LATE if index in (1, 2) else 0.0), packet


class Pictures(MediaStreamTrack):
    kind = "video"

    def __init__(self, between: bool) -> None:
        super().__init__()
        self._coded, self._began = coded(between), 0.0

    async def recv(self) -> av.Packet:
        try:
            at, late, packet = next(self._coded)
        except StopIteration:
            await asyncio.sleep(3600)
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0.0, self._began + at + late - time.monotonic()))
        return packet


async def watched(page, between: bool) -> tuple[list[float], list[float]]:
    """Seconds from each picture to the next: as handed over by the receiver, from the eighth on; as seen, from the fifth."""
    sender = RTCPeerConnection()
    sender.addTrack(Pictures(between))
    codecs = RTCRtpSender.getCapabilities("video").codecs
    sender.getTransceivers()[0].setCodecPreferences([one for one in codecs if one.mimeType == "video/H264"][:1])
    await sender.setLocalDescription(await sender.createOffer())
    answer = await page.evaluate(PAGE, sender.localDescription.sdp)
    await sender.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.sleep(COUNT * APART)
    left, seen = await page.evaluate("[window.left, window.seen]")
    await sender.close()
    left = left[:: round(APART / BETWEEN) if between else 1]
    return spans(left, 7), spans(seen, 4)


def spans(times: list[float], first: int) -> list[float]:
    return [round(b - a, 2) for a, b in itertools.pairwise(times)][first:]


async def main() -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        print("Chromium", browser.version)
        found = []
        for between in (False, True):
            page = await browser.new_page()
            left, seen = await watched(page, between)
            await page.close()
            print("with" if between else "without", "pictures in between: handed over", left, "seen", seen)
            found += [max(left), max(seen)]
        await browser.close()
    as_it_was = found[0] < 2.2 and found[1] > 3.0 and found[3] < 2.6
    print("as it was" if as_it_was else "CHANGED", found)
    sys.exit(not as_it_was)


asyncio.run(main())
PY
