"""Release times: even sources pass, bursts are spread, delay is bounded and given back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.publish.smoother import MAX_DELAY, THRESHOLD, WINDOW, Smoother

FRAME = 1 / 30


def burst_arrivals(count: int, period: float, start: float = 100.0) -> list[tuple[float, float]]:
    """(media time, arrival) of frames that all come at the end of each period."""
    frames = []
    for index in range(count):
        media = index * FRAME
        frames.append((media, start + (media // period + 1) * period))
    return frames


def gaps(releases: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(releases)]


def test_an_even_source_is_not_touched() -> None:
    smoother = Smoother()
    for index in range(3000):
        now = 100 + index * FRAME + (0.02 if index % 7 == 0 else 0.0)
        assert smoother.release(index * FRAME, now) == now
    assert not smoother.active


def test_bursts_of_500_ms_come_out_even_from_the_second_on() -> None:
    smoother = Smoother()
    frames = burst_arrivals(600, 0.5)
    releases = [smoother.release(media, now) for media, now in frames]
    assert all(0 <= release - now <= MAX_DELAY for release, (_, now) in zip(releases, frames, strict=True))
    assert max(gaps(releases)) <= 0.2  # also while it learns: no pause that a viewer would call a freeze
    steady = gaps(releases[30:])
    assert max(steady) - min(steady) < 0.005
    delay = [release - media for release, (media, _) in zip(releases, frames, strict=True)]
    assert delay[-1] == pytest.approx(delay[60], abs=0.001)  # no growth


def test_delay_is_given_back_when_the_source_is_even_again() -> None:
    smoother = Smoother()
    frames = burst_arrivals(120, 0.5)
    for media, now in frames:
        smoother.release(media, now)
    assert smoother.active
    held = []
    for index in range(120, 120 + int(30 * (WINDOW + MAX_DELAY / 0.1 + 3))):
        media = index * FRAME
        now = 100 + media + 0.034
        held.append(smoother.release(media, now) - now)
    assert held[0] > 0.3
    assert held[-1] == 0
    assert not smoother.active
    # Slowly: nobody sees a picture that plays a tenth faster.
    assert max(a - b for a, b in itertools.pairwise(held)) <= 0.1 * FRAME + 0.001


def test_one_late_frame_adds_no_more_than_its_lateness() -> None:
    smoother = Smoother()
    for index in range(300):
        late = 0.2 if index == 150 else 0.0
        now = 100 + index * FRAME + late
        assert smoother.release(index * FRAME, now) - now <= 0.2 + 1e-6


def test_a_backlog_is_not_kept_as_delay() -> None:
    smoother = Smoother()
    # Three seconds that had piled up come at once, then the source is live.
    for index in range(90):
        smoother.release(index * FRAME, 100.0)
    delays = []
    for index in range(90, 700):
        now = 97 + 0.0 + index * FRAME
        delays.append(smoother.release(index * FRAME, now) - now)
    assert max(delays) <= MAX_DELAY + 1e-9
    assert delays[-1] == 0


@given(st.lists(st.tuples(st.floats(0.001, 0.2), st.floats(0, 2)), min_size=1, max_size=200))
def test_the_bound_holds_for_any_arrivals(steps: list[tuple[float, float]]) -> None:
    smoother = Smoother()
    media, now = 0.0, 50.0
    for step, wait in steps:
        media += step
        now += wait
        assert 0 <= smoother.release(media, now) - now <= MAX_DELAY + 1e-9


def test_small_unevenness_is_left_to_the_viewer() -> None:
    smoother = Smoother()
    for index in range(300):
        now = 100 + index * FRAME + (THRESHOLD * 0.9 if index % 5 == 0 else 0)
        assert smoother.release(index * FRAME, now) == now
