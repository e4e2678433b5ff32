"""The pairing of packets at both ends of a relay, which the benchmark's delay rests on."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.benchmarks.delay import match

PERIOD = 300
"""Packets in the camera's loop: their sizes repeat after it."""


def stream(count: int = 900, delay: float = 0.002) -> tuple[list[Any], list[Any]]:
    """What a camera wrote, and the same packets as they arrived `delay` later under other numbers."""
    rng = random.Random(1)
    loop = [(rng.randrange(100, 1212), rng.random() < 0.1) for _ in range(PERIOD)]
    sent, arrived = [], []
    for index in range(count):
        size, marker = loop[index % PERIOD]
        at = 100.0 + index / 250
        sent.append((at, "video", 1, index, index * 90, size, marker, index))
        arrived.append((at + delay, 2, 5000 + index, index * 90 + 77, size, marker, index))
    return sent, arrived


def test_every_packet_finds_its_partner() -> None:
    sent, arrived = stream(delay=0.003)
    delays = match(sent, arrived)
    assert len(delays.seconds) == len(sent)
    assert delays.unmatched == 0
    assert delays.quantile(0.5) == pytest.approx(0.003)


def test_a_payload_that_is_not_the_cameras_is_counted() -> None:
    sent, arrived = stream()
    assert match(sent, arrived).altered == 0
    arrived[450] = (*arrived[450][:6], 99999)
    assert match(sent, arrived).altered == 1
    assert match(sent, [entry[:6] for entry in arrived]).altered == 0, "a log without them"


def test_logs_that_begin_and_end_at_different_packets() -> None:
    sent, arrived = stream()
    delays = match(sent[40:], arrived[:-40])
    assert delays.quantile(0.99) == pytest.approx(0.002)
    assert len(delays.seconds) == len(sent) - 80


def test_a_lost_packet_costs_itself_and_no_false_pairs() -> None:
    sent, arrived = stream()
    del arrived[450]
    delays = match(sent, arrived, longest=1.0)
    assert delays.quantile(1.0) == pytest.approx(0.002), "no packet is paired with another one"
    assert 0 < delays.unmatched <= 24


def test_a_slow_packet_shows_in_the_tail() -> None:
    sent, arrived = stream()
    arrived[450] = (arrived[450][0] + 0.5, *arrived[450][1:])
    delays = match(sent, arrived)
    assert delays.quantile(1.0) == pytest.approx(0.502)
    assert delays.quantile(0.99) == pytest.approx(0.002)


def test_nothing_in_common() -> None:
    sent, _ = stream(100)
    delays = match(sent, [(entry[0], 2, 0, 0, 9999, False) for entry in sent])
    assert delays.seconds == []
    with pytest.raises(ValueError, match="no packet was matched"):
        delays.quantile(0.5)
