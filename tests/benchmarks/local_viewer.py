"""One WHEP viewer of the relay itself, as cheap as can be: it decrypts, reports once a second, and throws away.

    python -m tests.benchmarks.local_viewer WHEP_URL

Prints "ready" when media come. Each line of standard input then begins (`record`) or ends (`stop`) a recording; the
end prints what came meanwhile as JSON: (monotonic seconds by the kernel's stamp, SSRC, sequence number, timestamp,
bytes, marker). Ends with standard input.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
import time
from typing import Final

import httpx

from relay_worker.rtp import rtcp
from tests.fixtures.raw_viewer import RawViewer

_SO_TIMESTAMPNS: Final = 35
_SOL_UDP: Final = 17
_UDP_GRO: Final = 104
"""As the simulated SFU has it: on loopback it is the sender who pays for taking runs of packets apart."""
_CHECK_EVERY: Final = 4
"""Seconds."""

Arrival = tuple[float, int, int, int, int, bool]


class _Sending:
    """What a viewer needs of a transport."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendto(self, data: bytes) -> None:
        self._sock.send(data)

    def is_closing(self) -> bool:
        return False


class RecordingViewer(RawViewer):
    """A viewer whose packets are stamped by the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.recording = False
        self.arrivals: list[Arrival] = []
        self.ssrc = self.highest = 0
        self._wall_offset = min(time.monotonic() - time.time() for _ in range(10))

    async def connect(self, answer: str, *, local: str = "127.0.0.1") -> None:
        found = re.search(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", answer)
        assert found, answer
        self.take_credentials(answer)
        self._port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._port.setblocking(False)
        self._port.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._port.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._port.connect((found[1], int(found[2])))
        self.transport = _Sending(self._port)
        asyncio.get_running_loop().add_reader(self._port.fileno(), self._readable)
        self.check()

    def _readable(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._port.recvmsg(65536, 128)
            except OSError:
                return
            self._at, segment = time.monotonic(), len(data)
            for level, kind, stamp in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack("=qq", stamp)
                    self._at = seconds + nanoseconds / 1e9 + self._wall_offset
                elif (level, kind) == (_SOL_UDP, _UDP_GRO):
                    (segment,) = struct.unpack_from("=H", stamp)
            for start in range(0, len(data), segment or 1):
                self.datagram_received(data[start : start + segment], None)

    def video_came(self, plain: bytes) -> None:
        _, second, sequence, timestamp, self.ssrc = struct.unpack_from("!BBHII", plain)
        self.highest = sequence
        if self.recording:
            self.arrivals.append((self._at, self.ssrc, sequence, timestamp, len(plain), second > 127))

    def report(self) -> None:
        """Send a receiver report, as any receiver does."""
        assert self.sending is not None
        block = rtcp.ReportBlock(self.ssrc, 0, 0, self.highest, 0, 0, 0)
        self.transport.sendto(self.sending.protect_rtcp(rtcp.pack_receiver_report(7, [block])))


async def _look_after(viewer: RecordingViewer) -> None:
    for second in range(1_000_000):
        await asyncio.sleep(1.0)
        viewer.report()
        if second % _CHECK_EVERY == 0:
            viewer.check()


async def main(url: str) -> None:
    """Watch until standard input ends."""
    viewer = RecordingViewer()
    async with httpx.AsyncClient(timeout=30.0) as http:
        reply = await http.post(url, content=viewer.offer(), headers={"Content-Type": "application/sdp"})
        reply.raise_for_status()
    await viewer.connect(reply.text)
    async with asyncio.timeout(30.0):
        while not viewer.ssrc:
            await asyncio.sleep(0.01)
    looking_after = asyncio.create_task(_look_after(viewer))
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        viewer.recording = line == "record"
        if line == "stop":
            print(json.dumps(viewer.arrivals), flush=True)
            viewer.arrivals = []
    looking_after.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
