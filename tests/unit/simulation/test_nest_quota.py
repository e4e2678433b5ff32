"""The simulator's accounting against brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_common.simulation.google.quota import Accounting, Bucket, Limits, most_in_any

calls = st.lists(st.floats(0, 500, allow_nan=False).map(lambda t: round(t, 2)), max_size=80).map(sorted)


@given(calls, st.integers(1, 12))
def test_sliding_bucket_refuses_exactly_what_exceeds_a_span(times: list[float], limit: int) -> None:
    bucket = Bucket(limit, 60.0)
    for index, now in enumerate(times):
        within_span = [t for t in times[: index + 1] if now - t < 60.0]
        assert bucket.charge(now) == (len(within_span) <= limit)


@given(calls, st.integers(1, 12))
def test_fixed_bucket_begins_its_window_with_a_call(times: list[float], limit: int) -> None:
    bucket = Bucket(limit, 60.0, "fixed")
    since, count = float("-inf"), 0
    for now in times:
        if now - since >= 60.0:
            since, count = now, 0
        count += 1
        assert bucket.charge(now) == (count <= limit)


@given(calls)
def test_most_in_any_agrees_with_brute_force(times: list[float]) -> None:
    expected = max((sum(0 <= t - start < 60.0 for t in times) for start in times), default=0)
    assert most_in_any(times, 60.0) == expected


def test_a_refused_call_counts() -> None:
    bucket = Bucket(1, 60.0)
    assert bucket.charge(0.0)
    assert not bucket.charge(59.0)
    assert not bucket.charge(60.0)
    assert bucket.charge(120.0)


def test_the_innermost_limit_is_named() -> None:
    accounting = Accounting(Limits())
    names = [accounting.execute("a", "CAMERA", "ExtendRtspStream", 10.0 + n) for n in range(6)]
    assert names == [None] * 5 + ["ExtendRtspStream API"]
    names = [accounting.execute("b", "CAMERA", "GenerateRtspStream", 20.0 + n) for n in range(5)]
    assert names == [None] * 4 + ["ExecuteDeviceCommand API"]
    assert accounting.refused == {"ExtendRtspStream API": 1, "ExecuteDeviceCommand API": 1}


def test_the_hour_of_a_camera_and_the_freedom_of_a_display() -> None:
    accounting = Accounting(Limits())
    camera = [accounting.execute("a", "CAMERA", "StopRtspStream", n * 20.0) for n in range(101)]
    display = [accounting.execute("b", "DISPLAY", "StopRtspStream", 5000 + n * 20.0) for n in range(101)]
    assert camera.index("CAMERA device per hour") == 100
    assert display == [None] * 101
