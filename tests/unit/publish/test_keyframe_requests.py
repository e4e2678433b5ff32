"""Keyframes are ineffective only when two complete ones, sent after the requests began, have not ended these."""

from __future__ import annotations

import random

from relay_worker.publish.keyframe_requests import CALM, KeyframeRequestMonitor, RequestState, VideoTotals


class Rig:
    """A publication, second by second."""

    def __init__(self) -> None:
        self.requests = KeyframeRequestMonitor()
        self.now, self.asked, self.keyframes, self.cut, self.publication = 100.0, 0, 0, 0, "one"
        self.second()

    def second(self, *, asks: int = 0, keyframes: int = 0, cut: int = 0, live: bool = True) -> float:
        """One more second; for how long requests have been in vain."""
        self.now += 1.0
        self.asked += asks
        self.keyframes += keyframes
        self.cut += cut
        sent = VideoTotals(self.publication, self.asked, self.keyframes, self.cut) if live else None
        self.requests.observe(sent, self.now)
        return self.requests.ineffective_for(self.now)


def test_forty_requests_in_eight_seconds_with_a_keyframe_every_two_are_in_vain() -> None:
    rig = Rig()
    found = [rig.second(asks=5, keyframes=second % 2) for second in range(10)]
    assert found[4] == 0.0, "only one whole keyframe has been shown not to help"
    assert found[-1] > 0.0
    assert rig.requests.judged == 1


def test_a_newcomer_whom_the_next_keyframe_helps_is_not_in_vain() -> None:
    rig = Rig()
    for _ in range(20):
        assert rig.second(asks=5) == 0.0
        assert rig.second(asks=3, keyframes=1) == 0.0  # the last ones were on their way when it left
        for _ in range(int(CALM) + 2):
            assert rig.second() == 0.0
    assert rig.requests.state is RequestState.QUIET


def test_a_keyframe_that_left_before_the_requests_began_counts_for_nothing() -> None:
    rig = Rig()
    rig.second(keyframes=1)
    rig.second(asks=5, keyframes=1)  # in the same second: nobody knows which was first
    assert rig.requests.state is RequestState.ASKING
    for _ in range(30):
        assert rig.second(asks=5) == 0.0, "no whole keyframe has left since"


def test_a_camera_that_answers_each_request_with_a_keyframe_is_judged_as_well() -> None:
    rig = Rig()
    assert [rig.second(asks=5, keyframes=1) for _ in range(10)][-1] > 0.0


def test_a_keyframe_of_which_a_part_was_left_out_is_not_whole() -> None:
    rig = Rig()
    for _ in range(30):
        assert rig.second(asks=5, keyframes=1, cut=1) == 0.0


def test_requests_that_end_end_the_verdict() -> None:
    rig = Rig()
    for second in range(12):
        rig.second(asks=5, keyframes=second % 2)
    assert rig.second(asks=5) > 0.0
    assert [rig.second() > 0.0 for _ in range(5)] == [True] * int(CALM) + [False]


def test_another_publication_or_a_camera_that_is_not_live_begins_anew() -> None:
    for change in ("publication", "live"):
        rig = Rig()
        for second in range(12):
            rig.second(asks=5, keyframes=second % 2)
        assert rig.second(asks=5) > 0.0
        if change == "publication":
            rig.publication = "two"
        assert rig.second(asks=5, live=change != "live") == 0.0


def test_it_never_judges_sooner_than_two_keyframes_whatever_comes() -> None:
    rng = random.Random(11)
    for _ in range(300):
        rig = Rig()
        began, left = None, 0
        for _ in range(40):
            asks, keyframes = rng.choice((0, 0, 1, 5)), rng.choice((0, 0, 1))
            vain = rig.second(asks=asks, keyframes=keyframes)
            if began is not None:
                left += keyframes
            if asks and began is None:
                began = rig.now
            if vain:
                assert left >= 2
                assert asks or rig.requests.state is RequestState.INEFFECTIVE
                break
