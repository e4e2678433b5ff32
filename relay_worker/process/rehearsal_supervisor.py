"""The supervisor of the rehearsal, and the sink behind it: they answer the worker on the bus, and take its media."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zmq
import zmq.asyncio

from relay_common import protocol, wire
from relay_common.clock import Clock
from relay_common.protocol import FromSupervisor
from relay_common.secrets import Secret
from relay_worker.rtp import rtcp
from relay_worker.webrtc.sdp import OPUS, LocalTransport, read_transport, split_sections
from relay_worker.webrtc.transport import MediaTransport

_LOOPBACK: Final = "127.0.0.1"
_FEEDBACK_EVERY: Final = 30
"""Packets from one report of the sink to the next."""
_ESTIMATE: Final = 3_000_000
"""Bits a second."""
_LEASE: Final = 300.0
_SINK: Final = 1
"""Its SSRC."""


class RehearsedSink:
    """Takes one publication, and sends the feedback that SFUs send."""

    def __init__(self) -> None:
        self.offer = ""
        self.first: dict[int, tuple[int, int]] = {}
        """Sequence number and timestamp of each stream's first packet, by SSRC."""
        self.packets = 0
        self.types: set[int] = set()
        """Payload types of what has come: picture, sound, and repairs of the picture."""
        self.playing = asyncio.Event()
        """Set once picture and sound have come. (The worker says only at its next beat that it has published.)"""
        self._peer: MediaTransport | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def answer(self, offer: str) -> str:
        """Answer an offer; the connection is made meanwhile."""
        self.offer = offer
        self._peer = MediaTransport(addresses=[_LOOPBACK], on_packet=self._take, peer="the rehearsing worker")
        self._peer._connection.ice_controlling = False
        local = await self._peer.gather()
        # We connect actively: to us, the offer is the passive end.
        theirs = read_transport(*split_sections(offer.replace("a=setup:actpass", "a=setup:passive")))
        self._connecting = asyncio.create_task(self._peer.connect(theirs))
        return "\r\n".join(_answer(offer.split("\r\n"), local))

    async def close(self) -> None:
        """End the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._peer is not None:
            await self._peer.close()

    def _take(self, packet: bytes, is_rtcp: bool, now: float) -> None:
        if is_rtcp:
            return
        self.packets += 1
        number, timestamp, ssrc = (int.from_bytes(packet[start:end], "big") for start, end in ((2, 4), (4, 8), (8, 12)))
        self.first.setdefault(ssrc, (number, timestamp))
        self.types.add(packet[1] & 0x7F)
        if OPUS in self.types and len(self.types) > 1:
            self.playing.set()
        if self.packets % _FEEDBACK_EVERY == 0 and self._peer is not None and self._peer.path is not None:
            assert self._peer.protector is not None
            reports = rtcp.pack_receiver_report(_SINK, [rtcp.ReportBlock(ssrc, 0, 0, number, 0, 0, 0)])
            reports += rtcp.pack_nack(_SINK, ssrc, [number - 1 & 0xFFFF]) + rtcp.pack_pli(_SINK, ssrc)
            reports += rtcp.pack_remb(_SINK, _ESTIMATE, [ssrc])
            self._peer.path.send([memoryview(self._peer.protector.protect_rtcp(reports))])


def _answer(offer: list[str], ours: LocalTransport) -> Iterator[str]:
    """The lines of the answer: all that is offered is taken."""
    replaced = {
        "a=candidate": f"a=candidate:{ours.candidates[0]}",
        "a=ice-ufrag": f"a=ice-ufrag:{ours.ice_ufrag}",
        "a=ice-pwd": f"a=ice-pwd:{ours.ice_pwd}",
        "a=fingerprint": f"a=fingerprint:sha-256 {ours.fingerprint}",
        "a=setup": "a=setup:active",
        "a=sendonly": "a=recvonly",
    }
    for line in offer:
        name = line.partition(":")[0]
        if not name.startswith(("a=ssrc", "a=msid")):
            yield replaced.get(name, line)


class RehearsedSupervisor:
    """Welcomes the worker, has it play `url`, and carries its offer to the sink."""

    def __init__(self, directory: Path, url: Secret, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self.sink = RehearsedSink()
        # Short, since the directory's own path may be long, and a socket's has 107 characters at most.
        self.control, self.stats = f"ipc://{directory}/c", f"ipc://{directory}/s"
        self._reader = wire.supervisor_reader()
        self._context = zmq.asyncio.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.control)
        self._subscriber = self._context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._subscriber.bind(self.stats)
        self._worker = b""

    async def serve(self) -> None:
        """Answer the worker until cancelled."""
        while True:
            self._worker, frame = await self._router.recv_multipart()
            match self._reader.decode(frame):
                case protocol.Hello():
                    self.send(protocol.Welcome())
                    self.send(
                        protocol.Play(
                            generation=1,
                            protocol=protocol.Protocol.RTSP,
                            url=self._url.reveal(),
                            expires_at=self._clock.wall() + _LEASE,
                        )
                    )
                case protocol.PublishRequest(request=request, offer=offer):
                    answer = await self.sink.answer(offer)
                    self.send(protocol.PublishAnswer(request=request, publication="rehearsal", answer=answer))

    def send(self, message: FromSupervisor) -> None:
        """Send to the worker."""
        self._router.send_multipart([self._worker, wire.encode(message)])

    async def close(self) -> None:
        """Close the sink and the bus; the threads of the bus have ended then."""
        await self.sink.close()
        self._context.destroy(linger=0)
