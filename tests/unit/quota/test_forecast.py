"""When waiting cameras get their stream: what is told is what the queue then does."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from relay_supervisor.google.quota.forecast import Forecast
from relay_supervisor.google.quota.queue import CommandQueue
from tests.unit.quota.test_queue import blocking_stop, drain, extend, generate, queue


def sent_at(subject: CommandQueue, now: float, until: float) -> dict[str, float]:
    """When each generate is really sent, where every call is answered at once."""
    times = dict[str, float]()
    while now < until:
        times |= {what.split()[1]: now for what in drain(subject, now) if what.startswith("generate")}
        deadline = subject.next_deadline(now)
        if deadline is None:
            break
        now = max(deadline, now + 0.001)
    return times


def test_each_is_told_its_own_turn() -> None:
    subject = queue(2)
    for n in range(5):
        subject.submit(generate(f"c{n}", submitted=float(n)))
    forecast = Forecast(subject)
    turns = [round(forecast.generate_at(f"c{n}", 10.0)) for n in range(5)]
    assert turns == [10, 10, 70, 70, 130]
    assert forecast.generate_at("nobody", 10.0) == math.inf
    assert subject.depth(10.0) == 5, "nothing was sent"


def test_one_behind_the_stop_of_its_last_stream_is_told_when() -> None:
    """It was said for a minute and more that others go first, as the budget had a place, and its stop needs two."""
    subject = queue(3)
    for name in ("a", "b"):
        subject.submit(generate(name))
    assert len(drain(subject, 0.0)) == 2
    subject.submit(blocking_stop("cam"))
    subject.submit(generate("cam"))
    assert drain(subject, 1.0) == []
    told = Forecast(subject).generate_at("cam", 1.0)
    assert 60.0 < told < 61.0
    assert sent_at(subject, 1.0, 100.0) == {"cam": told}


def test_a_command_in_the_place_of_one_that_is_gone_is_told_when() -> None:
    """It had the address of the one before it, and was not told for five seconds."""
    subject = queue(1)
    subject.submit(generate("first"))
    forecast = Forecast(subject)
    assert subject.poll(0.0) is not None
    for n in range(20):
        subject.submit(generate(f"c{n}"))
        assert 60.0 < forecast.generate_at(f"c{n}", 1.0) < 62.0
        subject.cancel(f"c{n}")


def test_who_cannot_be_told_is_looked_for_each_second() -> None:
    subject = queue(1)
    subject.submit(generate("cam"))
    subject.held_until = math.inf
    forecast = Forecast(subject)
    assert forecast.generate_at("cam", 10.0) == math.inf
    subject.held_until = 30.0
    assert forecast.generate_at("cam", 10.5) == math.inf
    assert forecast.generate_at("cam", 11.0) == 30.0


def test_a_call_that_is_under_way_counts_as_answered() -> None:
    subject = queue(1)
    subject.submit(generate("first"))
    assert subject.poll(0.0) is not None
    subject.submit(generate("second"))
    assert 60.0 <= Forecast(subject).generate_at("second", 0.0) < 61.0
    assert subject.poll(59.0) is None, "the queue itself still waits for the answer"


def test_it_is_made_anew_when_others_wait_or_time_has_passed() -> None:
    subject = queue(1)
    subject.submit(generate("late", submitted=5.0))
    forecast = Forecast(subject)
    assert forecast.generate_at("late", 10.0) == 10.0
    subject.submit(generate("early", submitted=1.0))
    assert forecast.generate_at("late", 10.0) > 69.0
    assert forecast.generate_at("early", 16.0) == 16.0


@settings(max_examples=25, deadline=None)
@given(
    lives=st.lists(st.floats(130, 400), max_size=12),
    waiting=st.lists(st.tuples(st.floats(0, 50), st.booleans()), min_size=1, max_size=12),
    spare=st.integers(1, 6),
)
def test_what_is_told_comes_true(lives: list[float], waiting: list[tuple[float, bool]], spare: int) -> None:
    subject = queue(len(lives) + spare)
    for n, life in enumerate(lives):
        subject.submit(extend(f"live{n}", life, due=life * 0.75, not_before=life / 2))
    for n, (submitted, blocked) in enumerate(waiting):
        subject.submit(generate(f"dark{n}", submitted=submitted))
        if blocked:
            subject.submit(blocking_stop(f"dark{n}"))
    forecast = Forecast(subject)
    told = {f"dark{n}": forecast.generate_at(f"dark{n}", 60.0) for n in range(len(waiting))}
    came = sent_at(subject, 60.0, 960.0)
    assert {name: round(at, 3) for name, at in told.items() if at < math.inf} == {
        name: round(at, 3) for name, at in came.items()
    }
