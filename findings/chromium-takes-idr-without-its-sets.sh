#!/usr/bin/env bash
# Chromium 156 takes an H.264 keyframe whose SPS and PPS were lost for complete, and decodes it by earlier ones.
# Seen 2026-11-29, Debian 12's chromium, headless, aiortc 1.16.0 as the sender, no RTX.
#
# Guess: a keyframe from which a packet is missing waits for it, as any other does, or Chromium asks for another keyframe.
# Seen, where a stream changes its picture size and the STAP-A before the new IDR slice (FU-A, packetization mode 1) is lost:
# - The new sets have the numbers of the old: the STAP-A is asked for in a NACK at once, and then no more, though it has not
#   come. All pictures count as decoded, the keyframe too; frameWidth stays the old one, on the screen is a mix of the old
#   picture and garbage, and no PLI is sent for at least 3.9 s. An answer to the NACK after 100 ms changes nothing.
# - The new sets have a number not seen before: a PLI at once, then a NACK every 0.1 s until one is answered. The answer does
#   not save the keyframe: nothing is decoded any more, and the next PLI is 2.9 s later.
# - A fragment of the slice is lost instead, and comes after 100 ms: all is well.
# Likely: an IDR slice whose sets' numbers are known is a whole keyframe, whatever is missing before it, and what is missing
# before a decoded picture is struck off the list of packets to ask for. Where they are not known, the slice's first fragment
# is thrown away, and as it did arrive, nobody asks for it.
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
from aiortc.rtp import RtcpPsfbPacket, RtcpRtpfbPacket
from playwright.async_api import async_playwright

RATE, BEFORE, AFTER = 10, 15, 30
PAGE = """
async (offer) => {
  const pc = window.pc = new RTCPeerConnection(), video = window.video = document.createElement("video");
  video.muted = video.autoplay = true;
  document.body.append(video);
  pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  await pc.setRemoteDescription({type: "offer", sdp: offer});
  await pc.setLocalDescription(await pc.createAnswer());
  await new Promise((done) => {
    if (pc.iceGatheringState === "complete") done();
    pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done();
  });
  return pc.localDescription.sdp;
}
"""
STATS = """
async () => {
  const all = [...(await pc.getStats()).values()].find((entry) => entry.type === "inbound-rtp") ?? {};
  const keys = ["frameWidth", "framesDecoded", "keyFramesDecoded", "nackCount", "pliCount"];
  const context = new OffscreenCanvas(8, 8).getContext("2d");
  context.drawImage(video, 0, 0, 8, 8);
  const shades = Array.from(context.getImageData(0, 0, 8, 8).data).filter((_, index) => index % 4 === 0);
  return {...Object.fromEntries(keys.map((key) => [key, all[key] ?? 0])), shades};
}
"""


def coded(width: int, number: int, count: int, rising: bool) -> list[bytes]:
    """Access units of one picture, eight grey bars with grain: a keyframe with its sets, and pictures that refer to it."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, width * 9 // 16, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, RATE), Fraction(RATE), 1
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "profile": "baseline"}
    encoder.options |= {"x264-params": f"sps-id={number}:keyint=1000:scenecut=0"}
    found = []
    for index in range(count):
        grain = random.Random(1)
        picture = av.VideoFrame(width, width * 9 // 16, "yuv420p")
        luma, *colours = picture.planes
        bars = bytes(30 + (x if rising else width - 1 - x) * 8 // width * 25 for x in range(width)).ljust(luma.line_size)
        rows = (zip(bars, grain.randbytes(len(bars)), strict=True) for _ in range(luma.height))
        luma.update(bytes(bar ^ bits & 15 for row in rows for bar, bits in row))
        for plane in colours:
            plane.update(bytes([128]) * (plane.line_size * plane.height))
        picture.pts, picture.time_base = index, Fraction(1, RATE)
        (packet,) = encoder.encode(picture)
        units = [unit.removesuffix(b"\0") for unit in bytes(packet).split(b"\0\0\1")[1:]]
        found.append(b"".join(b"\0\0\0\1" + unit for unit in units if unit[0] & 31 != 6))
    return found


class Pictures(MediaStreamTrack):
    kind = "video"

    def __init__(self, units: list[bytes]) -> None:
        super().__init__()
        self.units, self.index, self.began = units, 0, 0.0

    async def recv(self) -> av.Packet:
        if self.index == len(self.units):
            await asyncio.sleep(3600)
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(0.0, self.began + self.index / RATE - time.monotonic()))
        packet = av.Packet(self.units[self.index])
        packet.pts, packet.time_base = self.index, Fraction(1, RATE)
        self.index += 1
        return packet


class Path:
    """Between aiortc's sender and its transport: loses a packet of the second keyframe, answers NACKs late or never."""

    def __init__(self, sender: RTCRtpSender, track: Pictures, lose: int | None, answer: float | None) -> None:
        self._track, self._lose, self._answer = track, lose, answer
        self._deliver, self._handle = sender.transport._send_rtp, sender._handle_rtcp_packet
        sender.transport._send_rtp, sender._handle_rtcp_packet = self.send, self.feedback
        self.first, self.kinds, self.asked, self.again = -1, [], [], 0

    async def send(self, data: bytes) -> None:
        number = int.from_bytes(data[2:4], "big")
        if data[1] & 127 < 64 or data[1] & 127 >= 96:  # RTP and not RTCP (RFC 5761)
            if self._track.index == BEFORE + 1:
                self.first = number if self.first < 0 else self.first
                if number - self.first == len(self.kinds):
                    self.kinds.append(data[16 + 4 * int.from_bytes(data[14:16], "big")] & 31)
                    if number - self.first == self._lose:
                        return
            if self.first >= 0 and number - self.first == self._lose:
                self.again += 1
        await self._deliver(data)

    async def feedback(self, packet) -> None:
        since = round(time.monotonic() - self._track.began - BEFORE / RATE, 2)
        if isinstance(packet, RtcpRtpfbPacket):
            self.asked += [(since, number - self.first) for number in packet.lost]
            if self._answer is not None:
                handle = self._handle
                asyncio.get_running_loop().call_later(self._answer, lambda: asyncio.ensure_future(handle(packet)))
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == 1:
            self.asked.append((since, "keyframe"))


