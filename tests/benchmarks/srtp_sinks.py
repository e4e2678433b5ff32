"""Where FFmpeg's SRTP goes: a UDP port for each track, which counts RTP packets and decrypts nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from relay_supervisor.http.server import HttpServer

_RTCP = range(192, 224)


class _Track(asyncio.DatagramProtocol):
    def __init__(self, kind: str) -> None:
        self.kind, self.packets, self.port = kind, 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.packets += len(data) >= 12 and data[1] not in _RTCP


@contextlib.asynccontextmanager
async def srtp_sinks(cameras: int) -> AsyncIterator[tuple[str, list[tuple[int, int]]]]:
    """Open them: the address of a control interface that counts as the SFU's does, and (video, audio) ports."""
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_datagram_endpoint(lambda kind=kind: _Track(kind), local_addr=("127.0.0.1", 0))  # type: ignore[misc]
        for _ in range(cameras)
        for kind in ("video", "audio")
    ]
    tracks: list[_Track] = [protocol for _, protocol in opened]
    pairs = list(zip(tracks[::2], tracks[1::2], strict=True))

    async def sessions(request: Request) -> JSONResponse:
        published = [[{"kind": t.kind, "packets": t.packets, "active": True} for t in pair] for pair in pairs]
        return JSONResponse({"sessions": [{"session": n, "published": each} for n, each in enumerate(published)]})

    server = HttpServer(Starlette(routes=[Route("/sessions", sessions)]), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{await server.start()}", [(video.port, audio.port) for video, audio in pairs]
    finally:
        await server.stop()
        for transport, _ in opened:
            transport.close()
