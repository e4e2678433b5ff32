"""Viewers for a WHEP server, as cheap as can be: the SFU simulator's media plane receives and throws away.

    python -m tests.benchmarks.whep_viewers WHEP_URL...

Prints the URLs of the viewers' control interfaces, as JSON, when all are connected; ends with standard input. No
decoding takes place: it is the server's cost that is measured. Each viewer has a UDP port of its own, as viewers have.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import Final

import httpx

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.negotiation import parse_description, take_transport
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import Codec, Section
from relay_common.simulation.sfu.sessions import Track
from relay_common.simulation.sfu.simulator import SfuSimulator

_FEEDBACK: Final = ("nack", "nack pli", "ccm fir")
_H264: Final = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"


async def view(simulator: SfuSimulator, http: httpx.AsyncClient, url: str) -> None:
    """Ask for one stream: we offer to receive, the server answers and connects."""
    service = simulator.service
    session = service.session((await service.new_session({}))["sessionId"])
    h264, opus = Codec(96, "H264", 90000, 1, _H264, _FEEDBACK), Codec(111, "opus", 48000, 2)
    session.sections = [
        Section(kind, mid, direction="recvonly", setup="passive", codecs=[codec])
        for kind, mid, codec in (("video", "0", h264), ("audio", "1", opus))
    ]
    offer = sfu_sdp.write(session.sections, session.transport, session.version)
    reply = await http.post(url, content=offer, headers={"Content-Type": "application/sdp"})
    reply.raise_for_status()
    answer = parse_description(reply.text)
    # An ice-lite offer makes pion answer setup:passive, though it acts on ours and is the DTLS client.
    take_transport(session, [replace(section, setup="active") for section in answer])
    for section in answer:
        if section.rejected or section.direction == "inactive":
            continue
        track = Track("local", section.mid, section.kind)
        track.publication = Publication(session.peer, section, simulator.timings)
        track.publication.upstream.arrived = time.monotonic()  # or it is collected as long silent
        session.peer.publish(track.publication)
        session.tracks.append(track)


async def main(urls: list[str]) -> None:
    """Connect to all, one after the other, and stay until standard input ends."""
    viewers = [SfuSimulator() for _ in urls]
    async with httpx.AsyncClient(timeout=30.0) as http:
        for url, viewer in zip(urls, viewers, strict=True):
            await viewer.start()
            await view(viewer, http, url)
    print(json.dumps([viewer.control_url for viewer in viewers]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(viewer.stop() for viewer in viewers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
