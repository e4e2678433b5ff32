#!/usr/bin/env bash
# aiortc 1.16.0 does not know H.264 again where its parameters are separated by "; " instead of ";". Seen 2026-11-29,
# Python 3.11.
#
# Guess: the space means nothing. RFC 6184 section 8.2.1 and RFC 7587 section 7 write all their examples with it, and so
# do cameras and other stacks.
# Seen: all parameters but the first keep the space in their names, so that packetization-mode counts as missing, as 0,
# and no format of aiortc's own matches. Offered beside VP8, H.264 is left out of the answer without a word; offered alone,
# it makes setRemoteDescription() raise OperationError, for the sound as well. Nothing names the space.
# Not found in the project's issues; pion had the like (pion/sdp#190), and sdp-transform (pull request 29).
#
# It takes python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 aioice==0.13.0 av==18.1.0

timeout 120 "$dir/venv/bin/python" - <<'PY'
import asyncio
import importlib.metadata
import re
import sys

from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription

LOCAL = RTCConfiguration(iceServers=[])
EXPECTED = [
    ("VP8 and H264", ";", "opus, VP8, H264"),
    ("VP8 and H264", "; ", "opus, VP8"),
    ("H264", ";", "opus, H264"),
    ("H264", "; ", "OperationError"),
]


async def answered(wanted: str, separator: str) -> str:
    """The codecs that aiortc answers to its own offer of them, when the parameters in it are separated like this."""
    offerer, answerer = RTCPeerConnection(LOCAL), RTCPeerConnection(LOCAL)
    capabilities = RTCRtpSender.getCapabilities
    sound, video = offerer.addTransceiver("audio"), offerer.addTransceiver("video")
    sound.setCodecPreferences([codec for codec in capabilities("audio").codecs if codec.name == "opus"])
    video.setCodecPreferences([codec for codec in capabilities("video").codecs if codec.name in wanted.split()])
    try:
        await offerer.setLocalDescription(await offerer.createOffer())
        offer = re.sub("^a=fmtp:.*", lambda line: line[0].replace(";", separator), offerer.localDescription.sdp, flags=re.M)
        await answerer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        answer = (await answerer.createAnswer()).sdp
    except Exception as error:
        return type(error).__name__
    finally:
        await offerer.close()
        await answerer.close()
    return ", ".join(dict.fromkeys(re.findall(r"^a=rtpmap:\d+ (\w+)/", answer, flags=re.M)))


async def main() -> bool:
    print("aiortc", importlib.metadata.version("aiortc"))
    seen = []
    for wanted, separator, _ in EXPECTED:
        seen.append((wanted, separator, await answered(wanted, separator)))
        print(f"{wanted:12} with parameters separated by {separator!r:4}: {seen[-1][2]}")
    return seen == EXPECTED


sys.exit(0 if asyncio.run(main()) else f"changed: expected {EXPECTED}")
PY
