"""Opus that is passed on within the call that reads it: each condition of `hearing.c`, against the Python."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from relay_worker import native
from relay_worker.media.stream import Kind
from tests.fuzz.camera_streams import PPS, SPS, Stream
from tests.fuzz.data_paths import _same
from tests.fuzz.datagram_paths import DatagramPath
from tests.fuzz.datagram_streams import OPUS_TYPE, VIDEO_TYPE

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())
TICKS = 960
"""Of 20 ms."""


class Both:
    """One camera through both paths. `say` sends an Opus packet that follows the one before it."""

    def __init__(self) -> None:
        stream: Any = SimpleNamespace(**vars(Stream(0)))
        stream.wide, stream.udp, stream.extensions, stream.repeats = True, True, stream.extensions[:1], False
        came: Any = SimpleNamespace(stream=stream, nack=True)
        self.python, self.compiled = (DatagramPath(setting, came) for setting in ("python", "compiled"))
        self.now, self.sequence, self.timestamp = 1000.0, 65_500, 2**32 - 3 * TICKS
        for path in (self.python, self.compiled):
            for number, nal in enumerate((SPS, PPS, b"\x65\x88" + bytes(40))):  # without video no sound is heard
                header = struct.pack("!BBHII", 0x80, 128 * (number == 2) | VIDEO_TYPE, number, 3000, 5)
                path.receive([header + nal], self.now)
        for _ in range(3):
            self.say(b"\x78abc")

    def say(self, payload: bytes, ticks: int = TICKS, *, pause: float = 0.02, **odd: int) -> bool:
        """Whether compiled code took it; raises Difference where the two do not agree."""
        self.now += pause
        first, second = odd.get("first", 0x80), odd.get("second", OPUS_TYPE)
        before = self.compiled.pipeline.taken_whole
        for path in (self.python, self.compiled):
            path.receive([self.packet(payload, first, second)], self.now)
        _same("packets", self.python.take(), self.compiled.take())
        _same("state", self.python.state(), self.compiled.state())
        self.sequence, self.timestamp = self.sequence + 1, self.timestamp + ticks
        return self.compiled.pipeline.taken_whole > before

    def packet(self, payload: bytes, first: int = 0x80, second: int = OPUS_TYPE) -> bytes:
        """The next one."""
        return struct.pack("!BBHII", first, second, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, 9) + payload

    def hear(self, payload: bytes, behind: bytes = b"") -> object:
        """What compiled code says of the next packet, and of a frame's beginning behind it, with nothing around it."""
        ear = self.compiled.pipeline._ear
        assert ear is not None
        return ear.hear(self.compiled.peer.framed(self.packet(payload)) + behind, self.now + 0.02)

    @property
    def audio(self) -> list[Any]:
        return [path.pipeline.inputs[Kind.AUDIO] for path in (self.python, self.compiled)]

    def close(self) -> None:
        self.python.close()
        self.compiled.close()


@pytest.fixture
def both() -> Iterator[Both]:
    before = native.compiled()
    made = Both()
    yield made
    made.close()
    native.choose("compiled" if before else "python")


def put(both: Both, **state: object) -> None:
    for audio in both.audio:
        for name, value in state.items():
            setattr(audio, name, value)


def durations() -> Iterator[tuple[bytes, int]]:
    """A packet of every configuration and number of frames, and how many ticks it lasts (RFC 6716 §3.1, §3.2)."""
    sizes = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4
    for toc in range(256):
        frame = sizes[toc >> 3]
        if toc & 3 < 3:
            yield bytes((toc, 1, 2, 3)), frame * (1, 2, 2)[toc & 3]
            continue
        for count in (1, 2, 5, 48, 63):
            if frame * count <= 5760:
                yield bytes((toc, count | 0x80, 1, 2)), frame * count


def test_packets_of_every_duration_are_passed(both: Both) -> None:
    taken = 0
    for payload, ticks in durations():
        put(both, _check_at=both.now + 1.0)
        taken += both.say(payload, ticks)
        (_, compiled) = both.audio
        assert compiled._expected == both.timestamp & 0xFFFFFFFF, payload.hex()
    assert taken == len(list(durations())) - 1, "each follows on, but for the one whose sequence number wraps"


