"""The compiled data path against its specification, for cameras over WebRTC: see `data_paths.py`.

What is read from the socket and decrypted is given to both as packets; `native.Datagrams` has its own tests
(`tests/unit/native/test_datagrams.py`). What has to be equal are packets that leave, feedback to the camera, and all
that the parts remember.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from relay_common.clock import ManualClock
from relay_worker import native
from relay_worker.camera.ingest_answer import IngestAnswer
from relay_worker.camera.webrtc_ingest import Ingest
from relay_worker.camera.webrtc_source import IngestEvent, IngestSettings, WebRtcSource
from relay_worker.media.stream import Format, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.publish.outputs import Outputs
from relay_worker.webrtc.incoming import MAX_READS
from tests.fuzz.data_paths import Connection, Difference, Loopback, _same, look_on, remembered
from tests.fuzz.datagram_streams import OPUS_CLOCK, OPUS_TYPE, RTX_TYPE, VIDEO_TYPE, DatagramStream

_VIDEO: Final = Track(Kind.VIDEO, Format(VIDEO_TYPE, "H264", 90_000), "", ordered=False)
_SOUND: Final = Track(Kind.AUDIO, Format(OPUS_TYPE, "OPUS", OPUS_CLOCK), "", ordered=False)
_OTHER_TYPES: Final = (97, 98)
"""Further payload types of the video's: of an answer that names several."""
_ONE_WAKE: Final = 29_000
"""Octets of packets that compiled code reads in one wake, with room for the frames around them."""
_LARGEST: Final = 1500
"""Octets of the largest packet that is decrypted."""
whole = 0
"""Wakes that compiled code took whole, or in, in all comparisons so far."""


class _Peer:
    """Stands for the camera's transport: keeps what would be sent, and of which streams it was told."""

    def __init__(self) -> None:
        self.protector = SimpleNamespace(protect_rtcp=bytes)
        self.path = self.media = self
        self.sent: list[bytes] = []
        self.streams: dict[tuple[int, int], int] = {}
        self.arriving: _Arriving | None = None

    def send(self, packets: Sequence[memoryview]) -> None:
        self.sent += map(bytes, packets)

    def listen(self, *listeners: object) -> None:
        if self.arriving is not None:
            self.arriving.arrivals.listen(*listeners)

    def know(self, streams: list[tuple[int, int, int]]) -> None:
        if self.arriving is not None:
            self.arriving.datagrams.know(streams)
        self.streams = {(ssrc, payload_type): channel for ssrc, payload_type, channel in streams}

    def framed(self, packet: bytes) -> bytes:
        """A packet as `native.Datagrams.read` frames it."""
        stream = int.from_bytes(packet[8:12], "big"), packet[1] & 0x7F if len(packet) > 1 else 0
        channel = self.streams.get(stream, 255) if len(packet) >= 12 else 255
        return b"$" + bytes((channel,)) + len(packet).to_bytes(2, "big") + packet


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
def _as_it_is(context: int, packet: int, length: int) -> int:
    """Stands for libsrtp's function: packets are decrypted already."""
    return 0


class _Arriving:
    """A socket on loopback, read by compiled code as the event loop has it read: sound is heard without the Python."""

    def __init__(self, compiled: native.Compiled, clock: ManualClock, path: DatagramPath) -> None:
        self._near, self._far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._near.bind(("127.0.0.1", 0))
        self._near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._far.connect(self._near.getsockname())
        address = ctypes.cast(_as_it_is, ctypes.c_void_p).value or 0
        self.datagrams = compiled.Datagrams(self._near, address, 1, None, MAX_READS)
        self.arrivals = compiled.Arrivals(self.datagrams, native.ArrivalCalls(clock.now, path.came, path.left))

    def take(self, packets: Sequence[bytes]) -> bool:
        """Have it read these, where one wake reads so many; False where it does not, and nothing has happened."""
        if len(packets) > MAX_READS or sum(map(len, packets)) > _ONE_WAKE or not all(map(_is_rtp, packets)):
            return False
        for packet in packets:
            self._far.send(packet)
        self.arrivals.read()
        return True

    def close(self) -> None:
        self._near.close()
        self._far.close()


