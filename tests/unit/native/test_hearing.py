"""Sound that compiled code hears, from bytes to an access unit and its time, and what it leaves to the Python."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.media.inputs import AudioInput
from relay_worker.media.opus import OpusTranscoder
from relay_worker.media.stream import Feed, Format, Kind, Track
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.states import RtspState
from tests.fuzz import data_paths
from tests.fuzz.sound_streams import HBR, RATE, UNITS, framed, hbr
from tests.unit.native.test_pictures import SLICE, Pair, closing
from tests.unit.native.test_wake import Terms

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

FRAME: Final = 1024
VIDEO_PACKET: Final = framed(0, struct.pack("!BBHII", 0x80, 0xE0, 7, 9, 9) + SLICE)


class Listener:
    """One camera's sound through both paths, three units of which were heard."""

    def __init__(self, pair: Pair, heard: list[int]) -> None:
        self.pair, self._heard = pair, heard
        self.sequence, self.timestamp = 65, 700_000
        for number in range(3):
            self.hear(hbr(UNITS[number]))

    @property
    def inputs(self) -> list[Any]:
        return [way.pipeline.inputs[Kind.AUDIO] for way in self.pair.both]

    def packet(self, payload: bytes, *, first: int = 0x80, second: int = 97 | 0x80, ssrc: int = 5) -> bytes:
        """The next one, in its frame."""
        header = struct.pack("!BBHII", first, second, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, ssrc)
        self.sequence += 1
        self.timestamp += FRAME
        return framed(2, header + payload)

    def hear(self, payload: bytes, **header: int) -> bool:
        """A wake with this packet alone; whether compiled code heard it."""
        return self.receive(self.packet(payload, **header))

    def receive(self, data: bytes) -> bool:
        pair = self.pair
        pair.now += FRAME / RATE
        del self._heard[:]
        for way in pair.both:
            way.receive(data, pair.now)
        reference, compiled = ({"packets": way.take(), "state": way.state()} for way in pair.both)
        data_paths._same("sound", reference, compiled)
        return native.DONE in self._heard


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    heard: list[int] = []
    hear = Pipeline._hear

    def noted(self: Pipeline, *arguments: Any) -> int:
        heard.append(hear(self, *arguments))
        return heard[-1]

    monkeypatch.setattr(Pipeline, "_hear", noted)
    for pair in closing(Pair()):
        yield Listener(pair, heard)


def test_units_that_come_alone_are_heard_and_are_sent(listener: Listener) -> None:
    for track_input in listener.inputs:
        track_input._transcoder = OpusTranscoder("aac", bytes.fromhex(HBR["config"]))
    sent = listener.pair.both[1].connections[0]._audio
    assert sent is not None
    before = sent.stats.packets
    # That another takes its place, and then has an encoder, is noticed by the wake that brings the next unit.
    assert [listener.hear(hbr(unit)) for unit in UNITS[3:23]] == [False] + [True] * 19
    assert sent.stats.packets == before + 64, "20 units of 64 ms are 64 packets of 20 ms"
    assert listener.inputs[1].receiver.packets == 23


@pytest.mark.parametrize(
    "payload",
    [
        hbr(b"\x21"),
        hbr(UNITS[0]) + b"\x00",
        hbr(bytes(1) * 31),
        hbr(bytes(1) * 32),
        hbr(bytes(1) * 8191)[: 4 + 8191],
        hbr(bytes(range(256)) * 2),
    ],
    ids=["an octet", "more behind it", "31 octets", "32 octets", "the longest", "no AAC"],
)
def test_units_of_any_size_are_heard(listener: Listener, payload: bytes) -> None:
    assert listener.hear(payload)
    assert listener.hear(hbr(UNITS[4]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        hbr(UNITS[0])[:3],
        hbr(UNITS[0])[:4],
        hbr(b""),
        hbr(b"") + b"\x21",
        hbr(UNITS[0])[:-1],
        hbr(UNITS[0], UNITS[1]),
        b"\x00\x0f" + hbr(UNITS[0])[2:],
        b"\x01\x10" + hbr(UNITS[0])[2:],
        hbr(UNITS[0])[:3] + bytes((hbr(UNITS[0])[3] | 1,)) + UNITS[0],
        hbr(UNITS[0])[:3] + bytes((hbr(UNITS[0])[3] | 4,)) + UNITS[0],
    ],
    ids=[
        *("nothing", "half a header", "a header alone", "no unit", "no unit, and something", "a part of a unit"),
        *("two units", "a header of 15 bits", "a header of 272 bits", "an index of 1", "an index of 4"),
    ],
)
def test_other_payloads_are_left_to_the_python(listener: Listener, payload: bytes) -> None:
    assert not listener.hear(payload)
    listener.hear(hbr(UNITS[4]))
    assert listener.hear(hbr(UNITS[5]))


