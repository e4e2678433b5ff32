"""How much of the stream the uplink carries: measured, and in the words of the status."""

from __future__ import annotations

from typing import Any

import pytest

from relay_common.worker_stats import TrackStats, uplink_share
from relay_worker.publish.share import SHORTEST, STALE, WINDOW, ShareMeter, UplinkShare
from relay_worker.rtp import rtcp
from tests.unit.publish.test_uplink import FAR, NEEDED, World

RATE = 250_000
"""Bytes a second: 2 Mbit/s."""


def reports(meter: ShareMeter, seconds: int, *, share: float, thinned: int = 5, start: int = 0) -> None:
    for second in range(start, start + seconds + 1):
        acknowledged = share * RATE * (second - start)
        meter.add(second, offered=RATE * second, acknowledged=acknowledged, thinned=thinned * (second - start))


def test_what_arrives_of_what_the_camera_sends() -> None:
    meter = ShareMeter()
    reports(meter, 10, share=0.6)
    assert meter.measured(10.0) == pytest.approx(UplinkShare(1.2e6, 2e6))


def test_nothing_is_said_while_nothing_is_left_out() -> None:
    meter = ShareMeter()
    reports(meter, 10, share=0.6, thinned=0)
    assert meter.measured(10.0) is None, "a loss alone is no lack of room"
    meter = ShareMeter()
    reports(meter, 10, share=0.98)
    assert meter.measured(10.0) is None, "as good as all"


def test_nothing_is_said_of_too_little_or_of_long_ago() -> None:
    meter = ShareMeter()
    assert meter.measured(0.0) is None
    reports(meter, round(SHORTEST) - 1, share=0.6)
    assert meter.measured(SHORTEST) is None
    reports(meter, 10, share=0.6)
    assert meter.measured(10.0 + STALE) is not None
    assert meter.measured(10.1 + STALE) is None


def test_it_ends_soon_after_the_uplink_carries_everything_again() -> None:
    meter = ShareMeter()
    for second in range(60):
        well = max(0, second - 30)
        carried = RATE * (0.6 * min(second, 30) + well)
        meter.add(second, offered=RATE * second, acknowledged=carried, thinned=min(second, 30))
        if SHORTEST <= second <= 30:
            assert meter.measured(second) == pytest.approx(UplinkShare(1.2e6, 2e6))
        elif second >= 30 + WINDOW:
            assert meter.measured(second) is None


def test_a_thinned_stream_is_measured_at_the_sfu(wire: Any) -> None:
    world = World(wire)
    world.run(4)
    assert world.uplink.share(world.now) is None
    world.run(3, loss=0.4)
    began = world.track.stats.bytes
    world.run(round(WINDOW), queue=0.3)
    share = world.uplink.share(world.now)
    assert share is not None
    assert share.offered == pytest.approx(NEEDED, rel=0.05)
    left = 8 * (world.track.stats.bytes - began) / WINDOW
    assert 0.1 * NEEDED < share.carried < 0.9 * NEEDED
    assert share.carried == pytest.approx(left, rel=0.03), "all that left has arrived, and nothing else is counted"
    world.pacer.ceiling = None
    assert world.uplink.share(world.now) is None, "without a ceiling it is not the uplink that leaves pictures out"


def test_probes_count_for_nothing(wire: Any) -> None:
    world = World(wire)
    world.gop = 4
    world.run(4)
    world.run(4, loss=0.4)
    left = [float(world.track.stats.bytes)]
    measured = 0
    while world.pacer.ceiling is not None:
        assert len(left) < 60, "the ceiling rises again"
        world.run(1)
        left.append(float(world.track.stats.bytes))
        share = world.uplink.share(world.now)
        if share is not None and len(left) > WINDOW:
            measured += 1
            sent = 8 * (left[-1] - left[-1 - round(WINDOW)]) / WINDOW
            assert share.carried == pytest.approx(sent, rel=0.03)
    assert measured > 0
    assert world.track.stats.probe_bytes > 0.05 * left[0], "it was probed meanwhile"
    assert world.uplink.share(world.now) is None


def test_an_estimate_alone_says_nothing(wire: Any) -> None:
    """A receiver that claims 100 kbit/s while everything arrives."""
    world = World(wire)
    for _ in range(20):
        world.play()
        world.hear(rtcp.pack_remb(FAR, 100_000, [world.track.ssrc]))
        world.report()
    assert world.uplink.share(world.now) is None
    assert world.track.stats.acknowledged_bytes == pytest.approx(world.pacer.stats.offered_bytes, rel=0.1)


@pytest.mark.parametrize(
    ("carried", "offered", "words"),
    [
        (1.2e6, 2e6, "the uplink carries 1.2 of 2.0 Mbit/s; pictures are left out"),
        (1.96e6, 2.04e6, "the uplink carries 1.96 of 2.04 Mbit/s; pictures are left out"),
        (0.0, 0.0, ""),
    ],
)
def test_words(carried: float, offered: float, words: str) -> None:
    assert uplink_share(TrackStats(carried=carried, offered=offered)) == words
