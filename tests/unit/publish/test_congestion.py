"""The ceiling and what the pacer makes of it, against a link of limited rate, with receiver reports alone."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from relay_worker.publish.congestion import CongestionController, PathSample
from relay_worker.publish.pacer import PACKET_OVERHEAD, Pacer, Release
from tests.fixtures.link_emulator import Link
from tests.fixtures.pacing import hand_in

FPS = 30
GOP = 60
KEYFRAME, PICTURE = 20, 3
"""Packets: about 940 kbit/s at 1200 bytes."""
NEEDED = 8 * FPS * (1200 + PACKET_OVERHEAD) * (KEYFRAME + (GOP - 1) * PICTURE) / GOP


class World:
    """A camera, a pacer, a link, and an SFU that sends a receiver report a second. `now` is moved by hand."""

    def __init__(self, link: Link) -> None:
        self.link, self.pacer, self.control = link, Pacer(), CongestionController()
        self.now = 100.0
        self.arrived: list[tuple[float, float]] = []
        """(arrival, media time) of each packet."""
        self._flight: list[tuple[float, int, float | None]] = []
        self._order = itertools.count()
        self._frame = 0
        self._lost = self._got = 0
        self._report_at = self.now + 1.0
        self.ceilings: list[float | None] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            camera = 100.0 + self._frame / FPS
            due = min(camera, self._report_at, self.pacer.next_deadline() or 1e9)
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            if camera <= self.now:
                self._shoot()
            if self._report_at <= self.now:
                self._report()
            self._leave(self.pacer.pop(self.now))

    def _leave(self, releases: list[Release]) -> None:
        for release in releases:
            for payload, _ in release.payloads:
                self._cross(len(payload) + PACKET_OVERHEAD, release.media_time)

    def _shoot(self) -> None:
        key = self._frame % GOP == 0
        head = (b"\x67" if key else b"\x41") + bytes(1199)
        payloads = [(head, False)] * (KEYFRAME if key else PICTURE)
        self._leave(hand_in(self.pacer, "video", payloads, 100.0 + self._frame / FPS, self.now))
        self._frame += 1
        if self.control.probing:
            while self.pacer.spare(self.now) > 1200:
                self.pacer.charge(1200)
                self._cross(1200 + PACKET_OVERHEAD, None)

    def _cross(self, size: int, media_time: float | None) -> None:
        """A packet enters the link; a probe has no media time."""
        at = self.link.admit(size, self.now)
        if at is None:
            self._lost += 1
        else:
            heapq.heappush(self._flight, (at, next(self._order), media_time))

    def _report(self) -> None:
        while self._flight and self._flight[0][0] <= self.now:
            at, _, media_time = heapq.heappop(self._flight)
            if media_time is not None:
                self.arrived.append((at, media_time))
            self._got += 1
        # What the sender knows from the last sender report's round trip: the queue that it met.
        queue = max(0.0, self.link.busy_until - self.now) if self.link.rate else 0.0
        loss = self._lost / max(1, self._lost + self._got)
        delivered = 8 * (1200 + PACKET_OVERHEAD) * self._got
        self.control.update(PathSample(delivered, loss, queue, self.pacer.limited), self.now)
        self.pacer.limited = False
        self.pacer.ceiling = self.control.ceiling
        self.pacer.network_delay = queue
        self.ceilings.append(self.pacer.ceiling)
        self._lost = self._got = 0
        self._report_at += 1.0

    def since(self, at: float) -> list[tuple[float, float]]:
        return [packet for packet in self.arrived if packet[0] >= at]

    def frames(self, since: float) -> int:
        return len({media for _, media in self.since(since)})


def test_a_link_that_is_wide_enough_is_never_limited() -> None:
    world = World(Link(rate=1.4 * NEEDED, delay=0.02))
    world.run(60)
    assert set(world.ceilings) == {None}
    assert world.pacer.stats.thinned_frames == 0


def test_repaired_random_loss_is_not_congestion() -> None:
    world = World(Link(loss=0.05, delay=0.04, rng=random.Random(3)))
    world.run(60)
    assert set(world.ceilings) == {None}


@pytest.mark.parametrize("queue", [40_000, 100_000, 1_000_000])
def test_at_80_percent_the_picture_is_thinned_and_late_by_less_than_1500_ms(queue: int) -> None:
    world = World(Link(rate=0.8 * NEEDED, delay=0.02, queue=queue))
    world.run(60)
    assert max(at - media for at, media in world.arrived) <= 1.5
    assert world.pacer.stats.thinned_frames > 0
    # Live and never black: pictures in every stretch of two groups, and most of those the link could carry.
    for start in range(100, 156):
        assert any(start <= at < start + 2 for at, _ in world.arrived), start
    assert world.frames(110) / (50 * FPS) >= 0.45
    assert world.link.overflowed <= 300


def test_recovery_is_quick() -> None:
    world = World(Link(rate=0.8 * NEEDED, delay=0.02, queue=100_000))
    world.run(20)
    world.link.rate = 10e6
    world.run(15)
    thinned = world.pacer.stats.thinned_frames
    world.run(10)
    assert world.pacer.stats.thinned_frames == thinned
    assert world.ceilings[-1] is None
    assert max(at - media for at, media in world.since(world.now - 9)) <= 0.3


def test_a_link_that_nearly_breaks_leaves_keyframes_and_comes_back() -> None:
    world = World(Link(delay=0.02, queue=60_000))
    world.run(5)
    world.link.rate = 0.2 * NEEDED
    world.run(20)
    assert world.frames(world.now - 10) >= 3
    world.link.rate = 0.0
    world.run(30)
    assert world.ceilings[-1] is None


def test_a_longer_route_or_radio_loss_is_accepted_in_the_end() -> None:
    control = CongestionController()
    for sample in (PathSample(1e6, 0.0, 0.25, True), PathSample(1e6, 0.2, 0.0, True)):
        for second in range(40):
            control.update(sample, 100.0 + second)
        before = control.decreases
        for second in range(40, 60):
            control.update(sample, 100.0 + second)
        assert control.decreases == before


def test_remb_alone_is_no_ceiling() -> None:
    control = CongestionController()
    for second in range(60):
        control.remb(47_000, needed=1e6, now=10.0 + second)
        control.update(PathSample(1e6, 0.0, 0.0, False), 10.0 + second)
    assert control.ceiling is None


def test_remb_lowers_the_bar_for_a_queue_while_it_is_fresh_and_matters() -> None:
    def ceiling(bitrate: float, age: float, queue: float) -> float | None:
        control = CongestionController()
        for second in range(3):
            control.remb(bitrate, needed=1e6, now=10.0 + second - age)
            control.update(PathSample(1e6, 0.0, queue, False), 10.0 + second)
        return control.ceiling

    assert ceiling(800_000, 0.0, 0.08) == 800_000
    assert ceiling(100_000, 0.0, 0.08) == pytest.approx(700_000), "more than that arrived at the same time"
    assert ceiling(800_000, 5.1, 0.08) is None
    assert ceiling(5_000_000, 0.0, 0.08) is None
    assert ceiling(800_000, 0.0, 0.03) is None


def test_a_ceiling_that_was_wrong_costs_seconds() -> None:
    world = World(Link(delay=0.02, queue=100_000, rate=0.05 * NEEDED))
    world.run(10)
    world.link.rate = 0.0
    assert (world.pacer.ceiling or NEEDED) <= 0.2 * NEEDED
    world.run(12)
    thinned = world.pacer.stats.thinned_frames
    world.run(10)
    assert world.pacer.stats.thinned_frames == thinned


def test_from_80_percent_to_full_takes_ten_seconds_at_most() -> None:
    """From the moment when the link is wide again to the last picture that is left out."""
    for began in (20.0, 20.3, 21.1, 21.9, 23.4):
        world = World(Link(rate=0.8 * NEEDED, delay=0.02, queue=100_000))
        world.run(began)
        world.link.rate = 10e6
        world.run(10)
        thinned = world.pacer.stats.thinned_frames
        world.run(10)
        assert world.pacer.stats.thinned_frames == thinned, began


def test_a_ceiling_does_not_rise_while_a_queue_grows() -> None:
    control = CongestionController()
    for second, queue in enumerate((0.2, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0)):
        control.update(PathSample(1e6, 0.0, queue, True), 10.0 + second)
    known = control.ceiling
    assert known is not None
    control.update(PathSample(1e6, 0.0, 0.06, True), 17.0)
    assert control.ceiling == known, "at the limit of 0.1 s it would be too late: a report is a second old"
    control.update(PathSample(1e6, 0.0, 0.06, True), 18.0)
    assert control.ceiling > known, "a longer way is not a queue that grows"
