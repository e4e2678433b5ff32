"""Sound that leaves by compiled code, with one call for what one wake has made: the same packets, the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.pacer import Pacer, _Held
from tests.fuzz import data_paths
from tests.unit.native.test_pictures import Pair, closing

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

OPUS: Final = bytes(range(80))
THREE: Final = [(OPUS, False), (OPUS[:60], False), (OPUS[:70], False)]


class Voice:
    """Sound of one camera through both paths."""

    def __init__(self, pair: Pair, by_python: list[Pacer]) -> None:
        self._pair, self._by_python = pair, by_python
        self.ends: list[Any] = [way.connections[0] for way in pair.both]
        self.say(THREE)

    def say(self, payloads: Sequence[tuple[Any, bool]], late: float = 0.0) -> int:
        """A wake that made these packets; whether compiled code took them."""
        pair = self._pair
        pair.now += 0.06
        del self._by_python[:]
        for way, end in zip(pair.both, self.ends, strict=True):
            way._clock._now = pair.now
            end.send(Frame(Kind.AUDIO, payloads, pair.now - 0.2 - late, 0.02), pair.now)
        reference, compiled = ({"packets": way.take(), "state": way.state()} for way in pair.both)
        data_paths._same("sound", reference, compiled)
        return int(self.ends[1]._pacer not in self._by_python)


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> Iterator[Voice]:
    by_python: list[Pacer] = []
    take_audio = Pacer.take_audio

    def noted(self: Pacer, *arguments: Any) -> bool:
        by_python.append(self)
        return take_audio(self, *arguments)

    monkeypatch.setattr(Pacer, "take_audio", noted)
    for pair in closing(Pair()):
        yield Voice(pair, by_python)


def test_sound_of_an_even_source_is_taken(voice: Voice) -> None:
    assert [voice.say(THREE) for _ in range(40)] == [1] * 40
    assert voice.ends[1]._audio.stats.packets == 41 * 3


@pytest.mark.parametrize(
    "payloads",
    [THREE[:1], [(OPUS, True), (OPUS, False)], [(b"", False)], [(bytes(1400), False)], [(OPUS, False)] * 128],
)
def test_packets_that_are_plain(voice: Voice, payloads: list[tuple[bytes, bool]]) -> None:
    assert [voice.say(payloads), voice.say(THREE)] == [1, 1]


@pytest.mark.parametrize(
    "payloads",
    [[], tuple(THREE), [(memoryview(OPUS), False)], [*THREE, (bytes(1401), False)], [(OPUS, False)] * 129],
    ids=["none", "a tuple", "a view", "one that is too long", "too many"],
)
def test_packets_that_are_not(voice: Voice, payloads: Sequence[tuple[Any, bool]]) -> None:
    assert [voice.say(payloads), voice.say(THREE)] == [0, 1]


def test_who_captures_sees_the_next_packets(voice: Voice) -> None:
    seen: list[object] = []
    for end in voice.ends:
        end.capture = lambda *what: seen.append(what[1])
    assert voice.say(THREE) == 0
    assert seen == [THREE, THREE]
    for end in voice.ends:
        end.capture = None
    assert voice.say(THREE) == 1


def test_other_extensions_are_noticed(voice: Voice) -> None:
    assert voice.say(THREE) == 1
    for end in voice.ends:
        end._audio.extensions = HeaderExtensions(None, None)
    assert [voice.say(THREE), voice.say(THREE)] == [0, 1]


@pytest.mark.parametrize("late", [0.09, 0.11, -0.09, -0.11])
def test_sound_that_comes_unevenly_is_left_to_the_pacer(voice: Voice, late: float) -> None:
    even = abs(late) < 0.1
    assert voice.say(THREE, late) == even
    assert voice.say(THREE) == even


def test_sound_waits_behind_what_waits(voice: Voice) -> None:
    for end in voice.ends:
        end._pacer._audio.append(_Held(2000.0, THREE, 2000.0, 0.02, 0, 1000.0))
    assert voice.say(THREE) == 0


def test_the_first_media_sets_the_clock(voice: Voice) -> None:
    for end in voice.ends:
        end._sender.clock = None
    assert [voice.say(THREE), voice.say(THREE)] == [0, 1]


def test_a_line_that_is_probed(voice: Voice) -> None:
    for end in voice.ends:
        end._uplink.probing = True
    assert voice.say(THREE) == 0


def test_nothing_is_sent_without_a_connection(voice: Voice) -> None:
    for end in voice.ends:
        end.connected = False
    before = voice.ends[1]._audio.stats.packets
    voice.say(THREE)
    assert voice.ends[1]._audio.stats.packets == before


def test_what_is_no_sound(voice: Voice) -> None:
    wake = voice.ends[1]._sound
    for arguments in ((), (THREE, 1.0, 0.02), (THREE, "1", 0.02, 1.0), (THREE, 1.0, None, 1.0)):
        with pytest.raises(TypeError):
            wake.send(*arguments)
    assert wake.send([(OPUS, 0)], 1.0, 0.02, 1.0) == native.NOT_PLAIN
