"""The sliding log: never more than N calls in any span of the server's clock, whatever the delays."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_supervisor.google.quota.window import HOLD, SlidingLog

SPAN = 60.0


def most_in_any_closed_span(times: list[float], span: float) -> int:
    return max((sum(start <= at <= start + span for at in times) for start in times), default=0)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 6),
    gaps=st.lists(st.floats(0, 30), min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_no_span_of_the_servers_clock_exceeds_the_limit(limit: int, gaps: list[float], seed: int) -> None:
    """The adversary tries at any moment, answers late or never, and counts anywhere between sending and answer."""
    rng = random.Random(seed)
    log = SlidingLog(limit, SPAN)
    now = 0.0
    counted: list[float] = []
    under_way: list[tuple[float, float, object]] = []
    for gap in gaps:
        now += gap
        for item in [item for item in under_way if item[1] <= now]:
            log.answered(item[2], item[1])  # type: ignore[arg-type]
            under_way.remove(item)
        while log.ready_at(now) <= now:
            answered = now + rng.choice([0.0, 0.2, 30.0]) * rng.random()
            counted.append(rng.choice([now, answered, rng.uniform(now, answered)]))
            under_way.append((now, answered, log.take(now)))
            under_way.sort(key=lambda item: item[1])
    assert most_in_any_closed_span(counted, SPAN) <= limit


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 8),
    answers=st.lists(st.floats(0, 20), min_size=1, max_size=30),
    spare=st.integers(0, 2),
)
def test_ready_at_is_the_earliest_moment(limit: int, answers: list[float], spare: int) -> None:
    log = SlidingLog(limit, SPAN)
    now = 0.0
    for delay in answers:
        now = max(now, log.ready_at(now))
        log.answered(log.take(now), now + delay)
        now += delay
    ready = log.ready_at(now, spare)
    if spare >= limit:
        assert math.isinf(ready)
        return
    if ready > now:
        just_before = max(now, ready - 0.01)
        assert limit - log.used(just_before) <= spare
    assert limit - log.used(max(now, ready)) > spare


def test_a_place_is_kept_until_a_span_after_the_answer() -> None:
    log = SlidingLog(1, SPAN, guard=0.5)
    place = log.take(100.0)
    assert math.isinf(log.ready_at(100.1)), "nobody knows yet when the server counts it"
    log.answered(place, 108.0)
    assert log.used(168.5) == 1
    assert 168.5 < log.ready_at(150.0) < 168.51
    assert log.used(168.51) == 0


def test_a_call_that_was_never_sent_costs_nothing() -> None:
    log = SlidingLog(1, SPAN)
    log.give_back(log.take(0.0))
    assert log.ready_at(0.0) <= 0.0


def test_a_restored_call_counts() -> None:
    log = SlidingLog(1, SPAN)
    log.restore(-10.0)
    assert 50.0 < log.ready_at(0.0) < 50.01


def test_a_refusal_holds_and_lowers_and_a_quiet_minute_raises() -> None:
    log = SlidingLog(10, SPAN, guard=0.25)
    log.answered(log.take(0.0), 0.1)
    log.refused(0.0, 0.1)
    assert log.ceiling == 7
    assert log.ready_at(1.0) >= HOLD
    free = log.held_until
    assert log.ready_at(free) <= free
    for minutes, ceiling in ((0.5, 7), (1.0, 8), (2.0, 9), (3.0, 10), (9.0, 10)):
        log.ready_at(free + 60 * minutes)
        assert log.ceiling == ceiling


def test_calls_that_were_under_way_when_it_was_refused_say_nothing_new() -> None:
    log = SlidingLog(10, SPAN)
    log.refused(0.0, 1.0)
    log.refused(0.5, 2.0)
    assert (log.ceiling, log.refusals) == (7, 1)
    assert log.held_until >= 2.0 + HOLD


def test_refusals_of_what_went_through_before_lower_further_but_not_to_nothing() -> None:
    log = SlidingLog(10, SPAN)
    now = 0.0
    for expected in (7, 6, 5, 4, 3, 3):
        log.accepted()
        log.refused(now, now)
        assert log.ceiling == expected
        now = log.held_until


def test_refusals_in_a_row_hold_longer_and_retry_after_is_honoured() -> None:
    log = SlidingLog(10, SPAN)
    now, holds = 0.0, []
    for _ in range(9):
        log.refused(now, now)
        holds.append(log.held_until - now)
        now = log.held_until
    assert holds[:5] == [60.0] * 5
    assert holds[5:] == [120.0, 240.0, 300.0, 300.0]
    log.accepted()
    log.refused(now, now, retry_after=900.0)
    assert log.held_until == now + 900.0


@pytest.mark.parametrize(("limit", "span", "guard"), [(0, 60, 0), (1, 0, 0), (1, 60, -1)])
def test_senseless_limits_are_refused(limit: int, span: float, guard: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        SlidingLog(limit, span, guard)
