"""Pictures that compiled code takes in where an output may not send them at once, or others want to see them: the
Python holds or spreads them, and hands them on.
"""

from __future__ import annotations

from typing import Any

import pytest

from relay_worker import native
from relay_worker.media.stream import Frame, Kind
from tests.unit.native.test_pictures import IDR, INTERVAL, PPS, SLICE, SPS, Pair, fragments

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

PICTURE = fragments(SLICE, 40)
LARGE = [SPS, PPS, *fragments(IDR[:2] + bytes(range(1, 250)) * 240, *[1190] * 50)]


def taken(pair: Pair, data: bytes) -> tuple[int, int]:
    """Wakes taken in, and taken whole, of one."""
    pipeline = pair.both[1].pipeline
    before = pipeline.taken_in
    whole = pair.receive(data)
    return pipeline.taken_in - before, whole


def test_while_the_smoother_holds_pictures(pair: Pair) -> None:
    """One picture that is late has those behind it held for seconds, however even they are."""
    pair.now += 0.2
    assert taken(pair, pair.framed(PICTURE)) == (1, 0)
    pair.now -= 0.2
    for _ in range(60):
        assert taken(pair, pair.framed(PICTURE)) == (1, 0)
    assert pair.both[1].connections[0]._pacer.smoothing
    for _ in range(400):
        taken(pair, pair.framed(PICTURE))
    assert not pair.both[1].connections[0]._pacer.smoothing
    assert taken(pair, pair.framed(PICTURE)) == (0, 1), "and not for good"


def test_several_pictures_of_one_wake(pair: Pair) -> None:
    pair.now += 0.2
    assert taken(pair, pair.framed(PICTURE) + pair.framed([SLICE]) + pair.framed(PICTURE)) == (1, 0)
    assert taken(pair, pair.framed(PICTURE)) == (1, 0)


def test_a_keyframe_beyond_the_burst(pair: Pair) -> None:
    assert taken(pair, pair.framed(LARGE)) == (1, 0)
    assert taken(pair, pair.framed(PICTURE)) == (1, 0), "the rest of it is before this one"
    assert taken(pair, pair.framed(PICTURE)) == (0, 1)


def test_packets_of_others_beside_them(pair: Pair) -> None:
    for way in pair.both:
        way.connections[0]._pacer._tokens = -1e9
    other = b"$\x02\x00\x10\x80\x61\x00\x01" + bytes(12)
    assert taken(pair, pair.framed(PICTURE) + other) == (1, 0)


class Onlooker:
    """Stands for viewers that the worker answers itself, or a maker of small pictures."""

    def __init__(self) -> None:
        self.saw: list[tuple[list[tuple[bytes, bool]], float, float]] = []

    def send(self, frame: Frame, now: float) -> None:
        if frame.kind is Kind.VIDEO:
            self.saw.append((list(frame.payloads), frame.media_time, now))


@pytest.mark.parametrize("place", ["viewers", "rendition", "tap"])
def test_while_somebody_else_looks_on(pair: Pair, place: str) -> None:
    onlookers = [Onlooker(), Onlooker()]
    for way, onlooker in zip(pair.both, onlookers, strict=True):
        setattr(way.pipeline, place, (lambda frame, to=onlooker: to.send(frame, 0.0)) if place == "tap" else onlooker)
    assert taken(pair, pair.framed(PICTURE)) == (0, 0), "the change itself is noticed"
    for picture in (PICTURE, [SPS, PPS, IDR], [SLICE]):
        assert taken(pair, pair.framed(picture)) == (1, 0)
    assert len(onlookers[0].saw) == 4
    assert onlookers[0].saw == onlookers[1].saw
    for way in pair.both:
        setattr(way.pipeline, place, None)
    assert [taken(pair, pair.framed(PICTURE)), taken(pair, pair.framed(PICTURE))] == [(0, 0), (0, 1)]
    assert len(onlookers[1].saw) == 4


def test_one_onlooker_for_another(pair: Pair) -> None:
    first, second = [Onlooker(), Onlooker()], [Onlooker(), Onlooker()]
    for way, onlooker in zip(pair.both, first, strict=True):
        way.pipeline.viewers = onlooker
    assert [taken(pair, pair.framed(PICTURE)), taken(pair, pair.framed(PICTURE))] == [(0, 0), (1, 0)]
    for way, onlooker in zip(pair.both, second, strict=True):
        way.pipeline.viewers = onlooker
    assert [taken(pair, pair.framed(PICTURE)), taken(pair, pair.framed(PICTURE))] == [(0, 0), (1, 0)]
    assert [len(one.saw) for one in (*first, *second)] == [2] * 4


def test_without_an_output_but_with_viewers(pair: Pair) -> None:
    onlookers = [Onlooker(), Onlooker()]
    for way, onlooker in zip(pair.both, onlookers, strict=True):
        way.pipeline.viewers, way.pipeline.output, way.pipeline.holds = onlooker, None, False
    assert [taken(pair, pair.framed(PICTURE)), taken(pair, pair.framed(PICTURE))] == [(0, 0), (1, 0)]
    assert onlookers[0].saw == onlookers[1].saw


def test_what_the_python_raises_is_raised(pair: Pair) -> None:
    class Broken(type(pair.both[1].connections[0])):  # type: ignore[misc]
        def send(self, frame: Frame, now: float) -> None:
            raise OverflowError

    (connection,) = pair.both[1].connections
    connection._pacer._tokens = -1e9
    connection.__class__ = Broken
    wake: Any = pair.both[1].pipeline.wake
    with pytest.raises(OverflowError):
        wake.take(pair.framed(PICTURE), pair.now + INTERVAL)
