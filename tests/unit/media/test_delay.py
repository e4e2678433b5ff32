"""The meter of what the relay adds, the pacer's part included."""

from __future__ import annotations

import pytest

from relay_worker.media.delay import SAMPLES, DelayMeter


def test_quantiles_are_over_packets_not_runs() -> None:
    meter = DelayMeter()
    for _ in range(98):
        meter.add(0.001)
    meter.add(0.5, packets=100)  # a keyframe that was held
    assert meter.take() == (0.5, 0.5)
    for _ in range(99):
        meter.add(0.001, packets=10)
    meter.add(0.5, packets=10)
    assert meter.take() == (0.001, 0.001)
    for _ in range(98):
        meter.add(0.001, packets=10)
    meter.add(0.5, packets=20)
    assert meter.take() == (0.001, 0.5)


def test_each_interval_is_its_own_and_bounded() -> None:
    meter = DelayMeter()
    assert meter.take() == (0.0, 0.0)
    for index in range(3 * SAMPLES):
        meter.add(1.0 if index < SAMPLES else 0.002)
    assert meter.take() == pytest.approx((0.002, 0.002))
    assert meter.take() == (0.0, 0.0)
