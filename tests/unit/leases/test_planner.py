"""The budget's arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_supervisor.google.leases.planner import Load, admit, capacity, extension_times, least_margin, margin, reserve

RATE = 10 / 60.75


def test_capacity_of_googles_published_limit() -> None:
    assert 40 <= capacity(RATE) <= 45, "45 is the arithmetic ceiling at leases of 300 s"
    assert capacity(RATE, 60.0) == 7


@pytest.mark.parametrize(("leases", "expected"), [(1, 105.0), (20, 105.0), (30, 97.5), (35, 63.75), (40, 30.0)])
def test_the_margin_shrinks_as_the_budget_fills(leases: int, expected: float) -> None:
    assert margin(300.0, leases, RATE) == pytest.approx(expected, abs=1.0)


@given(st.floats(5, 3600), st.integers(1, 100))
def test_two_paced_retries_always_fit(life: float, leases: int) -> None:
    found = margin(life, leases, RATE)
    assert found >= least_margin(life)
    assert found <= 0.35 * life + 1e-6
    assert least_margin(life) >= min(30.0, 0.1 * life)


@given(
    life=st.floats(5, 3600),
    phase=st.floats(0, 1),
    share=st.floats(0.1, 0.35),
    pace=st.floats(0, 60),
)
def test_an_extension_is_possible_before_it_is_due_and_due_before_the_end(
    life: float, phase: float, share: float, pace: float
) -> None:
    times = extension_times(100.0, life, phase=phase, margin=share * life, pace=pace)
    assert 100.0 + 0.5 * life <= times.not_before <= times.due < 100.0 + life


def test_the_devices_own_limits_put_an_extension_off() -> None:
    times = extension_times(0.0, 60.0, phase=0.0, margin=15.0, pace=36.0)
    assert times.not_before == pytest.approx(39.6)


def test_admission_is_first_come_first_served() -> None:
    cameras = [Load(f"c{n}") for n in range(60)]
    admitted = admit(cameras, RATE)
    assert admitted == {f"c{n}" for n in range(capacity(RATE))}


def test_short_lives_and_renewals_cost_more() -> None:
    assert Load("a", 60.0).rate > 5 * Load("a", 300.0).rate
    assert Load("a", 300.0, 2).rate == 2 * Load("a", 300.0).rate


def test_the_reserve_goes_when_every_place_is_needed() -> None:
    assert reserve(10, 20, 300.0, 60.75) == 1
    assert reserve(10, 40, 300.0, 60.75) == 0
    assert reserve(1, 1, 300.0, 60.75) == 0
