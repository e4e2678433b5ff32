"""A media loop that comes late while smooth pictures are made: they give way, and what was no fault of theirs does not
count."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from relay_worker.media.stream import Frame
from relay_worker.rendition.plan import KEYFRAMES, SMOOTH, TOO_BUSY
from relay_worker.rendition.rendition import LOOP_LATE, Rendition
from tests.fixtures.coded_pictures import camera_frames

LATE = 1.0 + LOOP_LATE + 0.1


class Loop:
    """A worker's event loop, by its clock: what is called from the thread is dropped."""

    def __init__(self) -> None:
        self.now, self.wanted_cpu = 1000.0, 5.0
        self.rendition = Rendition(
            self,
            lambda: self.now,
            lambda call: None,
            work=lambda done: lambda job: None,
            wanted_cpu=lambda: self.wanted_cpu,
        )
        self.rendition.configure(SMOOTH, watched=True, budget=1000.0)
        for frame in camera_frames(count=3, group=30):
            self.rendition.send(frame, self.now)
        self.check(0.0)

    def takes_rendition(self) -> bool:
        return True

    def send_rendition(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        raise AssertionError("nothing is made")

    def check(self, later: float, *, suspended: float = 0.0) -> tuple[str, str]:
        """The look that comes after so many seconds, in some of which the process was `suspended`: what is made
        then, and why no more."""
        self.now += later
        self.wanted_cpu += 0.2 + max(0.0, later - suspended - 1.0)
        deadline = time.monotonic() + 30.0
        while (thread := self.rendition._thread) is not None and thread.pending:
            assert time.monotonic() < deadline, "the thread does nothing"
            time.sleep(0.001)
        self.rendition.check(self.now)
        stats = self.rendition.stats(self.now)
        return stats.active, stats.reason


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.rendition.close()


def test_smooth_is_given_up_where_the_loop_comes_late(loop: Loop) -> None:
    assert [loop.check(1.0 + LOOP_LATE) for _ in range(3)] == [(SMOOTH, "")] * 3
    assert loop.check(LATE) == (KEYFRAMES, TOO_BUSY)
    assert [loop.check(1.0) for _ in range(50)] == [(KEYFRAMES, TOO_BUSY)] * 50
    assert [loop.check(1.0) for _ in range(15)][-1] == (SMOOTH, ""), "it is tried again after a minute"


def test_a_suspended_process_says_nothing_of_the_processor(loop: Loop) -> None:
    for pause in (25.0, 1.5):
        loop.now += pause
        loop.rendition.put_off(loop.now)
        assert loop.check(1.0) == (SMOOTH, "")
    assert loop.check(2.6, suspended=1.6) == (SMOOTH, ""), "too short to be taken for a pause"


def test_a_pause_for_want_of_a_processor_counts(loop: Loop) -> None:
    loop.now += 3.0
    loop.wanted_cpu += 2.5
    loop.rendition.put_off(loop.now)
    assert loop.check(1.0) == (KEYFRAMES, TOO_BUSY)


def test_without_smooth_nobody_asks_the_kernel(loop: Loop) -> None:
    loop.rendition.configure(KEYFRAMES, watched=True, budget=1000.0)
    loop.rendition._wanted_cpu = lambda: pytest.fail("a look that costs a system call")
    loop.check(1.0)
