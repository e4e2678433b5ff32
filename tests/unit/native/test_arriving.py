"""Media that is read, decrypted and sent on with no Python between, and for what the Python is asked all the same."""

from __future__ import annotations

import gc
import math
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.camera.webrtc_source import WebRtcSource
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from tests.fuzz.data_paths import _same
from tests.fuzz.datagram_paths import DatagramPath, Difference
from tests.fuzz.datagram_streams import VIDEO_TYPE
from tests.unit.native.test_opus import TICKS, Both

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())
OPUS: Final = b"\x78abc"


class Arriving:
    """One camera over WebRTC, through both paths: it has sent a keyframe, a picture and some sound."""

    def __init__(self, both: Both, asked: list[tuple[int, Exception | None]]) -> None:
        self.both, self.asked, self.number = both, asked, 3
        self.picture()
        self.say()
        self.picture()

    @property
    def source(self) -> WebRtcSource:
        return self.both.compiled.source

    def say(self, payload: bytes = OPUS, ticks: int = TICKS) -> int:
        """A packet of sound; how often the Python was asked."""
        del self.asked[:]
        self.both.say(payload, ticks)
        return len(self.asked)

    def picture(self, *behind: bytes, before: Sequence[bytes] = (), pause: float = 0.01) -> int:
        """A picture, with packets behind and before it in the same wake; how often the Python was asked."""
        both = self.both
        del self.asked[:]
        both.now += pause
        header = struct.pack("!BBHII", 0x80, 128 | VIDEO_TYPE, self.number & 0xFFFF, 3000 * self.number, 5)
        self.number += 1
        for path in (both.python, both.compiled):
            path.receive([*before, header + b"\x61\x88" + bytes(40), *behind], both.now)
        asked = len(self.asked)
        _same("packets", both.python.take(), both.compiled.take())
        _same("state", both.python.state(), both.compiled.state())
        return asked


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arriving]:
    before, asked = native.compiled(), list[tuple[int, Exception | None]]()
    came = DatagramPath.came

    def noted(self: DatagramPath, frames: bytes, now: float, error: Exception | None) -> None:
        asked.append((frames[1], error))
        came(self, frames, now, error)

    monkeypatch.setattr(DatagramPath, "came", noted)
    both = Both()
    yield Arriving(both, asked)
    both.close()
    native.choose("compiled" if before else "python")


def test_sound_needs_no_python(arriving: Arriving) -> None:
    audio = arriving.both.compiled.connections[0]._audio
    assert audio is not None
    before = audio.stats.packets
    # Ten times a second its clock is compared, and once the camera is told what has come.
    asked = [arriving.say() for _ in range(40)]
    assert sum(asked) <= 8
    assert audio.stats.packets == before + 40


def test_pictures_need_no_python(arriving: Arriving) -> None:
    video = arriving.both.compiled.connections[0]._video
    assert video is not None
    before = video.stats.packets
    asked = [arriving.picture(pause=1 / 30) for _ in range(80)]
    assert sum(asked) <= 5, "once a second the camera is told what has come"
    assert video.stats.packets == before + 80
    assert arriving.source._alive_at == arriving.both.now


def test_sound_that_comes_with_a_picture(arriving: Arriving) -> None:
    audio = arriving.both.compiled.connections[0]._audio
    assert audio is not None
    assert arriving.say() == 0
    before = audio.stats.packets
    packets = [arriving.both.packet(OPUS)]
    arriving.both.sequence, arriving.both.timestamp = arriving.both.sequence + 1, arriving.both.timestamp + TICKS
    assert arriving.picture(*packets) == 0
    assert audio.stats.packets == before + 1


def test_a_picture_behind_sound_is_not_taken_for_sound(arriving: Arriving) -> None:
    """The ingest would ask for it as soon as another is missing."""
    both = arriving.both
    nacks = [path.source.ingest.nack for path in (both.python, both.compiled)]  # type: ignore[union-attr]
    for audio in both.audio:
        audio._check_at = math.inf
    assert arriving.say() == 0
    packets = [both.packet(OPUS)]
    both.sequence, both.timestamp = both.sequence + 1, both.timestamp + TICKS
    assert arriving.picture(before=packets) == 1
    arriving.number += 1
    assert arriving.picture() == 1
    assert [sorted(nack._missing) for nack in nacks] == [[arriving.number - 2]] * 2