async def watched(page, widths: tuple[int, int], number: int, lose: int | None, answer: float | None) -> dict:
    peer = RTCPeerConnection()
    units = coded(widths[0], 0, BEFORE, True) + coded(widths[1], number, AFTER, False)
    sender = peer.addTrack(track := Pictures(units))
    codecs = RTCRtpSender.getCapabilities("video").codecs
    peer.getTransceivers()[0].setCodecPreferences([one for one in codecs if one.mimeType == "video/H264"][:1])
    await peer.setLocalDescription(await peer.createOffer())
    answered = await page.evaluate(PAGE, peer.localDescription.sdp)
    path = Path(sender, track, lose, answer)
    await peer.setRemoteDescription(RTCSessionDescription(answered, "answer"))
    while track.index < len(units):
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    seen = await page.evaluate(STATS)
    await peer.close()
    shades = [round(shade * 219 / 255) + 16 for shade in seen.pop("shades")]
    bars = [30 + bar * 25 for bar in range(8)]
    off = [max(abs(shade - wanted[at % 8]) for at, shade in enumerate(shades)) for wanted in (bars, bars[::-1])]
    shown = "old" if off[0] < 25 else "new" if off[1] < 25 else "neither"
    return seen | {"shown": shown, "kinds": path.kinds[:2], "asked": path.asked, "sent again": path.again}


# what is lost: widths, the second sets' number, which packet of the second keyframe, seconds until a NACK is answered
CASES = {
    "nothing": ((320, 640), 0, None, None),
    "a fragment, sent again": ((320, 640), 0, 2, 0.1),
    "sets of the same number, sent again": ((320, 640), 0, 0, 0.1),
    "sets of the same number": ((640, 320), 0, 0, None),
    "sets of another number, sent again": ((320, 640), 1, 0, 0.1),
    "sets of another number": ((320, 640), 1, 0, None),
}
# frameWidth, keyframes decoded, whether the last picture was, whether there was a PLI, a NACK, one after the first second,
# and which picture is shown
EXPECTED = {
    "nothing": (640, 2, True, False, False, False, "new"),
    "a fragment, sent again": (640, 2, True, False, True, False, "new"),
    "sets of the same number, sent again": (320, 2, True, False, True, False, "neither"),
    "sets of the same number": (640, 2, True, False, True, False, "neither"),
    "sets of another number, sent again": (320, 1, False, True, True, False, "old"),
    "sets of another number": (320, 1, False, True, True, True, "old"),
}


def summary(seen: dict, lose: int | None) -> tuple:
    assert seen["kinds"] == [24, 28], "a STAP-A and the first FU-A"
    nacks = [since for since, what in seen["asked"] if what == lose]
    whole = seen["framesDecoded"] > BEFORE + AFTER // 2
    late = any(since > 1 for since in nacks)
    return seen["frameWidth"], seen["keyFramesDecoded"], whole, seen["pliCount"] > 0, bool(nacks), late, seen["shown"]


async def main() -> None:
    found = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        print("Chromium", browser.version)
        for name, case in CASES.items():
            page = await browser.new_page()
            seen = await watched(page, *case)
            await page.close()
            print(f"lost: {name}: {seen}", flush=True)
            found[name] = summary(seen, case[2])
        await browser.close()
    print("as it was" if found == EXPECTED else f"CHANGED {found}")
    sys.exit(found != EXPECTED)


asyncio.run(main())
PY
