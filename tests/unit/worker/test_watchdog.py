"""Wedges: found within ten seconds, named, and not mended over and over."""

from __future__ import annotations

import itertools

from relay_common.protocol import Stage
from relay_worker.media.stream import Kind
from relay_worker.watchdog import MAX_STALL_TIMEOUT, Rebuild, TrackTotals, Verdict, Watchdog


class Camera:
    """Counters that rise, as long as nothing is stuck."""

    def __init__(self, kind: Kind = Kind.VIDEO) -> None:
        self.kind, self.dog, self.now = kind, Watchdog(), 100.0
        self.totals = TrackTotals(0, 0, 0, published=True)
        self.stuck: set[str] = set()
        self.verdicts: list[tuple[float, Verdict]] = []

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            steps = {"packets_in": 275, "frames": 30, "packets_out": 280}
            grown = {n: getattr(self.totals, n) + step for n, step in steps.items() if n not in self.stuck}
            self.totals = self.totals._replace(**grown)
            verdict = self.dog.observe(self.kind, self.totals, self.now)
            if verdict is not None:
                self.verdicts.append((self.now, verdict))


def test_health_and_a_silent_source_are_no_wedge() -> None:
    camera = Camera()
    camera.run(600)
    camera.stuck = {"packets_in", "frames", "packets_out"}
    camera.run(600)
    camera.stuck = {"packets_in", "frames"}  # filler goes out
    camera.run(60)
    assert camera.verdicts == []


def test_packets_without_frames() -> None:
    for kind, rebuild in ((Kind.VIDEO, Rebuild.SOURCE), (Kind.AUDIO, Rebuild.INPUT)):
        camera = Camera(kind)
        camera.run(30)
        camera.stuck = {"frames", "packets_out"}
        since = camera.now
        camera.run(10)
        [(at, verdict)] = camera.verdicts
        assert at - since <= 10
        assert (verdict.kind, verdict.stage, verdict.rebuild) == (kind, Stage.DECODE, rebuild)
        assert kind.value in verdict.reason


def test_frames_that_are_not_sent() -> None:
    camera = Camera()
    camera.run(30)
    camera.stuck = {"packets_out"}
    since = camera.now
    camera.run(10)
    [(at, verdict)] = camera.verdicts
    assert at - since <= 10
    assert (verdict.stage, verdict.rebuild) == (Stage.SENDING, Rebuild.PUBLICATION)


def test_nothing_is_expected_of_a_publication_that_is_not_there() -> None:
    camera = Camera()
    camera.run(5)
    camera.stuck = {"packets_out"}
    camera.totals = camera.totals._replace(published=False)
    camera.run(60)
    assert camera.verdicts == []


def test_what_mending_does_not_help_is_tried_ever_more_rarely() -> None:
    camera = Camera()
    camera.stuck = {"frames"}
    camera.run(1000)
    times = [at for at, _ in camera.verdicts]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= MAX_STALL_TIMEOUT
    assert len(times) <= 13
    # One that recovers is judged as before.
    camera.stuck = set()
    camera.run(5)
    camera.stuck = {"frames"}
    camera.verdicts.clear()
    camera.run(10)
    assert len(camera.verdicts) == 1


def test_a_watchdog_that_stood_still_blames_no_stage_for_it() -> None:
    for kind in Kind:
        camera = Camera(kind)
        camera.run(30)
        camera.now += 120.0
        camera.stuck = {"frames", "packets_out"}  # what has come in meanwhile has not passed the stages yet
        camera.run(2)
        camera.stuck = set()
        camera.run(60)
        assert camera.verdicts == []
        camera.stuck = {"frames", "packets_out"}
        camera.run(10)
        assert len(camera.verdicts) == 1
