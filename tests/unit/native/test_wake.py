"""A whole wake with one call: what is taken, what is left to the Python, and what becomes of it when something fails.

That both give the same, to the last bit, is for `tests/fuzz/data_paths.py`, whose parts are used here.
"""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from relay_worker import native, wakes
from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import Kind
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.history import SentRun
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.simulcast import LayerIds
from relay_worker.rtsp.states import RtspState
from relay_worker.webrtc.gso import UdpPath
from tests.fuzz.camera_streams import PPS, SPS
from tests.fuzz.data_paths import TRACK, Connection, DataPath, Loopback

INTERVAL = 1 / 30
SO_NO_CHECK = 11
"""asm-generic/socket.h"""
BOTH = HeaderExtensions(2, 3)

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())


class Terms:
    """Of a camera's way; see `camera_streams.Stream`."""

    most, first_number, base, limited, wide, repeats, watched = 1200, 65533, 7, False, True, False, False

    def __init__(self, outputs: int = 1, *, udp: bool = True, extensions: HeaderExtensions = BOTH) -> None:
        self.udp, self.extensions = udp, [extensions] * outputs


class Camera:
    """A camera whose pictures are even, and the way of its packets."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.way = DataPath("compiled", terms or Terms())  # type: ignore[arg-type]
        self.now, self.timestamp, self.sequence = 1000.0, 90_000, 100
        self.done: list[int] = []
        for payloads in ([SPS, PPS, *self.slices(5, 3)], *(self.slices(1, 3) for _ in range(3))):
            self.wake(payloads)
        self.sent()

    def slices(self, kind: int, count: int, size: int = 1000) -> list[bytes]:
        """The fragments of a picture."""
        bits = [0x80 * (each == 0) | 0x40 * (each == count - 1) | kind for each in range(count)]
        return [bytes((0x7C, each)) + b"\x88" + bytes(range(1, 201)) * (size // 200) for each in bits]

    def framed(self, payloads: list[bytes]) -> bytes:
        data = b""
        for index, payload in enumerate(payloads):
            second = 96 | 0x80 * (index == len(payloads) - 1)
            packet = struct.pack("!BBHII", 0x80, second, self.sequence, self.timestamp, 9) + payload
            data += b"$\x00" + len(packet).to_bytes(2, "big") + packet
            self.sequence = (self.sequence + 1) & 0xFFFF
        return data

    def wake(self, payloads: list[bytes], before: bytes = b"", behind: bytes = b"") -> int:
        """A picture arrives; whether it was taken whole."""
        self.now += INTERVAL
        self.timestamp = (self.timestamp + 3000) & 0xFFFFFFFF
        whole = self.way.pipeline.taken_whole
        self.way.receive(before + self.framed(payloads) + behind, self.now)
        return self.way.pipeline.taken_whole - whole

    def sent(self, number: int = 0) -> list[bytes]:
        """The media that has left by one connection."""
        return [packet for packet in self.way.connections[number].udp.take() if not 192 <= packet[1] <= 223]


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.way.close()
    native.choose("python")


def test_an_even_camera_is_taken_whole_and_everything_else_is_not(camera: Camera) -> None:
    plain = [camera.wake(camera.slices(1, 3)) for _ in range(25)]
    assert len(camera.sent()) == 75
    assert sum(plain) >= 24, "all but one in which a second of the reports begins"
    assert camera.wake([SPS, b"\x68\x5c\x80\x80", *camera.slices(5, 3)]) == 0, "for a set that is new"
    assert len(camera.sent()) == 5, "as they came, by the Python"
    camera.sequence += 1
    assert camera.wake(camera.slices(1, 3)) == 0
    assert camera.sent() == [], "behind the loss"


@pytest.mark.parametrize("change", ["capture", "tap", "viewers", "rendition", "own capture"])
def test_who_begins_to_look_on_sees_the_next_picture(camera: Camera, change: str) -> None:
    pipeline, took = camera.way.pipeline, []
    assert camera.wake(camera.slices(1, 3)) == 1
    camera.sent()
    if change == "capture":
        pipeline.capture = lambda batches, now: took.append(len(batches))
    elif change == "own capture":
        camera.way.connections[0].capture = lambda *what: took.append(1)
    elif change == "tap":
        pipeline.tap = lambda frame: took.append(1)
    else:
        setattr(pipeline, change, Viewers(took))
    assert camera.wake(camera.slices(1, 3)) == 0
    assert (took, len(camera.sent())) == ([1], 3)


@pytest.mark.parametrize("change", ["filling", "not connected", "state", "layer"])
def test_what_changes_is_noticed(camera: Camera, change: str) -> None:
    pipeline, connection = camera.way.pipeline, camera.way.connections[0]
    assert camera.wake(camera.slices(1, 3)) == 1
    camera.sent()
    if change == "filling":
        pipeline.filling = True
    elif change == "not connected":
        connection.connected = False
    elif change == "state":
        camera.way._session.state = RtspState.TEARDOWN
    else:
        connection.track.extensions = LayerIds(4, 5, 6).media(BOTH, "0", "h")
    assert camera.wake(camera.slices(1, 3)) == 0
    assert len(camera.sent()) == 3 * (change != "not connected")
    assert pipeline.filling is False, "by the first live frame"


class Viewers:
    """Stands for viewers that the worker answers itself, or a maker of small pictures."""

    def __init__(self, took: list[int]) -> None:
        self._took = took

    def send(self, frame: object, now: float) -> None:
        self._took.append(1)


def test_an_output_that_joins_or_leaves_is_noticed(camera: Camera) -> None:
    way = camera.way
    outputs: Any = way.pipeline.output
    assert camera.wake(camera.slices(1, 3)) == 1
    second = Connection(Terms(), way._clock, 0)  # type: ignore[arg-type]
    joined = Outputs(way.pipeline)
    joined.attach(outputs, outputs, 1200, camera.now)
    joined.attach(second, second, 1200, camera.now)
    way.connections.append(second)
    assert camera.wake([SPS, PPS, *camera.slices(5, 3)]) == 0, "the new one begins with it"
    assert (len(camera.sent()), len(camera.sent(1))) == (3 + 4, 4)
    assert sum(camera.wake(camera.slices(1, 3)) for _ in range(5)) >= 4
    assert (len(camera.sent()), len(camera.sent(1))) == (15, 15)
    joined.detach(outputs)
    camera.wake(camera.slices(1, 3))
    assert (len(camera.sent()), len(camera.sent(1))) == (0, 3)


def test_a_socket_that_refuses_costs_what_it_costs_in_python(camera: Camera) -> None:
    connection = camera.way.connections[0]
    assert isinstance(connection.udp, Loopback)
    sequence, near = connection.track.sequence, connection.udp._sock
    connection.udp._sock = refusing = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    refusing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # takes no IPv4 address
    assert camera.wake(camera.slices(1, 3)) == 1
    assert connection.udp.drops == 3
    assert connection.track.sequence == (sequence + 3) & 0xFFFF
    refusing.close()
    assert camera.wake(camera.slices(1, 3)) == 1, "a closed one is as good as one that refuses"
    assert connection.udp.drops == 6
    connection.udp._sock = near
    assert camera.wake(camera.slices(1, 3)) == 1
    assert len(camera.sent()) == 3


def test_where_segmentation_is_refused_packets_leave_one_by_one(camera: Camera) -> None:
    connection = camera.way.connections[0]
    assert isinstance(connection.udp, UdpPath)
    connection.udp._sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # the kernel segments nothing without checksums
    assert camera.wake(camera.slices(1, 3)) == 1
    assert (connection.udp.gso, connection.udp.gso_refusals, connection.udp.drops) == (False, 1, 0)
    assert len(camera.sent()) == 3
    assert camera.wake(camera.slices(1, 3)) == 1
    assert len(camera.sent()) == 3


def test_no_number_is_used_twice_whatever_fails(camera: Camera) -> None:
    """SRTP's nonce is made of it: two packets with one number would give the key away."""
    connection = camera.way.connections[0]
    history: Any = connection.track.history
    before = connection.track.sequence

    class Full(deque[Any]):
        def append(self, run: object) -> None:
            raise MemoryError

    runs, history._runs = history._runs, Full(history._runs)
    with pytest.raises(MemoryError):
        camera.wake(camera.slices(1, 3))
    assert connection.track.sequence == (before + 3) & 0xFFFF
    assert len(camera.sent()) == 3
    history._runs = runs
    assert camera.wake(camera.slices(1, 3)) == 1
    assert len({packet[2:4] for packet in camera.sent()}) == 3
    assert connection.track.sequence == (before + 6) & 0xFFFF


