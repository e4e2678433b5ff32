"""Seconds of the smoother that begin and are forgotten in wakes that compiled code takes, beside the Python."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest

from relay_worker import native
from tests.unit.native.test_pictures import INTERVAL, SLICE, Pair, fragments

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

PICTURE = fragments(SLICE, 40)


def lines(pair: Pair) -> list[Any]:
    return [way.connections[0]._pacer._video_line for way in pair.both]


def later(pair: Pair, seconds: float, late: float = 0.0) -> int:
    """A picture after so many seconds, later than its timestamp by some: whether it was taken."""
    pair.now += seconds - INTERVAL + late
    taken = pair.wake(PICTURE, step=round(seconds * 90_000))
    pair.now -= late
    return taken


def at(pair: Pair, moment: float) -> int:
    """A picture at this very moment."""
    step, pair.now = moment - pair.now, moment - INTERVAL
    while pair.now + INTERVAL < moment:
        pair.now = math.nextafter(pair.now, math.inf)
    taken = pair.wake(PICTURE, step=round(step * 90_000))
    assert pair.now == moment
    return taken


def test_a_second_begins(pair: Pair) -> None:
    for _ in range(90):
        assert pair.wake(PICTURE) == 1
    assert len(lines(pair)[1]._buckets) == 3


def test_seconds_are_forgotten_one_by_one(pair: Pair) -> None:
    for number in range(12):
        assert later(pair, 1.0) == 1
        assert len(lines(pair)[1]._buckets) == min(number + 1, 5)


@pytest.mark.parametrize("seconds", [4.9, 5.5, 6.5, 7.5, 9.0, 30.0])
def test_several_are_forgotten_at_once(pair: Pair, seconds: float) -> None:
    for _ in range(4):
        later(pair, 1.0)
    later(pair, seconds)
    assert later(pair, 1.0) == 1


def test_the_window_ends_with_a_second(pair: Pair) -> None:
    """On the boundary itself: a second that began five seconds before this one is kept, and one before that is not."""
    for number in range(12):
        assert at(pair, 1002.0 + number) == 1
        assert lines(pair)[1]._bucket_end == 1003.0 + number
    assert [start for start, _, _ in lines(pair)[1]._buckets] == [1008.0, 1009.0, 1010.0, 1011.0, 1012.0]
    assert at(pair, math.nextafter(1014.0, 0)) == 1
    assert lines(pair)[1]._bucket_end == 1014.0, "the present second has not ended"


def test_spread_of_seconds_before_counts(pair: Pair) -> None:
    for late in (0.0, 0.02, 0.01, 0.0, 0.03, 0.0, 0.015):
        assert later(pair, 1.0, late) == 1
    assert later(pair, 1.0, 0.2) == 0, "uneven: held back"


def test_of_a_second_its_lowest_and_its_highest_count(pair: Pair) -> None:
    for late in (0.02, 0.02, 0.0, 0.03, 0.01, 0.015):
        for more in (0.0, 0.01):
            assert later(pair, 0.5, late + more) == 1
    line = lines(pair)[1]
    lows, highs = ([second[which] for second in line._buckets] for which in (1, 2))
    assert all(low < high for low, high in zip(lows, highs, strict=True))
    assert (line._low_before, line._high_before) == (min(lows), max(highs))


def test_a_spread_of_just_the_threshold_is_even(pair: Pair) -> None:
    for line in lines(pair):
        line._threshold, line._low_before, line._high_before = 0.0625, -0.03125, 0.03125
    assert pair.wake(PICTURE) == 1


def test_nothing_is_changed_by_a_wake_that_is_not_taken(pair: Pair) -> None:
    for way in pair.both:
        way.connections[0]._pacer._tokens = -1e9
    assert later(pair, 1.0) == 0


@pytest.mark.parametrize("kept", [[1.0, 2.0, 3.0], (1.0, 2.0), (1.0, "2", 3.0)], ids=["a list", "two", "a text"])
def test_what_is_no_second_is_left_to_the_python(pair: Pair, kept: Any) -> None:
    for line in lines(pair):
        line._buckets = deque([kept])
    assert what_python_says(pair) is None, "too old for any second"


def what_python_says(pair: Pair) -> type[Exception] | None:
    """The error that a picture a second later meets in the Python that sends it, which is the same by both ways."""
    data, whole = pair.framed(PICTURE, step=90_000), pair.both[1].pipeline.taken_whole
    met: list[type[Exception] | None] = [None, None]
    for number, way in enumerate(pair.both):
        try:
            way.receive(data, pair.now + 1.0)
        except Exception as error:
            met[number] = type(error)
    assert met[0] is met[1]
    assert pair.both[1].pipeline.taken_whole == whole
    return met[0]


def test_no_seconds_at_all(pair: Pair) -> None:
    for line in lines(pair):
        line._buckets = None
    assert what_python_says(pair) is AttributeError
    for line in lines(pair):
        line.__init__()
        del line._buckets
    assert what_python_says(pair) is AttributeError


def test_the_first_second_of_all(pair: Pair) -> None:
    for line in lines(pair):
        line.__init__()
    assert pair.wake(PICTURE) == 1
    assert not lines(pair)[1]._buckets


def test_keeping_them_fails(pair: Pair) -> None:
    class Full(deque[Any]):
        def append(self, _: Any) -> None:
            raise OverflowError

    lines(pair)[1]._buckets = Full()
    wake = pair.both[1].pipeline.wake
    assert wake is not None
    with pytest.raises(OverflowError):
        wake.take(pair.framed(PICTURE, step=90_000), pair.now + 1.0)
