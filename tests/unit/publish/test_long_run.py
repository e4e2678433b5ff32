"""Ten minutes of a camera that bursts and whose clock is off, on a hand-moved clock: timeline, smoother and pacer."""

from __future__ import annotations

import itertools

import pytest

from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.packetizer import video_track
from relay_worker.media.stream import Frame
from relay_worker.pipeline import Pipeline
from relay_worker.publish.pacer import Pacer, Release
from tests.fixtures.manual_camera import ManualCamera
from tests.fixtures.pacing import hand_in

VIDEO = video_track(VideoSpec(width=64, height=64, seconds=10.0))


class PacedOutput:
    """A publication's pacer as the pipeline's output; notes for each frame when its first packet leaves."""

    def __init__(self) -> None:
        self.pacer = Pacer()
        self.left: dict[float, float] = {}
        self.came: dict[float, float] = {}

    def send(self, frame: Frame, now: float) -> None:
        while (deadline := self.pacer.next_deadline()) is not None and deadline <= now:
            self._leave(self.pacer.pop(deadline), deadline)
        self.came.setdefault(frame.media_time, now)
        self._leave(hand_in(self.pacer, "video", frame.payloads, frame.media_time, now), now)

    def _leave(self, releases: list[Release], now: float) -> None:
        for release in releases:
            self.left.setdefault(release.media_time, now)

    def jitter(self) -> float:
        """The highest interarrival jitter (RFC 3550 §6.4.1) after the first ten seconds, seconds."""
        worst = jitter = 0.0
        frames = sorted(self.left.items())
        for (media, left), (next_media, next_left) in itertools.pairwise(frames):
            jitter += (abs((next_left - left) - (next_media - media)) - jitter) / 16
            if left - frames[0][1] > 10.0:
                worst = max(worst, jitter)
        return worst

    def delays(self, first: float, last: float) -> list[float]:
        """Seconds from a frame's media time, which is when it would have come without any delay, to its leaving."""
        begin = min(self.left)
        return [left - media for media, left in self.left.items() if begin + first <= media < begin + last]


@pytest.mark.slow
@pytest.mark.parametrize("reports", [True, False], ids=["reports", "no reports"])
@pytest.mark.parametrize("ppm", [200.0, -200.0])
def test_bursts_and_drift_neither_add_jitter_nor_let_delay_grow(ppm: float, reports: bool) -> None:
    pipeline, output = Pipeline(audio=False), PacedOutput()
    pipeline.output = output
    camera = ManualCamera(pipeline, VIDEO)
    camera.inflict("burst")
    camera.inflict("drift", ppm=ppm)
    if not reports:
        camera.inflict("no_sender_reports")
    camera.connect()
    camera.run(600.0)
    assert output.pacer.stats.dropped_packets == 0
    assert output.jitter() <= 0.010
    early, late = output.delays(20, 60), output.delays(540, 590)
    assert max(early) <= 0.6
    assert max(late) <= max(early) + 0.05  # a frame more or less in a burst is one thirtieth
    frames = [left - output.came[media] for media, left in output.left.items()]
    assert max(frames) <= 0.6


def test_an_even_source_is_not_delayed_at_all() -> None:
    pipeline, output = Pipeline(audio=False), PacedOutput()
    pipeline.output = output
    camera = ManualCamera(pipeline, VIDEO)
    camera.inflict("drift", ppm=200.0)
    camera.connect()
    camera.run(120.0)
    assert all(left == output.came[media] for media, left in output.left.items())