def test_what_was_sent_is_kept_for_repairs(camera: Camera) -> None:
    connection = camera.way.connections[0]
    pictures = [camera.slices(1, 3), camera.slices(1, 2, 600)]
    for payloads in pictures:
        assert camera.wake(payloads) == 1
    history = connection.track.history
    assert history is not None
    sent = [packet for payloads in pictures for packet in payloads]
    for back, payload in enumerate(reversed(sent), 1):
        packet = history.get((connection.track.sequence - back) & 0xFFFF)
        assert packet is not None
        assert (packet.payload, packet.marker) == (payload, back in (1, 3))
    run = history._runs[-1].packets
    assert (len(run), list(run)) == (2, [(pictures[1][0], False), (pictures[1][1], True)])
    with pytest.raises(IndexError):
        run[2]


def test_a_history_forgets_what_is_old_and_what_is_too_much(camera: Camera) -> None:
    kept = camera.way.connections[0].track.history
    assert kept is not None
    kept._seconds = 4.5 * INTERVAL
    for _ in range(6):
        assert camera.wake(camera.slices(1, 3)) == 1
    assert (len(kept._runs), kept.evicted_early) == (5, 0)
    assert [run.sent for run in kept._runs] == pytest.approx([camera.now - (4 - each) * INTERVAL for each in range(5)])
    assert kept.bytes == sum(run.size for run in kept._runs) == 5 * sum(map(len, camera.slices(1, 3)))
    first = kept._runs[0]
    assert kept.resend(first.sequence, camera.now, 0.1)
    assert camera.wake(camera.slices(1, 3)) == 1
    assert kept._resent == {}, "what has gone cannot have been sent again"
    one = sum(map(len, camera.slices(1, 3)))
    kept._max_bytes = 5 * one
    assert camera.wake(camera.slices(1, 3)) == 1
    assert (len(kept._runs), kept.evicted_early) == (5, 0), "all that may be kept"
    kept._max_bytes = 5 * one - 1
    assert camera.wake(camera.slices(1, 3)) == 1
    assert (len(kept._runs), kept.evicted_early, kept.bytes) == (4, 3, 4 * one)


