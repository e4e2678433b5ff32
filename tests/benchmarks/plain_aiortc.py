"""The relay's job done the plain way with libraries: `av` demuxes RTSP, aiortc publishes. One camera a process.

    python plain_aiortc.py RTSP_URL API_APP_URL APP_SECRET NAME

Video packets pass through, AAC is decoded and becomes Opus in aiortc. It is what one would write in an afternoon, kept
as a baseline for the benchmark; only the addresses that ICE offers are helped along, for loopback.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import aioice.ice
import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender

aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]  # aioice never offers loopback


class QueueTrack(MediaStreamTrack):
    """A track fed by the demuxer's thread."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=300)

    def feed(self, item: Any) -> None:
        """Queue a packet or frame, or drop it when nobody takes them."""
        if not self.queue.full():
            self.queue.put_nowait(item)

    async def recv(self) -> Any:
        """The next packet (video) or frame (audio)."""
        return await self.queue.get()


def demux(url: str, loop: asyncio.AbstractEventLoop, video: QueueTrack, audio: QueueTrack) -> None:
    """Read the camera until its stream ends."""
    options = {"rtsp_transport": "tcp", "fflags": "nobuffer"}
    with av.open(url, format="rtsp", options=options, timeout=20.0) as container:
        resampler = av.AudioResampler("s16", "stereo", 48000, frame_size=960)
        for packet in container.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "video":
                loop.call_soon_threadsafe(video.feed, packet)
                continue
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                for resampled in resampler.resample(frame):
                    loop.call_soon_threadsafe(audio.feed, resampled)


async def main(url: str, app_url: str, secret: str, name: str) -> None:
    """Publish until killed."""
    video, audio = QueueTrack("video"), QueueTrack("audio")
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceivers = [pc.addTransceiver(track, direction="sendonly") for track in (audio, video)]
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceivers[1].setCodecPreferences([c for c in codecs if c.mimeType.lower() in ("video/h264", "video/rtx")])
    await pc.setLocalDescription(await pc.createOffer())
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=20.0) as api:
        session = (await api.post(f"{app_url}/sessions/new")).json()["sessionId"]
        tracks = [{"location": "local", "mid": t.mid, "trackName": f"{name}-{t.kind}"} for t in transceivers]
        offer = {"type": "offer", "sdp": pc.localDescription.sdp}
        body = {"sessionDescription": offer, "tracks": tracks}
        reply = await api.post(f"{app_url}/sessions/{session}/tracks/new", json=body)
        reply.raise_for_status()
    answer = reply.json()["sessionDescription"]["sdp"]
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    loop = asyncio.get_running_loop()
    threading.Thread(target=demux, args=(url, loop, video, audio), daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
