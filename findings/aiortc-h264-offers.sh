#!/usr/bin/env bash
# aiortc 1.16.0 rewrites the H.264 profile-level-id that it answers, and raises on an offer of Main or High alone.
# Seen 2026-11-28, Python 3.11.
#
# Guess: an answer repeats the offered profile (RFC 6184 section 8.2.2: the profile is symmetric, only the level may
# be lowered), and a section with no codec in common is answered with port 0 (RFC 3264 section 6).
# Seen: 42c01f and 42e028 are both answered as 42e01f. Constrained baseline is matched by meaning and then written as
# aiortc's own constant, level included, so a peer that compares the strings finds a codec that it never offered. An
# offer with only Main or only High fails in setRemoteDescription() with OperationError, so one unsupported video section
# makes the audio section beside it fail, too.
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

from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription

EXPECTED = {
    "42001f": "42001f",
    "42e01f": "42e01f",
    "42c01f": "42e01f",
    "42e028": "42e01f",
    "4d001f": "OperationError",
    "640028": "OperationError",
}


async def answer(profile: str) -> str:
    """The profile-level-id that a peer with its defaults answers, or the name of the error."""
    offerer, answerer = RTCPeerConnection(), RTCPeerConnection()
    offerer.addTransceiver("audio", direction="sendrecv")
    video = offerer.addTransceiver("video", direction="sendrecv")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"][:1])
    await offerer.setLocalDescription(await offerer.createOffer())
    sdp = re.sub(r"profile-level-id=\w+", f"profile-level-id={profile}", offerer.localDescription.sdp)
    try:
        await answerer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        description = await answerer.createAnswer()
        return ",".join(re.findall(r"profile-level-id=(\w+)", description.sdp))
    except Exception as error:
        return type(error).__name__
    finally:
        await offerer.close()
        await answerer.close()


async def main() -> None:
    print("aiortc", importlib.metadata.version("aiortc"))
    seen = {profile: await answer(profile) for profile in EXPECTED}
    for profile, result in seen.items():
        print(f"offered {profile}: {result}")
    sys.exit(0 if seen == EXPECTED else f"changed: expected {EXPECTED}")


asyncio.run(main())
PY
