"""Whose fault it is that a picture is not seen: the camera's, or that of one page among others that decode."""

from __future__ import annotations

import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import RecoverVideo, WorkerState
from relay_common.worker_stats import TrackStats, WorkerStats
from relay_supervisor.viewing.decoding import BROWSERS_FAULT, FRESH, HOLDS, Decodable, Decoding, PageState, Received
from relay_supervisor.viewing.verdicts import Verdicts

CAMERA = "porch"


class World:
    """One live camera with a keyframe every two seconds, and pages that report every five, second by second."""

    def __init__(self) -> None:
        self.decoding, self.clock = Decoding(), ManualClock()
        self.pages: dict[str, list[int]] = {}
        self.sees: dict[str, bool] = {}
        self.keyframes, self.loss, self.vain, self.live = 0, 0.0, 0.0, True
        self.sent: list[float] = []
        self.told: list[str] = []
        self.verdicts = Verdicts(
            self.decoding,
            self.clock,
            live=lambda: {CAMERA: self.stats() if self.live else None},
            send=self.send,
            tell=lambda words, camera: self.told.append(words),
        )
        self.second = 0

    def stats(self) -> WorkerStats:
        video = TrackStats(keyframes=self.keyframes, loss_out=self.loss)
        return WorkerStats(
            instance="i",
            camera=CAMERA,
            sequence=self.second,
            at=0.0,
            uptime=0.0,
            state=WorkerState.LIVE,
            video=video,
            requests_in_vain=self.vain,
        )

    def send(self, camera: str, message: RecoverVideo) -> bool:
        self.sent.append(self.second)
        return True

    def page(self, name: str, *, sees: bool) -> None:
        self.pages[name], self.sees[name] = [0, 0], sees

    def run(self, seconds: int) -> Decodable:
        for _ in range(seconds):
            self.second += 1
            self.keyframes += self.second % 2 == 0
            for name, totals in self.pages.items():
                totals[0] += 100_000
                totals[1] += 30 * self.sees[name]
                if self.second % 5 == 0:
                    told = Received(camera=CAMERA, bytes=totals[0], frames=totals[1])
                    self.decoding.report(name, told, float(self.second))
            self.verdicts.look(float(self.second))
        return self.verdicts.verdict(CAMERA).decodable

    def page_state(self, page: str) -> PageState:
        return self.decoding.page_state(page, CAMERA, float(self.second))


def test_nobody_who_watches_is_no_verdict() -> None:
    assert World().run(60) is Decodable.UNKNOWN


def test_a_page_that_gets_bytes_and_no_frame_over_two_whole_keyframes_makes_the_camera_undecodable() -> None:
    world = World()
    world.page("one", sees=False)
    assert world.run(9) is Decodable.UNKNOWN, "it may have come between two keyframes"
    assert world.run(11) is Decodable.NO
    verdict = world.verdicts.verdict(CAMERA)
    assert (verdict.stage, verdict.reason) == (
        "decode",
        "live, not decodable: browsers get its bytes, and decode no picture of them",
    )
    assert world.told == [verdict.reason]


@pytest.mark.parametrize(
    ("reports", "state"),
    [
        ([(0.0, 7), (15.0, 9)], PageState.WAITING),  # the first of the two may have been on its way
        ([(0.0, 7), (15.0, 10)], PageState.BLIND),
        ([(0.0, 7), (5.9, 20)], PageState.WAITING),
        ([(0.0, 7), (6.0, 20)], PageState.BLIND),
        ([(0.0, 7), (5.0, 1), (11.0, 4)], PageState.BLIND),  # of another worker, which counts its own
        ([(0.0, 7), (5.0, 1), (11.0, 3)], PageState.WAITING),
    ],
)
def test_a_page_is_blind_after_two_whole_keyframes_and_six_seconds(
    reports: list[tuple[float, int]], state: PageState
) -> None:
    """`reports`: when bytes without frames are reported, and how many keyframes the worker has counted by then."""
    world = World()
    for now, world.keyframes in reports:
        world.decoding.worker(CAMERA, world.stats(), now)
        world.decoding.report("page", Received(camera=CAMERA, bytes=1000 + int(now)), now)
    assert world.decoding.page_state("page", CAMERA, now) is state


