#!/usr/bin/env bash
# aiortc 1.16.0's receiver never makes good the delay that one lost packet has cost it, in sound or in picture.
# Seen 2026-11-29, Python 3.11, aioice 0.13.0, both ends aiortc.
#
# Guess: a jitter buffer hands out all that is complete once the missing packet has come, or has been given up after some
# hundreds of milliseconds; and a complete keyframe ends any wait.
# Seen, since it hands out one frame at most for each packet that arrives, and gives nothing up before it is full:
# - Sound, packets of 20 ms: one packet lost, and all that follows comes 0.2 s later than before, until the end.
# - Pictures of one packet each, one lost and sent again 0.5 s after it was due: all later ones come 0.5 s late, until the end.
#   The next such packet comes on top. (Pictures of several packets catch up: each packet may release one.)
# - The same packet never sent again: one NACK, then nothing for 512 packets, 26 s here, with a whole keyframe in each of
#   those seconds; the only PLI is sent at their end, and from then on the pictures are 26 s old. Nothing else was lost.
#
# The address is a documentation address on the loopback device of a network namespace of its own: it takes root or
# unprivileged user namespaces, and python3 of 3.11 or later. It takes about a minute.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 aioice==0.13.0 av==18.1.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import importlib.metadata
import sys
import time
from fractions import Fraction
from statistics import median

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpPsfbPacket, RtcpRtpfbPacket

LOST = 30  # which packet
RATE = {"video": 20, "audio": 50}  # packets, each a picture or a frame of sound, a second
CLOCK = {"video": 90000, "audio": 48000}
BUFFER = 512


def pictures(count: int) -> list[av.Packet]:
    """Access units that fit into a packet each, with a keyframe and its parameter sets once a second."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 64, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 20), Fraction(20), 1
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "20"}
    found = []
    for index in range(count):
        picture = av.VideoFrame(64, 64, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([index % 200 + 20]) * plane.buffer_size)
        picture.pts, picture.time_base = index, Fraction(1, 20)
        (packet,) = encoder.encode(picture)
        assert packet.is_keyframe == (index % 20 == 0) and packet.size < 1100
        found.append(packet)
    return found


def sound(count: int) -> list[av.AudioFrame]:
    found = []
    for index in range(count):
        frame = av.AudioFrame(format="s16", layout="stereo", samples=960)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48000, index * 960, Fraction(1, 48000)
        found.append(frame)
    return found


class Source(MediaStreamTrack):
    def __init__(self, kind: str, units: list) -> None:
        self.kind = kind
        super().__init__()
        self.units, self.index, self.began = units, 0, 0.0

    async def recv(self):
        if self.index == len(self.units):
            await asyncio.sleep(3600)
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(0.0, self.began + self.index / RATE[self.kind] - time.monotonic()))
        self.index += 1
        return self.units[self.index - 1]


class Path:
    """Between aiortc's sender and its transport: loses one packet, and lets it through when it is sent again, or never."""

    def __init__(self, sender: RTCRtpSender, track: Source, again: float | None) -> None:
        self._again, self._track, self._first = again, track, -1
        self._deliver, self._handle = sender.transport._send_rtp, sender._handle_rtcp_packet
        sender.transport._send_rtp, sender._handle_rtcp_packet = self.send, self.feedback
        self.asked: list[tuple[str, float]] = []

    async def send(self, data: bytes) -> None:
        kind, number = data[1] & 127, int.from_bytes(data[2:4], "big")
        if 64 <= kind < 96:  # RTCP (RFC 5761)
            await self._deliver(data)
        elif self._first < 0:
            self._first, self._media = number, kind
            await self._deliver(data)
        elif kind == self._media and number == (self._first + LOST) % 65536:
            pass
        elif kind == self._media:
            await self._deliver(data)
        elif self._again is not None:  # RTX (RFC 4588)
            asyncio.get_running_loop().call_later(self._again, lambda: asyncio.ensure_future(self._deliver(data)))

    async def feedback(self, packet) -> None:
        if isinstance(packet, RtcpRtpfbPacket):
            self.asked.append(("NACK", time.monotonic() - self._track.began))
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == 1:
            self.asked.append(("PLI", time.monotonic() - self._track.began))
        await self._handle(packet)


async def received(kind: str, count: int, again: float | None) -> tuple[list[tuple[int, float]], list[tuple[str, float]]]:
    """The frames that the receiver hands out, by number, with how long after their time each came; and its feedback."""
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    track = Source(kind, pictures(count) if kind == "video" else sound(count))
    sender = here.addTrack(track)
    codecs = [one for one in RTCRtpSender.getCapabilities(kind).codecs if one.mimeType in ("video/H264", "audio/opus")]
    rtx = [one for one in RTCRtpSender.getCapabilities(kind).codecs if one.mimeType == "video/rtx"]
    here.getTransceivers()[0].setCodecPreferences(codecs[:1] + rtx)
    frames: list[tuple[int, float]] = []

    async def read(remote: MediaStreamTrack) -> None:
        try:
            while frame := await remote.recv():
                number = round(frame.pts * frame.time_base * RATE[kind])
                frames.append((number, time.monotonic() - track.began - number / RATE[kind]))
        except MediaStreamError:
            pass

    tasks: list[asyncio.Future] = []
    there.on("track", lambda remote: tasks.append(asyncio.ensure_future(read(remote))))
    await here.setLocalDescription(await here.createOffer())
    await there.setRemoteDescription(here.localDescription)
    await there.setLocalDescription(await there.createAnswer())
    path = Path(sender, track, again)
    await here.setRemoteDescription(there.localDescription)
    while track.index < count:
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    await here.close()
    await there.close()
    return frames, path.asked


def shown(name: str, frames: list[tuple[int, float]], asked: list[tuple[str, float]], count: int) -> tuple[float, float, int]:
    """How late frames came before the loss and at the end, and the number of those handed out."""
    before = median(late for number, late in frames if 5 < number < LOST)
    end = median(late for _, late in frames[-10:])
    told = ", ".join(f"{what} at {at:.1f} s" for what, at in asked) or "none"
    print(f"{name}: {before:.2f} s late before the loss, {end:.2f} s at the end; {len(frames)} of {count} handed out; feedback: {told}")
    return before, end, len(frames)


async def main() -> None:
    print("aiortc", importlib.metadata.version("aiortc"), "aioice", importlib.metadata.version("aioice"))
    ok = True
    frames, asked = await received("audio", 500, None)
    before, end, _ = shown("sound, one packet lost", frames, asked, 500)
    ok &= 0.15 < end - before < 0.25
    frames, asked = await received("video", 240, 0.0)
    before, end, _ = shown("pictures, one sent again at once", frames, asked, 240)
    ok &= end - before < 0.15 and [what for what, _ in asked] == ["NACK"]
    frames, asked = await received("video", 240, 0.45)
    before, end, _ = shown("pictures, one sent again after 0.5 s", frames, asked, 240)
    ok &= 0.4 < end - before < 0.6 and [what for what, _ in asked] == ["NACK"]
    count = LOST + BUFFER + 60
    frames, asked = await received("video", count, None)
    before, end, handed = shown("pictures, one never sent again", frames, asked, count)
    ok &= 25 < end - before < 26.5 and handed < 100 and [what for what, _ in asked] == ["NACK", "PLI"]
    sys.exit(0 if ok else "changed")


asyncio.run(main())
PY

timeout 300 unshare --user --map-root-user --net sh -c '
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    exec "$@"' sh "$dir/venv/bin/python" "$dir/seen.py"