@pytest.mark.parametrize(
    "header",
    [{"first": 0x90}, {"first": 0xA0}, {"first": 0x81}, {"second": 96}, {"ssrc": 6}],
    ids=["extension", "padding", "CSRC", "another payload type", "another source"],
)
def test_other_packets_are_left_to_the_python(listener: Listener, header: dict[str, int]) -> None:
    assert not listener.hear(hbr(UNITS[0]), **header)
    listener.hear(hbr(UNITS[3]))
    assert listener.hear(hbr(UNITS[4]), second=97), "a mark says nothing here"


def test_loss_and_repeats_are_left_to_the_python(listener: Listener) -> None:
    listener.sequence += 1
    assert not listener.hear(hbr(UNITS[3]))
    assert listener.hear(hbr(UNITS[4]))
    listener.sequence -= 1
    assert not listener.hear(hbr(UNITS[4]))
    assert listener.hear(hbr(UNITS[5]))


def test_a_timestamp_that_stands_still_or_jumps(listener: Listener) -> None:
    listener.timestamp -= FRAME
    assert not listener.hear(hbr(UNITS[3]))
    listener.timestamp += 3 * RATE
    assert not listener.hear(hbr(UNITS[4])), "a mapping is started anew"
    assert listener.hear(hbr(UNITS[5]))