class DatagramPath:
    """A worker's way from decrypted packets to encrypted ones, by one of the two."""

    def __init__(self, setting: native.Setting, came: DatagramStream) -> None:
        native.choose(setting)
        self._wide = setting == "compiled" and came.stream.wide
        self._clock = clock = ManualClock(1000.0)
        self.pipeline = Pipeline()
        if came.stream.repeats:
            self.pipeline.repeat_parameter_sets()
        if came.stream.watched:
            look_on(self.pipeline)
        outputs = Outputs(self.pipeline)
        self.connections = [Connection(came.stream, clock, number) for number in range(len(came.stream.extensions))]
        types = dict.fromkeys((VIDEO_TYPE, *_OTHER_TYPES), _VIDEO) | {OPUS_TYPE: _SOUND}
        answer: Any = IngestAnswer(None, (_VIDEO, _SOUND), types, {RTX_TYPE: VIDEO_TYPE}, came.nack)  # type: ignore[arg-type]
        self.peer = _Peer()
        self.source = WebRtcSource(self.pipeline, clock, IngestSettings(loopback=True))
        self.source._transport = self.peer  # type: ignore[assignment]
        if self._wide:
            compiled = native.compiled()
            assert compiled is not None
            self.peer.arriving = _Arriving(compiled, clock, self)
        for event in (IngestEvent.GATHERED, IngestEvent.ANSWERED, IngestEvent.CONNECTED):
            self.source._machine.fire(event)
        self.source.answer = answer
        self.source.ingest = Ingest(answer, 7, self.pipeline.receiver_report)
        self.source._take_over(1000.0)
        for connection in self.connections:
            outputs.attach(connection, connection, came.stream.most, 1000.0)

    def receive(self, packets: list[bytes], now: float) -> None:
        """What one wake brought, as `Incoming` hands it over."""
        self._clock._now = now
        rest = packets
        if self._wide and packets and not _is_rtcp(packets[0]):
            count = next((at for at, packet in enumerate(packets) if _is_rtcp(packet)), len(packets))
            rest = packets[count:]
            arriving = self.peer.arriving
            if rest or arriving is None or not arriving.take(packets):
                self.source._came(b"".join(map(self.peer.framed, packets[:count])), now, bool(rest))
        for packet in rest:
            self.source._received(packet, _is_rtcp(packet), now)
        if rest:
            self.source._woken(now)
        for connection in self.connections:
            connection._pump(now)

    def came(self, frames: bytes, now: float, error: Exception | None) -> None:
        """Frames that compiled code has read and leaves to the Python."""
        self.source._came(frames, now, False, error)

    def left(self, found: tuple[bytes, int, bytes, bytes], now: float) -> None:
        """What is no RTP alone: only such is given to be read."""
        raise Difference(f"read as something else: {found[1:]}")

    def disturb(self, number: int, came: DatagramStream, now: float) -> None:
        """What happens to a camera's parts while it plays, now and then."""
        which = number % 40
        if which == 11:
            self.pipeline.fit(came.stream.most - 1)
        elif which == 17:
            self.source.request_keyframe()
        elif which == 23:
            self.pipeline.rebuild(Kind.VIDEO)
        elif which == 27:
            self.pipeline.rebuild(Kind.AUDIO)
        elif which == 31:
            self.pipeline.resync()
        elif which == 37:
            self.source.check(now)
        elif which in (5, 9):
            look_on(self.pipeline)

    def take(self) -> list[list[bytes]]:
        """The packets that have left, of each connection, and to the camera."""
        sent, self.peer.sent = self.peer.sent, []
        return [*(connection.udp.take() for connection in self.connections), sent]

    def state(self) -> object:
        """All that the parts remember, but for which of the two they use."""
        source = self.source
        assert source.ingest is not None
        source._tell(source.ingest)
        alive = [source._alive_at, source._video_timeout, source.state.value]
        return remembered((self.pipeline, self.connections, source.ingest, source._batches, alive), set())

    def close(self) -> None:
        for connection in self.connections:
            if isinstance(connection.udp, Loopback):
                connection.udp.close()
        if self.peer.arriving is not None:
            self.peer.arriving.close()


def _is_rtp(packet: bytes) -> bool:
    return 1 < len(packet) <= _LARGEST and 128 <= packet[0] <= 191 and not _is_rtcp(packet)


def _is_rtcp(packet: bytes) -> bool:
    return len(packet) > 1 and 192 <= packet[1] <= 223


def compare(seed: int) -> int:
    """The stream of this seed through both; the number of its packets. Raises Difference, with the seed."""
    global whole
    came = DatagramStream(seed)
    reference, compiled = (DatagramPath(setting, came) for setting in ("python", "compiled"))
    try:
        for number, (now, packets) in enumerate(came.wakes):
            for each in (reference, compiled):
                each.receive(packets, now)
                if not came.stream.even:
                    each.disturb(number, came, now)
            _same(f"datagrams {seed}, wake {number}: packets", reference.take(), compiled.take())
            if number % 50 == 49:
                _same(f"datagrams {seed}, wake {number}", reference.state(), compiled.state())
        _same(f"datagrams {seed}, at the end", reference.state(), compiled.state())
    finally:
        for each in (reference, compiled):
            each.close()
    whole += compiled.pipeline.taken_whole + compiled.pipeline.taken_in
    return came.packets