def test_what_is_missing_behind_such_pictures_is_asked_for(arriving: Arriving) -> None:
    """The ingest was not told of them yet: it must not ask for what has come."""
    nacks = [path.source.ingest.nack for path in (arriving.both.python, arriving.both.compiled)]  # type: ignore[union-attr]
    assert [arriving.picture() for _ in range(5)] == [0] * 5
    arriving.number += 2
    assert arriving.picture() == 1
    assert [sorted(nack._missing) for nack in nacks] == [[arriving.number - 3, arriving.number - 2]] * 2


def test_an_input_that_is_rebuilt_meanwhile(arriving: Arriving) -> None:
    assert arriving.picture() == 0
    for path in (arriving.both.python, arriving.both.compiled):
        path.pipeline.rebuild(Kind.VIDEO)
    assert arriving.picture() == 1
    assert not arriving.source.ingest.nack  # type: ignore[union-attr]


def test_a_report_that_is_due_is_the_pythons(arriving: Arriving) -> None:
    for audio in arriving.both.audio:
        audio._check_at = math.inf
    assert [arriving.say(), arriving.say()] == [0, 0]
    arriving.source._report_due = arriving.both.now + 0.03
    assert [arriving.say(), arriving.say()] == [0, 1]
    for come in (arriving.say, arriving.picture):
        arriving.source._report_due = -math.inf
        assert come() == 1


def test_a_keyframe_that_is_wanted_is_asked_for_by_the_python(arriving: Arriving) -> None:
    assert arriving.say() == 0
    for path in (arriving.both.python, arriving.both.compiled):
        video: Any = path.pipeline.inputs[Kind.VIDEO]
        video.passthrough.wants_keyframe = True
    assert [arriving.say(), arriving.picture()] == [1, 1]


CHANGES: Final[dict[str, Callable[[Any], object]]] = {
    "nobody listens": lambda source: source._transport.media.listen(None, None, None),
    "of another session": lambda source: source._transport.media.listen(source._sink, source, source),
    "no pipeline": lambda source: source._transport.media.listen(source, source._feed, source),
    "no source": lambda source: source._transport.media.listen(source._sink, source._feed, SimpleNamespace()),
    "never due": lambda source: source._transport.media.listen(
        source._sink, source._feed, SimpleNamespace(_report_due=None)
    ),
    "no wake": lambda source: setattr(source._sink, "wake", None),
    "one of sound": lambda source: setattr(source._sink, "wake", source._sink._ear),
    "nobody hears": lambda source: setattr(source._sink, "_ear", None),
    "one of pictures hears": lambda source: setattr(source._sink, "_ear", source._sink.wake),
    "another input": lambda source: source._sink.rebuild(Kind.AUDIO),
}
OF_SOUND: Final = ("nobody hears", "one of pictures hears")
"""What does not concern pictures."""


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", ["say", "picture"])
def test_what_else_has_to_be_so(arriving: Arriving, name: str, kind: str) -> None:
    assert [arriving.say(), arriving.picture()] == [0, 0]
    CHANGES[name](arriving.source)
    if name == "another input":
        arriving.both.python.pipeline.rebuild(Kind.AUDIO)
    assert getattr(arriving, kind)() == (kind == "say" or name not in OF_SOUND)


@pytest.mark.parametrize("kind", ["say", "picture"])
def test_who_captures_sees_the_next_packets(arriving: Arriving, kind: str) -> None:
    seen: list[int] = []
    for path in (arriving.both.python, arriving.both.compiled):
        path.pipeline.capture = lambda batches, now: seen.append(len(batches))
    assert getattr(arriving, kind)() == 1
    assert seen == [1, 1]


def test_a_source_of_another_kind(arriving: Arriving) -> None:
    source: Any = arriving.source
    source._transport.media.listen(source._sink, source._feed, SimpleNamespace(_report_due=math.inf))
    assert [arriving.say(), arriving.picture()] == [0, 1], "nothing is written into it"


