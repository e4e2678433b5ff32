#!/usr/bin/env bash
# aiortc 1.16.0 agrees on the MID header extension and does not read it: of two bundled tracks of one codec without a=ssrc
# lines it hands out nothing. Seen 2026-11-29, Python 3.11, aioice 0.13.0, both ends aiortc.
#
# Guess: RFC 9143 section 9.2: what arrives is told apart by the MID in its header extension, which both have agreed on and
# each packet carries; a=ssrc lines (RFC 5576) are optional, and SFUs leave them out, since sources change while sections stay.
# Seen: without a=ssrc lines one track is received, and of two tracks, whose sections have the same payload types, each packet
# is thrown away, for good and without a log line above debug. With the lines both are received. The sender's half is there:
# aiortc writes the extension into its own packets, as is printed.
#
# The address is a documentation address on the loopback device of a network namespace of its own: it takes root or
# unprivileged user namespaces, and python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 aioice==0.13.0 av==18.1.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import importlib.metadata
import re
import sys

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError

SECONDS = 3
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"


def mid_of(packet: bytes, number: int) -> str:
    """What the element `number` of a one-byte header extension says (RFC 8285); empty if there is none."""
    assert packet[0] & 0x1F == 0x10 and packet[12:14] == b"\xbe\xde", "an extension and no contributing source"
    elements = packet[16 : 16 + 4 * int.from_bytes(packet[14:16], "big")]
    while elements and elements[0]:
        size = (elements[0] & 15) + 1
        if elements[0] >> 4 == number:
            return elements[1 : 1 + size].decode()
        elements = elements[1 + size :]
    return ""


async def received(tracks: int, named: bool) -> tuple[list[int], list[str]]:
    """How many frames of each track are handed out, and the MIDs that packets carry; `named`: with a=ssrc lines."""
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    for _ in range(tracks):
        here.addTrack(AudioStreamTrack())
    frames: dict[str, int] = {}
    carried: set[str] = set()

    async def read(remote: MediaStreamTrack) -> None:
        try:
            while await remote.recv():
                frames[remote.id] += 1
        except MediaStreamError:
            pass

    reading: list[asyncio.Future] = []

    def added(remote: MediaStreamTrack) -> None:
        frames[remote.id] = 0
        reading.append(asyncio.ensure_future(read(remote)))

    there.on("track", added)
    await here.setLocalDescription(await here.createOffer())
    offer = here.localDescription.sdp
    if not named:
        offer = re.sub("a=ssrc(-group)?:.*\r\n", "", offer)
    await there.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await there.setLocalDescription(await there.createAnswer())
    answer = there.localDescription.sdp
    numbers = re.findall(rf"a=extmap:(\d+) {MID}\r\n", answer)
    assert len(numbers) == tracks and len(set(numbers)) == 1, "each section of the answer has agreed on the extension"
    transport = here.getSenders()[0].transport
    deliver = transport._send_rtp

    async def send(data: bytes) -> None:
        if not 64 <= data[1] & 127 < 96:  # RTP and not RTCP (RFC 5761)
            carried.add(mid_of(data, int(numbers[0])))
        await deliver(data)

    transport._send_rtp = send
    await here.setRemoteDescription(there.localDescription)
    while here.connectionState != "connected":
        await asyncio.sleep(0.05)
    await asyncio.sleep(SECONDS)
    await here.close()
    await there.close()
    return list(frames.values()), sorted(carried)


async def main() -> None:
    print("aiortc", importlib.metadata.version("aiortc"), "aioice", importlib.metadata.version("aioice"))
    seen = {}
    for tracks, named in ((1, True), (1, False), (2, True), (2, False)):
        seen[tracks, named], mids = await received(tracks, named)
        lines = "with" if named else "without"
        print(f"{tracks} of sound {lines} a=ssrc lines: frames received {seen[tracks, named]}; MIDs in packets {mids}")
        assert mids == [str(index) for index in range(tracks)]
    same = seen.pop((2, False)) == [0, 0] and all(min(frames) > SECONDS * 15 for frames in seen.values())
    sys.exit(0 if same else "changed: nothing of two tracks without a=ssrc lines, and all of the others, was expected")


asyncio.run(main())
PY

timeout 120 unshare --user --map-root-user --net sh -c '
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    exec "$@"' sh "$dir/venv/bin/python" "$dir/seen.py"
