#!/usr/bin/env bash
# Chromium 156 holds all pictures back for up to 3 s where the second came later than its timestamp and the third was sent
# again. Seen 2026-11-29, Debian 12's chromium, headless, aiortc 1.16.0 as the sender, with RTX.
#
# Guess: a picture that is complete and has been due is handed over at once, or with the 0.24 s that the second was late; a
# packet that is asked for and comes 2 ms later costs those 2 ms.
# Seen, where the first two pictures arrive 0.24 s apart and ten a second follow, all with the time at which they leave:
# - Timestamps of the first two 0.24 s apart: the third and all others leave the receiver within 0.1 s, whether or not one of
#   its packets is lost and sent again.
# - 1 ms apart (an encoder's second keyframe of the same moment), nothing lost: the third is held for 0.1 to 0.2 s, then none.
# - 1 ms apart, a packet of the third lost and sent again on the first NACK: the next picture leaves 3.0 s after the second,
#   with all that came meanwhile in a heap, most of which is dropped. There is no PLI, and getStats counts no freeze.
#   So it is with 30 or 2 pictures a second (of 2, none is dropped).
# - 33 ms apart (the ordinary second picture of a camera, on a line that stalls): the same, for 2.2 s.
# Likely: the receiver fits a line of timestamps over arrivals to what was not sent again. Two points make the line, and the
# third picture is timed by it without having a say: its time is media time × 0.24 s / 1 ms. The wait that follows is capped
# at 3 s, and is not reckoned anew when later pictures correct the line.
#
# It takes python3 of 3.11 or later and Debian's chromium.
set -euo pipefail
command -v chromium >/dev/null || { echo "chromium is missing (apt install chromium)"; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 aioice==0.13.0 av==18.1.0 playwright==1.65.2

timeout 300 "$dir/venv/bin/python" - <<'PY'
import asyncio
import random
import sys
import time
from fractions import Fraction

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.rtp import RtcpRtpfbPacket
from playwright.async_api import async_playwright

LATE, SECONDS = 0.24, 6
PAGE = """
async (offer) => {
  const pc = window.pc = new RTCPeerConnection();
  window.left = [];
  pc.ontrack = async ({track}) => {
    const reader = new MediaStreamTrackProcessor({track, maxBufferSize: 100}).readable.getReader();
    for (;;) {
      (await reader.read()).value.close();
      left.push(performance.now() / 1000);
    }
  };
  await pc.setRemoteDescription({type: "offer", sdp: offer});
  await pc.setLocalDescription(await pc.createAnswer());
  await new Promise((done) => {
    if (pc.iceGatheringState === "complete") done();
    pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done();
  });
  return pc.localDescription.sdp;
}
"""

DROPPED = "async () => [...(await pc.getStats()).values()].find((one) => one.type === 'inbound-rtp').framesDropped"


def coded(times: list[tuple[float, float]]) -> list[av.Packet]:
    """Noise, so that each picture takes several packets: two keyframes, and pictures that refer to the one before."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 180, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 90000), Fraction(10), 1
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1"}
    packets = []
    for index, (_, media) in enumerate(times):
        picture = av.VideoFrame(320, 180, "yuv420p")
        for number, plane in enumerate(picture.planes):
            size = plane.line_size * plane.height
            plane.update(bytes([128]) * size if number else random.Random(index).randbytes(size))
        picture.pts, picture.time_base = round(media * 90000), Fraction(1, 90000)
        picture.pict_type = av.video.frame.PictureType.NONE if index > 1 else av.video.frame.PictureType.I
        packets += encoder.encode(picture)
    return packets


class Pictures(MediaStreamTrack):
    kind = "video"

    def __init__(self, times: list[tuple[float, float]]) -> None:
        super().__init__()
        self.times, self.packets, self.index, self.began = times, coded(times), 0, 0.0

    async def recv(self) -> av.Packet:
        if self.index == len(self.times):
            await asyncio.sleep(3600)
        self.began = self.began or time.monotonic()
        packet, (leaves, _) = self.packets[self.index], self.times[self.index]
        self.index += 1
        await asyncio.sleep(max(0.0, self.began + leaves - time.monotonic()))
        return packet


class Path:
    """Between aiortc's sender and its transport: loses the third picture's second packet, once."""

    def __init__(self, sender: RTCRtpSender, track: Pictures, lose: bool) -> None:
        self._track, self._wanted, self._seen, self.asked = track, lose, 0, []
        self._deliver, self._handle = sender.transport._send_rtp, sender._handle_rtcp_packet
        sender.transport._send_rtp, sender._handle_rtcp_packet = self.send, self.feedback

    async def send(self, data: bytes) -> None:
        if self._track.index == 3 and (data[1] & 127 < 64 or data[1] & 127 >= 96):  # RTP and not RTCP (RFC 5761)
            self._seen += 1
            if self._wanted and self._seen == 2:
                return
        await self._deliver(data)

    async def feedback(self, packet) -> None:
        if isinstance(packet, RtcpRtpfbPacket):
            self.asked.append(round(time.monotonic() - self._track.began, 2))
        await self._handle(packet)


async def watched(page, apart: float, rate: float, lose: bool) -> tuple[float, int, list[float]]:
    """Seconds from when the second picture left the receiver to when the next did, pictures that it dropped, NACKs."""
    times = [(0.0, 0.0), (LATE, apart)] + [(LATE + n / rate,) * 2 for n in range(1, round(SECONDS * rate))]
    peer = RTCPeerConnection()
    sender = peer.addTrack(track := Pictures(times))
    codecs = {one.mimeType: one for one in RTCRtpSender.getCapabilities("video").codecs}
    peer.getTransceivers()[0].setCodecPreferences([codecs["video/H264"], codecs["video/rtx"]])
    await peer.setLocalDescription(await peer.createOffer())
    answer = await page.evaluate(PAGE, peer.localDescription.sdp)
    path = Path(sender, track, lose)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    while track.index < len(times):
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    left, dropped = await page.evaluate("window.left"), await page.evaluate(DROPPED)
    await peer.close()
    return round(left[2] - left[1], 2), dropped, path.asked


# what it is: seconds between the first two timestamps, pictures a second after them, whether a packet is lost, and the
# least and most seconds from the second picture to the next
CASES = {
    "honest, nothing lost": (LATE, 10, False, 0.0, 0.35),
    "honest, sent again": (LATE, 10, True, 0.0, 0.35),
    "1 ms, nothing lost": (0.001, 10, False, 0.15, 0.6),
    "1 ms, sent again": (0.001, 10, True, 2.7, 3.3),
    "1 ms, sent again, 30 a second": (0.001, 30, True, 2.7, 3.3),
    "1 ms, sent again, 2 a second": (0.001, 2, True, 2.7, 3.3),
    "33 ms, sent again": (0.033, 10, True, 1.7, 2.7),
}


async def main() -> None:
    changed = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        print("Chromium", browser.version)
        for name, (apart, rate, lose, least, most) in CASES.items():
            page = await browser.new_page()
            waited, dropped, asked = await watched(page, apart, rate, lose)
            await page.close()
            print(f"{name}: the third leaves {waited} s after the second, {dropped} are dropped; NACKs at {asked}", flush=True)
            if not least <= waited <= most or bool(asked) != lose:
                changed.append(name)
        await browser.close()
    print(f"CHANGED {changed}" if changed else "as it was")
    sys.exit(bool(changed))


asyncio.run(main())
PY
