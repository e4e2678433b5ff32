"""Play one camera of a running relay without a browser, and report it: `python play_one.py http://127.0.0.1:8080`.

It uses the viewer endpoints as the dashboard does, receives with stock aiortc, and decodes. Exit code 0: pictures and
sound arrived, and the picture moved; 1: they did not. `RELAY_TOKEN` is the token, if the relay requires one. The
container check runs it inside the image, which has everything it needs.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Any

import aioice.ice
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

FRAMES = 60
PATIENCE = 60.0
"""Seconds for everything: the view, the connection and the pictures."""


async def play(api: httpx.AsyncClient) -> dict[str, Any]:
    """View the first camera that is viewable until `FRAMES` pictures are decoded."""
    cameras = (await _json(api.get("/api/cameras")))["cameras"]
    camera = next(c for c in cameras if c["viewable"])
    view = await _json(api.post("/api/view", json={"cameras": [camera["id"]]}))
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    # aiortc accepts only the Baseline profile by name; its decoder handles them all.
    offer = re.sub("profile-level-id=[0-9a-f]{6}", "profile-level-id=42e01f", view["offer"])
    try:
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        answer = {"sdp": peer.localDescription.sdp}
        await _json(api.post(f"/api/view/{view['view']}/answer", json=answer))
        tracks = {t.receiver.track.kind: t.receiver.track for t in peer.getTransceivers()}
        video, audio = await asyncio.gather(_watch(tracks["video"], FRAMES), _watch(tracks["audio"], FRAMES))
    finally:
        await peer.close()
        await api.delete(f"/api/view/{view['view']}")
    return {"camera": camera["name"], "video": video, "audio": audio}


async def _watch(track: MediaStreamTrack, wanted: int) -> dict[str, Any]:
    """Decode `wanted` frames; `span` is the media time in seconds between the first and the last."""
    frames = [await track.recv() for _ in range(wanted)]
    first, last = frames[0], frames[-1]
    different = len({bytes(frame.planes[0])[: 1 << 16] for frame in frames})
    size = f"{first.width}x{first.height}" if track.kind == "video" else f"{first.sample_rate} Hz"
    return {"frames": wanted, "different": different, "span": round(float(last.time - first.time), 2), "format": size}


async def _json(call: Any) -> Any:
    response = await call
    response.raise_for_status()
    return response.json()


async def main(url: str) -> int:
    if httpx.URL(url).host in ("127.0.0.1", "localhost"):
        # aioice skips loopback, which is where a simulated SFU is.
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    token = os.environ.get("RELAY_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as api:
            seen = await play(api)
    except (TimeoutError, httpx.HTTPError, MediaStreamError, StopIteration) as error:
        print(f"nothing played: {type(error).__name__} {error}", file=sys.stderr)
        return 1
    print(seen)
    # A frozen picture repeats; those of simulated and real cameras do not.
    return 0 if seen["video"]["different"] > FRAMES // 2 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