OTHERS: Final[dict[str, Callable[[Listener, bytes], bytes]]] = {
    "two packets": lambda listener, packet: packet + listener.packet(hbr(UNITS[4])),
    "video before it": lambda listener, packet: VIDEO_PACKET + packet,
    "video behind it": lambda listener, packet: packet + VIDEO_PACKET,
    "RTCP": lambda listener, packet: packet + framed(3, b"\x80\xc9\x00\x01" + bytes(4)),
    "a message": lambda listener, packet: b"RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\n" + packet,
    "a channel of nobody": lambda listener, packet: packet + framed(9, b"hi"),
    "half a packet": lambda listener, packet: packet[:9],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_came_with_it_is_left_to_the_python(listener: Listener, name: str) -> None:
    if name == "RTCP" or name.startswith("video"):
        listener.pair.sequence = 8
    data = OTHERS[name](listener, listener.packet(hbr(UNITS[3])))
    assert not listener.receive(data)


def test_a_packet_in_two_wakes_is_heard_with_the_second(listener: Listener) -> None:
    packet = listener.packet(hbr(UNITS[3]))
    assert not listener.receive(packet[:20])
    rest = listener.packet(hbr(UNITS[4]))
    assert listener.receive(packet[20:] + rest[:7])
    assert listener.receive(rest[7:])


@pytest.mark.parametrize(
    "name", ["video before it", "video behind it", "a part of what follows", "two packets", "RTCP"]
)
def test_sound_that_comes_with_a_picture_is_heard_without_the_python(listener: Listener, name: str) -> None:
    pair, packet = listener.pair, listener.packet(hbr(UNITS[3]))
    picture = pair.framed([SLICE])
    data = {
        "video before it": picture + packet,
        "video behind it": packet + picture,
        "a part of what follows": picture + packet + b"$\x00\x00",
        "two packets": picture + packet + listener.packet(hbr(UNITS[4])),
        "RTCP": picture + packet + framed(3, b"\x80\xc9\x00\x01" + bytes(4)),
    }[name]
    pipeline = pair.both[1].pipeline
    before = pipeline.taken_whole + pipeline.taken_in
    assert not listener.receive(data), "the Python was asked"
    assert pipeline.taken_whole + pipeline.taken_in - before == (2 if name.startswith("video") else 1)


def test_sound_that_comes_with_a_picture_goes_on_to_the_python_where_nothing_follows_on(listener: Listener) -> None:
    units = [listener.pair.framed([SLICE]) + listener.packet(hbr(UNITS[3]))]
    listener.timestamp += FRAME  # a unit is missing
    units.append(listener.pair.framed([SLICE]) + listener.packet(hbr(UNITS[4])))
    pipeline = listener.pair.both[1].pipeline
    before = pipeline.taken_whole + pipeline.taken_in
    assert [listener.receive(data) for data in units] == [False, False], "the Python was asked"
    assert pipeline.taken_whole + pipeline.taken_in - before == 4


@pytest.mark.parametrize("attributes", [{"_missing": True}, {"_timestamp": -1}, {"frames": 7}], ids=str)
def test_what_was_before(listener: Listener, attributes: dict[str, object]) -> None:
    for track_input in listener.inputs:
        for name, value in attributes.items():
            setattr(track_input, name, value)
    assert listener.hear(hbr(UNITS[3])) == ("_missing" not in attributes)


def test_a_unit_in_fragments_is_put_together_by_the_python(listener: Listener) -> None:
    payload = hbr(UNITS[3])
    head, first, last = payload[:4], payload[4:40], payload[40:]
    assert not listener.hear(head + first)
    listener.timestamp -= FRAME
    assert not listener.hear(head + last)
    assert listener.hear(hbr(UNITS[4]))


def test_no_unit_is_heard_behind_a_fragment(listener: Listener) -> None:
    for track_input in listener.inputs:
        track_input.units._fragment, track_input.units._fragment_size = b"abc", 300
    assert not listener.hear(hbr(UNITS[3]))
    assert listener.hear(hbr(UNITS[4]))


def test_who_captures_sees_the_next_packet(listener: Listener) -> None:
    seen: list[int] = []
    for way in listener.pair.both:
        way.pipeline.capture = lambda batches, now: seen.append(len(batches))
    assert not listener.hear(hbr(UNITS[3]))
    assert seen == [1, 1]
    for way in listener.pair.both:
        way.pipeline.capture = None
    assert listener.hear(hbr(UNITS[4]))


def test_sound_is_heard_without_anybody_who_takes_pictures_whole(listener: Listener) -> None:
    for way in listener.pair.both:
        way.pipeline.viewers = way.connections[0]
    assert [listener.hear(hbr(unit)) for unit in UNITS[3:5]] == [False, True], "the change itself is noticed"


def test_sound_before_any_picture_is_heard_whoever_looks_on() -> None:
    way = data_paths.DataPath("compiled", Terms())  # type: ignore[arg-type]
    data_paths.look_on(way.pipeline)
    done = []
    for number in range(4):
        header = struct.pack("!BBHII", 0x80, 0xE1, number, FRAME * number, 11)
        data = framed(2, header + hbr(UNITS[3]))
        assert way._feed is not None
        done.append(way.pipeline.take_wake(way._feed, data, 1000.0 + number * FRAME / RATE))
        if done[-1] != native.DONE:
            way.receive(data, 1000.0 + number * FRAME / RATE)
    assert done[1:] == [native.DONE] * 3, "the first unit sets the clock"
    way.close()
    native.choose("python")


def test_an_input_that_is_rebuilt_is_heard_when_it_has_a_clock(listener: Listener) -> None:
    for way in listener.pair.both:
        way.pipeline.rebuild(Kind.AUDIO)
    # With the first unit comes a clock, and with what became of it an encoder.
    assert [listener.hear(hbr(unit)) for unit in UNITS[3:6]] == [False, False, True]


def test_after_the_end_of_a_session_nothing_is_heard(listener: Listener) -> None:
    for way in listener.pair.both:
        way._session.state = RtspState.TEARDOWN
    assert not listener.hear(hbr(UNITS[3]))


@pytest.mark.parametrize(
    "parameters",
    [HBR | {"sizelength": "6", "indexlength": "2"}, None],
    ids=["other headers", "no AAC"],
)
def test_other_sound_is_left_to_the_python(listener: Listener, parameters: dict[str, str] | None) -> None:
    encoding = "MPEG4-GENERIC" if parameters else "PCMU"
    track = Track(Kind.AUDIO, Format(97, encoding, RATE if parameters else 8000, parameters=parameters or {}), "")
    pipeline = listener.pair.both[1].pipeline
    pipeline.inputs[Kind.AUDIO] = AudioInput(track, pipeline.timeline)
    pipeline._ear = None
    feed = listener.pair.both[1]._feed
    assert isinstance(feed, Feed)
    assert pipeline.take_wake(feed, listener.packet(hbr(UNITS[3])), listener.pair.now) == native.NOT_PLAIN