def test_a_history_that_the_python_has_begun_goes_on(camera: Camera) -> None:
    """Runs that are not plain are the Python's own: each forgets those of the other."""
    kept = camera.way.connections[0].track.history
    assert kept is not None
    kept.append(SentRun(camera.now, 1, 0, 0, ((b"a payload", True),), 9, 0))
    assert {type(run).__name__ for run in kept._runs} == {"Kept", "SentRun"}
    camera.now += 3.0
    camera.wake(camera.slices(1, 3))
    assert len(kept._runs) == 1
    assert kept.bytes == kept._runs[0].size


def test_its_parts_are_let_go() -> None:
    camera = Camera(Terms(2, udp=False))
    camera.wake([SPS, PPS, *camera.slices(5, 3)])  # with which the second begins
    assert camera.wake(camera.slices(1, 3)) == 1
    pipeline, kept = weakref.ref(camera.way.pipeline), weakref.ref(camera.way.connections[1])
    del camera
    gc.collect()
    assert (pipeline(), kept()) == (None, None)
    native.choose("python")


def test_parts_of_which_none_can_be_made(camera: Camera) -> None:
    compiled, pipeline = native.compiled(), camera.way.pipeline
    assert compiled is not None
    made = camera.way.connections[0].wake_parts()
    assert made is not None
    (parts,), _ = made
    video = pipeline.inputs[Kind.VIDEO]
    session = camera.way._session
    assert isinstance(video, VideoInput)
    given = native.InputParts(
        *(session, session.parser, pipeline, video, video.receiver, pipeline.timeline.state(Kind.VIDEO)),
        passthrough=video.passthrough,
    )
    assert compiled.Wake((), given, (parts,), Kind.VIDEO, 0, 1).take(b"$\0\0\0", 1.0) == 0, "no packet"
    assert compiled.Wake((), given, (parts,), Kind.VIDEO, 0, 1).hear(b"$\0\0\0", 1.0) == 0, "no units"
    deaf = given._replace(passthrough=None)
    assert compiled.Wake((), deaf, (parts,), Kind.VIDEO, 0, 1).take(b"$\0\0\0", 1.0) == 0, "no pictures"
    for guards, inputs, outputs, error in (
        ((), given, (parts,) * 9, ValueError),
        ((), given[1:], (parts,), ValueError),
        *(((), given._replace(**{name: session}), (parts,), ValueError) for name in given._fields[1:]),
        *(((), given._replace(**{name: None}), (parts,), ValueError) for name in given._fields[:6]),
        *(((), given, (parts._replace(**{name: session}),), ValueError) for name in parts._fields[:15]),
        ((), given, (parts._replace(pacer=None),), ValueError),
        ((), given, (parts._replace(sender=None),), ValueError),
        (((1, "x"),), given, (parts,), ValueError),
        ((), given, (parts[1:],), ValueError),
        ((), given, (parts._replace(slots=None),), ValueError),
        ((), given, (parts._replace(number_id=15),), ValueError),
        ((), given, (parts._replace(sent_at=bytearray(8 * 4096)),), ValueError),
        ((), given, (parts._replace(sent_size=b""),), BufferError),
        ([], given, (parts,), TypeError),
    ):
        with pytest.raises(error):
            compiled.Wake(guards, inputs, outputs, Kind.VIDEO, 0, 1)  # type: ignore[arg-type]
    wake = wakes.prepare(compiled, camera.way._feed, pipeline, video)  # type: ignore[arg-type]
    assert wake is not None
    for arguments in ((), (b"",), (bytearray(), 1.0), (b"", 1)):
        with pytest.raises(TypeError):
            wake.take(*arguments)
    assert pipeline._by_track[TRACK] is video