def broken(*arguments: object) -> None:
    raise OverflowError


@pytest.mark.parametrize("kind", ["sound", "picture", "sound behind a picture"])
def test_what_is_raised_is_handed_on(arriving: Arriving, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    both, compiled = arriving.both, arriving.both.compiled
    (connection,) = compiled.connections
    sender: Any = connection._sender
    ended: list[object] = []
    compiled.source.on_ended = ended.append
    picture = struct.pack("!BBHII", 0x80, 128 | VIDEO_TYPE, arriving.number, 3000 * arriving.number, 5) + b"\x61\x88abc"
    packets = [both.packet(OPUS)] if kind == "sound" else [picture]
    if kind == "sound behind a picture":
        packets += [both.packet(OPUS), both.packet(OPUS)]  # of one the Python is not asked
        monkeypatch.setattr(Pipeline, "take_left", broken)
    else:
        sender._next_report = 0.0
        sender._say_what_is_due = broken
    del arriving.asked[:]
    compiled.receive(packets, both.now + 0.02)
    ((channel, error),) = [one for one in arriving.asked if one[1] is not None]
    assert (channel, type(error)) == (2 if kind == "sound" else 0, OverflowError)
    assert compiled.source.state.value == "failed", "as when the Python itself raises"
    assert len(ended) == 1


def test_nothing_is_held_for_good(arriving: Arriving) -> None:
    source: Any = arriving.source
    parts = (source, source._sink, source._feed, source._sink.wake, source._sink._ear)
    for audio in arriving.both.audio:
        audio._check_at = math.inf
    before = [sys.getrefcount(part) for part in parts]
    assert sum(arriving.say() + arriving.picture() for _ in range(10)) == 0
    assert [sys.getrefcount(part) for part in parts] == before


def test_nothing_is_read_twice(arriving: Arriving) -> None:
    way = arriving.both.compiled.peer.arriving
    assert way is not None
    del arriving.asked[:]
    way.arrivals.read()
    assert arriving.asked == []


def test_something_else_is_left_to_the_python(arriving: Arriving) -> None:
    way = arriving.both.compiled.peer.arriving
    assert way is not None
    way._far.send(b"\x00\x01STUN")
    with pytest.raises(Difference, match="STUN"):
        way.arrivals.read()
    for other in (b"\x80", b""):
        way._far.send(other)
        with pytest.raises(Difference):
            way.arrivals.read()


def test_after_the_end_nobody_listens(arriving: Arriving) -> None:
    assert arriving.say() == 0
    arriving.source._end_feed()
    packet = arriving.both.packet(OPUS)
    del arriving.asked[:]
    arriving.both.compiled.receive([packet], arriving.both.now + 0.02)
    assert [channel for channel, _ in arriving.asked] == [2]


def test_what_is_no_reader_is_refused(arriving: Arriving) -> None:
    way, compiled = arriving.both.compiled.peer.arriving, native.decide("compiled")
    assert way is not None
    assert compiled is not None
    make: Any = compiled.Arrivals
    for given, error in (
        ((), TypeError),
        ((way.datagrams, []), TypeError),
        ((way.datagrams, ()), ValueError),
        ((way.datagrams, (1, 2, 3, 4)), ValueError),
        ((way.arrivals, (1, 2, 3)), ValueError),
    ):
        with pytest.raises(error):
            make(*given)
    with pytest.raises(TypeError):
        make(way.datagrams, (1, 2, 3), calls=())
    with pytest.raises(TypeError):
        way.arrivals.listen(None, None)  # type: ignore[call-arg]


def test_it_goes_with_those_who_refer_to_each_other_by_it(arriving: Arriving) -> None:
    class Listener:
        arrivals: object = None

        def now(self) -> float:
            return 0.0

    way, compiled = arriving.both.compiled.peer.arriving, native.decide("compiled")
    assert way is not None
    assert compiled is not None
    listener = Listener()
    calls: Any = native.ArrivalCalls(listener.now, print, print)
    listener.arrivals = made = compiled.Arrivals(way.datagrams, calls)
    made.listen(listener, listener, listener)
    gone = weakref.ref(listener)
    del listener, made, calls
    gc.collect()
    assert gone() is None
