"""A camera whose stream comes in segments, as from any network: cut through TLS records, pictures and packets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any, Final, Self

import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_worker import native
from relay_worker.camera.granted import GrantedStream
from relay_worker.rtsp.transport import Connection
from tests.fixtures.media_rig import MediaRig, media_rig

pytestmark = pytest.mark.media

SEGMENT: Final = 1448
"""Bytes of one on Ethernet, with timestamps."""
APART: Final = 0.0002
"""Seconds between two: some 50 Mbit/s."""


class SegmentedLine:
    """Forwards one connection to a port of this machine at a port of its own; what comes from there in segments.

    In a thread, since who reads may wait for the next segment. Between two it lets go of the processor.
    """

    def __init__(self, to: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._there = socket.create_connection(("127.0.0.1", to))
        self._threads = [threading.Thread(target=self._serve)]
        self._ends = [self._listener, self._there]
        self.segments = 0

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            here, _ = self._listener.accept()
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends.append(here)
            back = threading.Thread(target=self._forward, args=(here, self._there, 65536))
            self._threads.append(back)
            back.start()
            self._forward(self._there, here, SEGMENT)

    def _forward(self, source: socket.socket, sink: socket.socket, size: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(size):
                sink.sendall(data)
                self.segments += size == SEGMENT
                time.sleep(APART)


@pytest.mark.skipif(bool(native.missing()), reason=native.missing())
@pytest.mark.parametrize("dribble", [False, True], ids=["a record a picture", "a record a packet"])
async def test_pictures_that_come_in_segments_are_taken_by_compiled_code(
    monkeypatch: pytest.MonkeyPatch, dribble: bool
) -> None:
    asked: list[object] = []
    go_on = Connection._go_on

    def counted(self: Connection, *arguments: Any) -> None:
        asked.append(arguments[1])
        go_on(self, *arguments)

    monkeypatch.setattr(Connection, "_go_on", counted)
    monkeypatch.setattr(native, "_in_use", native.decide("compiled"))  # whatever this process has tested before
    async with media_rig(options=("--bitrate", "3000000")) as rig:  # pictures of a dozen segments
        if dribble:
            await rig.camera("fault", {"kind": "dribble"})
        scheme, _, rest = (await rig.generate()).reveal().partition("://")
        host, _, path = rest.partition("/")
        with SegmentedLine(int(host.rpartition(":")[2])) as line:
            url = Secret(f"{scheme}://127.0.0.1:{line.port}/{path}")
            rig.relay.play(GrantedStream(2, Protocol.RTSP, url, time.time() + 3600))
            await rig.until(lambda: line.segments > 500, "the stream comes by way of the line")
            before, segments = counters(rig), line.segments
            asked.clear()
            await rig.until(lambda: counters(rig)["packets"] > before["packets"] + 1500, "pictures come", 60.0)
            after = counters(rig)
            await rig.until(lambda: counters(rig)["sent"] >= before["sent"] + 1500, "they leave")
            came = {name: count - before[name] for name, count in after.items()}
            parts = [one for one in asked if isinstance(one, ssl.SSLWantReadError)]
            assert parts == [], "the Python had parts of records"
            assert came["lost"] == 0
            assert 30 < came["whole"] < 0.7 * (line.segments - segments), "one wake has the most of a picture"


def counters(rig: MediaRig) -> dict[str, int]:
    """What has come of video and been sent, and how."""
    video = rig.relay.stats(time.monotonic()).video
    whole = rig.relay.counters().get("pipeline.taken_whole", 0)
    return {"packets": video.packets_in, "lost": video.lost_in, "sent": video.packets_out, "whole": whole}
