"""What the pacer has let through leaves by compiled code, with one call a run: the same packets, the same numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.sender import MediaSender
from relay_worker.rtp import rtcp
from tests.fuzz import data_paths
from tests.unit.native.test_pictures import BODY, IDR, PPS, SLICE, SPS, Pair, closing, fragments
from tests.unit.native.test_sound import OPUS, THREE

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

PICTURE: Final = fragments(SLICE, 40)
LARGE: Final = [SPS, PPS, *fragments(IDR[:2] + bytes(range(1, 250)) * 240, *[1190] * 50)]
TWO: Final = [(BODY[:300], False), (BODY[:200], True)]


class Way:
    """One camera through both paths, with what the Python sends of it by itself."""

    def __init__(self, pair: Pair, by_python: list[MediaSender]) -> None:
        self.pair, self._by_python = pair, by_python
        self.ends: list[Any] = [way.connections[0] for way in pair.both]
        self.leave(TWO)

    def wake(self, payloads: Sequence[bytes], late: float = 0.0) -> int:
        """A picture that comes; how many runs of it the Python has sent."""
        self.pair.now += late
        del self._by_python[:]
        self.pair.wake(payloads)
        self.pair.now -= late
        return self._by_python.count(self.ends[1]._sender)

    def leave(self, payloads: Sequence[tuple[Any, bool]], track: str = "_video", step: float = 0.0) -> int:
        """A run that leaves; whether compiled code sent it."""
        self.pair.now += 0.03
        del self._by_python[:]
        for end in self.ends:
            end._send(getattr(end, track), payloads, self.pair.now - 0.2, step, self.pair.now)
        self.compare()
        return int(self.ends[1]._sender not in self._by_python)

    def compare(self) -> None:
        reference, compiled = ({"packets": way.take(), "state": way.state()} for way in self.pair.both)
        data_paths._same("a run", reference, compiled)


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    by_python: list[MediaSender] = []
    send = MediaSender.send

    def noted(self: MediaSender, *arguments: Any) -> None:
        by_python.append(self)
        send(self, *arguments)

    monkeypatch.setattr(MediaSender, "send", noted)
    for pair in closing(Pair()):
        yield Way(pair, by_python)


def test_pictures_that_were_held(way: Way) -> None:
    assert way.wake(PICTURE, late=0.2) == 0
    held = [way.wake(PICTURE) for _ in range(60)]
    assert way.ends[1]._pacer.smoothing
    assert held == [0] * 60
    assert way.ends[1]._video.stats.packets > 110, "they have left"


def test_a_keyframe_that_is_spread(way: Way) -> None:
    before = way.ends[1]._video.stats.packets
    assert way.wake(LARGE) == 0
    sent = way.ends[1]._video.stats.packets - before
    assert 0 < sent < len(LARGE) - 1, "only a part of it at once"
    assert [way.wake(PICTURE), way.wake(PICTURE)] == [0, 0]
    assert way.ends[1]._pacer.queued_bytes == 0


def test_sound_that_was_held(way: Way) -> None:
    for _ in range(40):
        way.pair.now += 0.06
        for end in way.ends:
            end._clock._now = way.pair.now
            end.send(Frame(Kind.AUDIO, THREE, way.pair.now - 0.2, 0.02), way.pair.now)
            end.send(Frame(Kind.AUDIO, THREE, way.pair.now - 0.5, 0.02), way.pair.now)
            end._pump(way.pair.now)
        way.compare()
        assert way.ends[1]._sender not in way._by_python
    assert way.ends[1]._audio.stats.packets > 120


def test_what_has_left_is_sent_again_when_asked_for(way: Way) -> None:
    way.leave(TWO)
    for end in way.ends:
        lost = [(end._video.sequence - each) & 0xFFFF for each in (1, 2)]
        end._received(rtcp.pack_nack(0xFA5, end._video.ssrc, lost), True, way.pair.now)
        assert end._video.stats.retransmitted == 2
    way.compare()


@pytest.mark.parametrize(
    "payloads",
    [TWO[:1], TWO[1:], [(b"", False)], [(bytes(1400), True)], [(b"a", False)] * 128, [(bytes(1400), False)] * 128],
    ids=["no mark", "one", "none in it", "the largest", "as many as there may be", "and all of the largest"],
)
@pytest.mark.parametrize("track", ["_video", "_audio"])
def test_runs_that_are_plain(way: Way, payloads: list[tuple[bytes, bool]], track: str) -> None:
    assert [way.leave(payloads, track), way.leave(payloads, track, 0.02)] == [1, 1]


@pytest.mark.parametrize(
    "payloads",
    [tuple(TWO), [(memoryview(BODY[:80]), False)], [*TWO, (bytes(1401), True)], [(b"a", False)] * 129],
    ids=["a tuple", "a view", "one that is too long", "too many"],
)
def test_runs_that_are_not(way: Way, payloads: Sequence[tuple[Any, bool]]) -> None:
    assert [way.leave(payloads), way.leave(TWO)] == [0, 1]


def test_who_captures_sees_the_next_packets(way: Way) -> None:
    seen: list[object] = []
    for end in way.ends:
        end.capture = lambda *what: seen.append(what[1])
    assert way.leave(TWO) == 0
    assert seen == [TWO, TWO]
    for end in way.ends:
        end.capture = None
    assert way.leave(TWO) == 1


def test_other_extensions_are_noticed(way: Way) -> None:
    for end in way.ends:
        end._video.extensions = HeaderExtensions(None, None)
    assert [way.leave(TWO), way.leave(TWO)] == [0, 1]


def test_the_first_media_sets_the_clock(way: Way) -> None:
    for end in way.ends:
        end._sender.clock = None
    assert [way.leave(TWO), way.leave(TWO)] == [0, 1]


def test_a_line_that_is_probed_does_not_matter(way: Way) -> None:
    for end in way.ends:
        end._uplink.probing = True
    assert way.leave(TWO) == 1


def test_tails_that_are_sent_twice(way: Way) -> None:
    for end in way.ends:
        end._sender.repair.tails_twice = True
        end._video.rtx_extensions = end._video.plain_extensions
    assert way.leave(TWO) == 0
    assert way.leave([(OPUS, False)], "_audio") == 1, "nothing is kept of sound"


def test_packets_that_have_not_left_yet_go_first(way: Way) -> None:
    for end in way.ends:
        end._sender._writer._filled = 1 if end is way.ends[1] else 0
    way.ends[1]._released[way.ends[1]._video].release(TWO, 1.0, 0.0, way.pair.now)
    assert way.ends[1]._video.stats.packets == way.ends[0]._video.stats.packets
    way.ends[1]._sender._writer._filled = 0


def test_a_report_that_is_due(way: Way) -> None:
    for end in way.ends:
        end._sender._next_report = 0.0
    assert way.leave(TWO) == 1
    assert way.ends[1]._sender._next_report == way.pair.now + 1.0


def test_no_number_is_used_twice_whatever_fails(way: Way) -> None:
    end = way.ends[1]
    before, history = end._video.sequence, end._video.history
    del way._by_python[:]

    class Full(deque[Any]):
        def append(self, run: object) -> None:
            raise MemoryError

    runs, history._runs = history._runs, Full(history._runs)
    with pytest.raises(MemoryError):
        end._send(end._video, TWO, 1.0, 0.0, way.pair.now)
    history._runs = runs
    assert end._video.sequence == (before + 2) & 0xFFFF
    assert not way._by_python, "it is not sent again"


def test_what_is_no_run(way: Way) -> None:
    wake = way.ends[1]._released[way.ends[1]._video]
    for arguments in ((), (TWO, 1.0, 0.0), (TWO, "1", 0.0, 1.0), (TWO, 1.0, None, 1.0)):
        with pytest.raises(TypeError):
            wake.release(*arguments)
    assert [wake.release(none, 1.0, 0.0, 1.0) for none in ([], [(b"a", 0)], [b"a"])] == [native.NOT_PLAIN] * 3