def test_a_worker_that_no_longer_reports_is_not_judged() -> None:
    world = World()
    world.page("one", sees=False)
    assert world.run(20) is Decodable.NO
    assert world.decoding.verdict(CAMERA, world.second + HOLDS).decodable is Decodable.NO
    assert world.decoding.verdict(CAMERA, world.second + HOLDS + 0.1).decodable is Decodable.UNKNOWN


def test_bytes_without_frames_while_no_keyframe_leaves_are_no_verdict() -> None:
    world = World()
    world.page("one", sees=False)
    for _ in range(60):
        keyframes = world.keyframes
        assert world.run(1) is Decodable.UNKNOWN
        world.keyframes = keyframes


@pytest.mark.parametrize("requests", [False, True])
def test_one_page_among_others_that_decode_is_that_pages_fault(requests: bool) -> None:
    world = World()
    world.page("blind", sees=False)
    world.page("well", sees=True)
    world.vain = 30.0 if requests else 0.0
    assert world.run(60) is Decodable.YES
    assert world.page_state("blind") is PageState.BLIND
    now = float(world.second)
    assert world.decoding.fault("blind", CAMERA, now) == BROWSERS_FAULT
    assert world.decoding.fault("well", CAMERA, now) == ""
    assert (world.told, world.sent) == ([], [])


def test_requests_in_vain_are_a_verdict_where_no_page_is_known_to_decode() -> None:
    world = World()
    world.run(5)
    world.vain, world.loss = 12.0, 0.4
    assert world.run(6) is Decodable.UNKNOWN, "pages that decode may not have been heard yet"
    assert world.run(2) is Decodable.NO
    verdict = world.verdicts.verdict(CAMERA)
    assert verdict.stage == "sending"
    assert "viewers have requested keyframes for 12 s" in verdict.reason
    assert "loses 40%" in verdict.reason
    world.vain = 0.0
    assert world.run(2) is Decodable.UNKNOWN


def test_a_page_that_sees_again_ends_it_and_that_is_told() -> None:
    world = World()
    world.page("one", sees=False)
    assert world.run(20) is Decodable.NO
    world.sees["one"] = True
    assert world.run(5) is Decodable.YES
    assert world.told[-1] == "live: its picture is decoded again"


def test_a_camera_that_is_not_live_is_not_judged() -> None:
    world = World()
    world.page("one", sees=False)
    world.live = False
    assert world.run(60) is Decodable.UNKNOWN
    world.live = True
    assert world.run(4) is Decodable.UNKNOWN, "what was seen before it was live counts for nothing"
    assert world.run(20) is Decodable.NO


def test_what_a_page_pulls_anew_goes_on_waiting() -> None:
    world = World()
    world.page("one", sees=False)
    for _ in range(3):
        world.run(10)
        world.pages["one"] = [0, 0]  # another track, whose totals begin at zero
    assert world.page_state("one") is PageState.BLIND


def test_reports_that_are_too_old_and_views_that_ended_count_for_nothing() -> None:
    world = World()
    world.page("well", sees=True)
    world.run(5)
    assert world.page_state("well") is PageState.DECODING
    del world.pages["well"]
    world.run(int(FRESH) + 1)
    assert world.page_state("well") is PageState.UNKNOWN
    world.page("blind", sees=False)
    assert world.run(30) is Decodable.NO
    world.decoding.forget("blind")
    world.pages.clear()
    assert world.run(1) is Decodable.UNKNOWN


def test_a_remedy_is_asked_for_once_in_a_minute() -> None:
    world = World()
    world.page("one", sees=False)
    world.run(300)
    assert len(world.sent) >= 4
    assert min(b - a for a, b in zip(world.sent, world.sent[1:], strict=False)) >= 60
    assert world.verdicts.counters() == {"mends": len(world.sent)}