@pytest.mark.parametrize("payload", [b"", b"\x03", b"\x7b\x00\x01", b"\x7b\x07\x01" * 2, b"\x1b\x02a", b"\xff\x3f"])
def test_packets_that_last_nothing_or_too_long(both: Both, payload: bytes) -> None:
    put(both, _check_at=both.now + 1.0)
    before = both.audio[1].frames
    taken = both.say(payload, 0)
    lasts = payload in (b"\x7b\x07\x01" * 2, b"\x1b\x02a", b"\xff\x3f")
    assert taken is (both.audio[1].frames > before)
    assert both.audio[0].unusable == (0 if lasts and taken else bool(payload))


@pytest.mark.parametrize(("size", "taken"), [(1, True), (1399, True), (1400, True), (1401, False)])
def test_the_largest_payload(both: Both, size: int, taken: bool) -> None:
    put(both, _check_at=both.now + 1.0)
    assert both.say(b"\x78" + bytes(size - 1)) is taken


@pytest.mark.parametrize("payload", [b"\x83", b"\x82", b"\x83\x05", b"\x83\x30", b"\x83\x31"])
def test_the_shortest_packets(both: Both, payload: bytes) -> None:
    """The number of frames is the second octet's, and none where there is no second."""
    put(both, _check_at=both.now + 1.0)
    count = 2 if payload == b"\x82" else int.from_bytes(payload[1:])
    ticks = 120 * count if count <= 48 else 0
    assert both.say(payload, ticks) is bool(ticks)
    if ticks:
        assert both.audio[1]._expected == both.timestamp & 0xFFFFFFFF


def test_what_comes_behind_a_packet_is_no_part_of_it(both: Both) -> None:
    """`$`, which would be 36 frames."""
    put(both, _check_at=both.now + 1.0)
    assert both.hear(b"\x83", b"$") == native.NOT_PLAIN
    assert both.hear(b"\x83\x24", b"$") == native.DONE


def test_an_output_that_fails(both: Both) -> None:
    """It is said, and no Python sends the packet again."""

    def say(now: float) -> None:
        raise KeyError(now)

    put(both, _check_at=both.now + 1.0)
    for connection in both.compiled.connections:
        connection._sender._say_what_is_due = say  # type: ignore[method-assign]
        connection._sender._next_report = 0.0
    with pytest.raises(KeyError):
        both.hear(b"\x78abc")


def test_the_clocks_are_compared_when_it_is_time(both: Both) -> None:
    at = both.now + 0.02
    put(both, _check_at=at)
    assert not both.say(b"\x78abc")
    put(both, _check_at=both.now + 0.02 + 1e-6)
    assert both.say(b"\x78abc")


@pytest.mark.parametrize(
    "state", [{"_position": None}, {"_expected": 7}, {"_ssrc": 8}], ids=["no place yet", "a pause", "another source"]
)
def test_what_does_not_follow_on_is_the_pythons(both: Both, state: dict[str, object]) -> None:
    put(both, _check_at=both.now + 1.0, **state)
    assert not both.say(b"\x78abc")


@pytest.mark.parametrize("odd", [{"first": 0x90}, {"first": 0xA0}, {"second": 0x80 | OPUS_TYPE}, {"second": 110}])
def test_odd_headers(both: Both, odd: dict[str, int]) -> None:
    put(both, _check_at=both.now + 1.0)
    assert both.say(b"\x78abc\x01", **odd) is (odd == {"second": 0x80 | OPUS_TYPE})


def test_without_an_output_that_takes_it_at_once_the_python_sends(both: Both) -> None:
    for path in (both.python, both.compiled):
        for connection in path.connections:
            connection.connected = False
    put(both, _check_at=both.now + 1.0)
    assert both.say(b"\x78abc"), "taken in, and given to the pipeline"


def test_two_packets_in_one_wake_are_the_pythons(both: Both) -> None:
    put(both, _check_at=both.now + 1.0)
    before = both.compiled.pipeline.taken_whole
    packets = [
        struct.pack("!BBHII", 0x80, OPUS_TYPE, (both.sequence + n) & 0xFFFF, both.timestamp + n * TICKS & 0xFFFFFFFF, 9)
        + b"\x78abc"
        for n in range(2)
    ]
    for path in (both.python, both.compiled):
        path.receive(list(packets), both.now + 0.02)
    _same("packets", both.python.take(), both.compiled.take())
    _same("state", both.python.state(), both.compiled.state())
    assert both.compiled.pipeline.taken_whole == before
