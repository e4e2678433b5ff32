"""Sent packets kept for retransmission."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_worker.publish.history import SentHistory, SentRun


def run(sequence: int, now: float, count: int = 1, size: int = 1000) -> SentRun:
    return SentRun(now, sequence, 0, 0, [(bytes(size), 96)] * count, size * count, 0)


def test_packets_stay_for_their_time_and_no_longer() -> None:
    history = SentHistory(seconds=1.5)
    for index in range(300):
        history.append(run(index, index / 100))
    # The last was sent at 2.99: everything since 1.49 must be there.
    assert all(history.get(sequence) is not None for sequence in range(150, 300))
    assert history.get(140) is None
    assert history.get(300) is None
    assert history.evicted_early == 0


def test_bytes_bound_it_and_early_losses_are_counted() -> None:
    history = SentHistory(seconds=10, max_bytes=50_000)
    for index in range(80):
        history.append(run(index, 0.0))
    assert history.bytes == 50_000
    assert history.evicted_early == 30
    assert history.get(29) is None
    assert history.get(30) is not None


def test_by_default_a_second_is_kept_whole_with_a_keyframe_of_300_kb() -> None:
    history = SentHistory()
    history.append(run(0, 10.0, count=250, size=1200))
    for index in range(300):
        history.append(run(250 + index, 10.0 + (index + 1) / 300, size=1200))
    assert all(history.get(sequence) is not None for sequence in range(550))
    assert history.evicted_early == 0


def test_size_of_what_was_reported_on() -> None:
    history = SentHistory()
    for index in range(20):
        history.append(run(0xFFF0 + index & 0xFFFF, index / 30, size=1000 if index < 10 else 500))
    assert history.size_of(0x0003, 10) == 500
    assert history.size_of(0x0003, 20) == 750
    assert history.size_of(0x1000, 5) == 0


@given(st.integers(0, 0xFFFF), st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_numbers_wrap(first: int, counts: list[int]) -> None:
    history = SentHistory(seconds=1e9)
    total = 0
    for count in counts:
        packets = [((total + index).to_bytes(2, "big"), 96) for index in range(count)]
        history.append(SentRun(0.0, (first + total) & 0xFFFF, total, 0, packets, 2 * count, total))
        total += count
    for index in (0, total // 2, total - 1):
        found = history.get((first + index) & 0xFFFF)
        assert found is not None
        assert int.from_bytes(found.payload, "big") == found.transport_sequence == index
    assert history.get((first + total) & 0xFFFF) is None
    assert history.get((first - 1) & 0xFFFF) is None


def test_a_repeat_within_the_interval_is_refused_and_forgotten_with_its_packet() -> None:
    history = SentHistory(seconds=1.0)
    history.append(run(7, 0.0, 3))
    assert history.resend(9, 0.05, 0.05)
    assert history.resend(7, 0.1, 0.05)
    assert not history.resend(7, 0.12, 0.05)
    assert history.resend(7, 0.16, 0.05)
    history.append(run(10, 5.0))
    assert not history._resent
