"""The simulated camera's port: when a request came is told by the kernel, not by when the simulator got to read it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from typing import Any, cast

from relay_common.simulation.camera.webrtc_port import WebRtcEdge

APART = 0.3


class Session:
    """Notes when SRTCP packets arrived."""

    def __init__(self) -> None:
        self.came: list[float] = []

    def receive_rtcp(self, buffer: memoryview, pointer: Any, arrived: float) -> None:
        self.came.append(arrived)


async def test_requests_that_are_read_together_are_as_far_apart_as_they_came() -> None:
    """A busy machine made two that were a second apart look like a client that asks for too much."""
    edge, session = WebRtcEdge(), Session()
    edge.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            edge._by_address[client.getsockname()] = cast(Any, session)
            for attempt in itertools.count():
                session.came.clear()
                for _ in range(2):
                    client.sendto(bytes((0x81, 206)) + bytes(10), (edge.host, edge.port))
                    time.sleep(APART)  # noqa: ASYNC251 - while the loop does not read
                async with asyncio.timeout(30):
                    while len(session.came) < 2:
                        await asyncio.sleep(0.01)
                first, second = session.came
                if second - first > APART - 0.01:
                    break
                # The kernel begins to note when packets come a moment after it was first asked.
                assert attempt < 20, session.came
    finally:
        await edge.close()
