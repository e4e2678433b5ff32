"""Small pictures of a camera, made by the real thread and the real codecs while a manual clock says what time it is."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest

from relay_worker.media.stream import Frame, Kind
from relay_worker.rendition.codec import B_PICTURES
from relay_worker.rendition.maker import Made, MakeJob, PictureMaker
from relay_worker.rendition.plan import KEPT_FOR, KEYFRAMES, OFF, SMOOTH
from relay_worker.rendition.rendition import (
    AGAIN_AFTER,
    KEYFRAME_INTERVAL,
    LEAVES_IN,
    MOST_STUCK,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    STUCK_AFTER,
    STUCK_PAUSE,
    Rendition,
)
from relay_worker.rendition.repeat import EVERY
from tests.fixtures.coded_pictures import PayloadDecoder, camera_frames

GENEROUS = 30.0
"""Seconds that a busy machine may take for a picture."""
Work = Callable[[Callable[[Made], None]], Callable[[MakeJob], None]]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Viewer:
    """Takes small pictures, and plays the event loop of a worker whose clock stands still between steps."""

    def __init__(self, work: Work | None = None) -> None:
        self.now, self.there, self.asked, self.last = 1000.0, True, 0, 0.0
        self.sent: list[tuple[Frame, bool]] = []
        self.repeats: list[Frame] = []
        """Pictures of one packet with a dozen octets: nothing that shows anything is so small."""
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        clock = lambda: self.now  # noqa: E731
        joined = Frame(Kind.VIDEO, [(b"\x41\x9a", False)], 0.0)
        reads = itertools.count()
        # By this CPU clock each job takes half a millisecond: on a busy machine pictures are dear, and left out.
        work = work or (lambda done: PictureMaker(done, cpu=lambda: next(reads) * 0.5e-3).work)
        self.rendition = Rendition(self, clock, self._calls.put, on_keyframe_request=self._ask, work=work)
        # It joins the camera in the middle of its first picture.
        self.rendition.send(joined, self.now)

    def _ask(self) -> None:
        self.asked += 1

    def takes_rendition(self) -> bool:
        return self.there

    def send_rendition(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        assert frame.media_time > self.last, "one timestamp is one picture"
        self.last = frame.media_time
        if len(frame.payloads) == 1 and len(frame.payloads[0][0]) <= 12:
            assert not keyframe
            self.repeats.append(frame)
        else:
            self.sent.append((frame, keyframe))

    def play(self, frames: Sequence[Frame]) -> None:
        """Hand over the frames at their times, to a thread that is never behind."""
        for frame in frames:
            self.now = 1000.0 + frame.media_time
            self.rendition.send(frame, self.now)
            self.settle()

    def play_at_once(self, frames: Sequence[Frame], hanging: Hanging) -> None:
        """Hand over the frames while the thread is at the first of them that it gets."""
        begun = len(hanging.jobs)
        for frame in frames:
            self.now = 1000.0 + frame.media_time
            self.rendition.send(frame, self.now)
            thread = self.rendition._thread
            wait_until(lambda t=thread: t is None or not t.pending or len(hanging.jobs) > begun)  # type: ignore[misc]

    def settle(self) -> None:
        """Wait until the thread has done everything, and run what it had called."""
        thread = self.rendition._thread
        wait_until(lambda: thread is None or not thread.pending)
        self.run_calls()

    def run_calls(self) -> None:
        while not self._calls.empty():
            self._calls.get()()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1.0
            self.rendition.check(self.now)
            self.run_calls()

    @property
    def thread(self) -> threading.Thread:
        assert self.rendition._thread is not None
        return self.rendition._thread._thread

    @property
    def times(self) -> list[float]:
        return [round(frame.media_time, 3) for frame, _ in self.sent]


@pytest.fixture
def make_viewer() -> Iterator[Callable[..., Viewer]]:
    viewers = []

    def make(work: Work | None = None) -> Viewer:
        viewers.append(Viewer(work))
        return viewers[-1]

    yield make
    for viewer in viewers:
        viewer.rendition.close()


@pytest.fixture
def viewer(make_viewer: Callable[..., Viewer]) -> Viewer:
    return make_viewer()


def test_keyframes_are_made_small_and_decode(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(camera_frames(count=150, group=30))
    assert viewer.times == [1.0, 2.0, 3.0, 4.0]
    decoder = PayloadDecoder()
    for frame, keyframe in viewer.sent:
        assert keyframe
        assert decoder.decode(frame.payloads)[-1].width == 320
    stats = viewer.rendition.stats(viewer.now)
    assert (stats.mode, stats.active, stats.reason) == (KEYFRAMES, KEYFRAMES, "")
    assert (stats.pictures, stats.width, stats.height) == (4, 320, 180)
    assert stats.packets == sum(len(frame.payloads) for frame, _ in viewer.sent)
    assert stats.bytes > 0
    assert stats.cpu > 0


def test_between_keyframes_the_small_picture_is_repeated_while_somebody_watches(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=False, budget=0.0)
    frames = camera_frames(count=300, group=60)
    viewer.play(frames[:100])
    assert len(viewer.sent) == 1
    assert viewer.repeats == []
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.settle()
    assert len(viewer.sent) == 2
    viewer.play(frames[100:270])
    repeats = [frame.media_time for frame in viewer.repeats]
    assert len(repeats) == viewer.rendition.counters()["repeats"] == pytest.approx(170 / 30 / EVERY, abs=4)
    assert max(after - before for before, after in itertools.pairwise(repeats)) < 2 * EVERY + 0.04
    decoder, shown = PayloadDecoder(), []
    for frame in sorted([*viewer.repeats, *(frame for frame, _ in viewer.sent)], key=lambda frame: frame.media_time):
        (picture,) = decoder.decode(frame.payloads)
        assert not picture.is_corrupt
        shown.append(bytes(picture.planes[0]))
    # The first two are of one second.
    assert len(set(shown)) == len(viewer.sent) - (shown[0] == shown[1])
    viewer.rendition.configure(KEYFRAMES, watched=False, budget=0.0)
    viewer.play(frames[270:])
    assert len(viewer.repeats) == len(repeats)


def test_two_pictures_never_have_one_timestamp(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(camera_frames(count=100, group=30))
    for _ in range(3):
        viewer.now += AGAIN_AFTER  # the camera sends nothing meanwhile
        viewer.rendition.request_keyframe()
        viewer.settle()
    assert len(viewer.sent) == 6
    assert viewer.sent[-1][0].media_time - viewer.sent[-4][0].media_time < 0.4


def test_smooth_is_made_while_watched_and_keyframes_when_not(viewer: Viewer) -> None:
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    viewer.play(camera_frames(count=90, group=30))
    assert viewer.asked == 1, "nothing can be decoded before the camera's first keyframe"
    assert [keyframe for _, keyframe in viewer.sent] == [True] + [False] * 19
    decoder = PayloadDecoder()
    assert all(decoder.decode(frame.payloads)[0].width == 480 for frame, _ in viewer.sent)
    viewer.rendition.request_keyframe()
    viewer.play(camera_frames(count=90, group=30, begin=3.0)[:6])
    assert [keyframe for _, keyframe in viewer.sent[20:]] == [True, False]
    viewer.rendition.configure(SMOOTH, watched=False, budget=1e6)
    assert viewer.rendition.stats(viewer.now).active == KEYFRAMES
    assert viewer.asked == 1, "the camera is not asked again"


def test_a_request_is_answered_with_the_latest_picture_and_never_reaches_the_camera(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.rendition.request_keyframe()
    assert viewer.sent == [], "there is none yet"
    frames = camera_frames(count=300, group=150)
    viewer.play(frames[:200])
    assert viewer.times == [5.0]
    viewer.rendition.request_keyframe()
    viewer.settle()
    assert viewer.times == [5.0, round(frames[199].media_time, 3)]
    viewer.rendition.request_keyframe()
    viewer.settle()
    assert len(viewer.sent) == 2, "not more often than it helps"
    viewer.now += AGAIN_AFTER
    viewer.rendition.request_keyframe()
    viewer.settle()
    decoder = PayloadDecoder()
    assert [decoder.decode(frame.payloads)[0].width for frame, _ in viewer.sent] == [320] * 3
    assert all(keyframe for _, keyframe in viewer.sent)
    assert viewer.asked == 0


@pytest.mark.parametrize(("mode", "width"), [(KEYFRAMES, 320), (SMOOTH, 480)])
def test_who_comes_between_two_pictures_gets_the_cameras_latest_keyframe_at_once(
    viewer: Viewer, mode: str, width: int
) -> None:
    """Not the one of up to ten seconds ago that was made while nobody watched."""
    viewer.rendition.configure(mode, watched=False, budget=1e6)
    viewer.play(camera_frames(count=110, group=30))
    assert viewer.times == [1.0]
    jobs: list[MakeJob] = []
    thread = viewer.rendition._thread
    assert thread is not None
    submit = thread.submit
    thread.submit = lambda job: (jobs.append(job), submit(job))  # type: ignore[method-assign,assignment,return-value]
    viewer.rendition.configure(mode, watched=True, budget=1e6)
    viewer.settle()
    assert viewer.times[1:] == [3.633], "in the present, as far as the receiver can tell"
    assert [job.picture and job.picture.media_time for job in jobs] == [3.0]
    viewer.rendition.request_keyframe()
    viewer.settle()
    assert len(viewer.sent) == 2, "connected, it may still get most of that"
    decoder = PayloadDecoder()
    widths = [decoder.decode(frame.payloads)[0].width for frame, _ in viewer.sent]
    assert widths == [320, width]
    viewer.play(camera_frames(count=160, group=30)[110:130])
    later = viewer.sent[2:]
    assert later[0][0].media_time == pytest.approx(4.0)
    assert later[0][1], "a keyframe"
    assert len(later) == (1 if mode == KEYFRAMES else 4)
    assert all(decoder.decode(frame.payloads)[0].width == width for frame, _ in later)


def test_a_layer_that_nobody_watches_sends_one_picture_in_ten_seconds(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=False, budget=0.0)
    viewer.play(camera_frames(count=60, group=30))
    assert viewer.times == [1.0]
    for second in range(40):  # of a camera whose next keyframe is long in coming
        viewer.play(camera_frames(count=2, group=150, begin=2.0 + second)[1:])
        viewer.rendition.check(viewer.now)
        viewer.settle()
    gaps = [after - before for before, after in itertools.pairwise(viewer.times)]
    assert len(gaps) >= 3
    assert all(9.0 <= gap <= 11.5 for gap in gaps)


def test_off_makes_nothing_and_keeps_no_thread(viewer: Viewer) -> None:
    assert not viewer.rendition.wanted
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    assert viewer.rendition.wanted
    viewer.there = False
    assert not viewer.rendition.wanted, "there is nobody to send them to"
    assert viewer.rendition.stats(viewer.now).active == OFF
    viewer.there = True
    viewer.play(camera_frames(count=60, group=30))
    thread = viewer.thread
    viewer.rendition.configure(OFF, watched=False, budget=0.0)
    viewer.play(camera_frames(count=60, group=30, begin=2.0))
    assert viewer.times == [1.0]
    wait_until(lambda: not thread.is_alive())


class Hanging:
    """A decoder that does not return until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.jobs: list[MakeJob] = []

    def work(self, done: Callable[[Made], None]) -> Callable[[MakeJob], None]:
        def hang(job: MakeJob) -> None:
            self.jobs.append(job)
            self.free.wait(GENEROUS)
            done(Made(job, None, 1.0, 1, "", "late"))

        return hang


@pytest.fixture
def hanging() -> Hanging:
    return Hanging()


def test_a_picture_that_waits_gives_way_to_a_newer_one(make_viewer: Callable[..., Viewer], hanging: Hanging) -> None:
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play_at_once(camera_frames(count=150, group=30), hanging)
    assert viewer.rendition.stats(viewer.now).replaced == 2
    hanging.free.set()
    viewer.settle()
    assert [job.media_time for job in hanging.jobs] == [1.0, 4.0]


def test_what_waits_for_smooth_is_bounded_and_goes_on_at_a_keyframe(
    make_viewer: Callable[..., Viewer], hanging: Hanging
) -> None:
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    viewer.play_at_once(camera_frames(count=125, group=50), hanging)
    thread = viewer.rendition._thread
    assert thread is not None
    assert len(thread.waiting) <= MOST_WAITING
    hanging.free.set()
    viewer.settle()
    assert viewer.rendition.stats(viewer.now).replaced == MOST_WAITING
    first, second, *rest = hanging.jobs
    assert first.picture is not None
    assert second.picture is not None
    assert first.picture.keyframe
    assert second.picture.keyframe
    assert [job.media_time for job in rest] == sorted(job.media_time for job in rest)


def test_large_pictures_that_wait_are_bounded_by_their_bytes(
    make_viewer: Callable[..., Viewer], hanging: Hanging
) -> None:
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    frames = camera_frames(count=40, group=20)
    for frame in frames[21:]:
        frame.payloads = [(b"\x41" + bytes(1_000_000), True)]
    viewer.play_at_once(frames, hanging)
    thread = viewer.rendition._thread
    assert thread is not None
    held = sum(job.picture.size for job in thread.waiting if job.picture is not None)
    assert held <= MOST_WAITING_BYTES + 1_100_000
    assert viewer.rendition.stats(viewer.now).replaced > 0
    hanging.free.set()


def test_who_comes_from_the_full_picture_gets_the_parameter_sets_twice(viewer: Viewer) -> None:
    """It may have filled the line's queue, into which the first packet leaves."""

    def twice() -> list[bool]:
        keyframes = [frame.payloads for frame, keyframe in viewer.sent if keyframe and len(frame.payloads) > 2]
        return [payloads[0][0] == payloads[1][0] for payloads in keyframes]

    frames = camera_frames(1280, 720, count=240, group=30)
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(frames[:95])
    assert twice() == [True, False, False], "the first was asked for"
    viewer.rendition.request_keyframe()
    viewer.play(frames[95:130])
    assert twice()[3:] == [True, False], "who asked, and the camera's next one"
    viewer.sent.clear()
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    viewer.play(frames[130:190])
    viewer.rendition.request_keyframe()
    viewer.play(frames[190:])
    assert len(twice()) >= 2
    assert all(twice())


@pytest.mark.parametrize("mode", [KEYFRAMES, SMOOTH])
def test_what_is_asked_for_while_a_keyframe_leaves_is_made_of_a_later_moment(viewer: Viewer, mode: str) -> None:
    """Receivers take the clock from the first two pictures: their timestamps are as far apart as they leave."""
    frames = camera_frames(count=150, group=45)
    viewer.rendition.configure(mode, watched=False, budget=1e6)
    viewer.play(frames[:50])
    viewer.rendition.configure(mode, watched=True, budget=1e6)  # somebody comes …
    viewer.play(frames[50:53])
    viewer.rendition.request_keyframe()  # … and is connected
    viewer.play(frames[53:85])
    assert len(viewer.sent) == 3, "each was asked for once"
    (first, _), (second, _) = viewer.sent[1:]
    assert second.media_time - first.media_time == pytest.approx(LEAVES_IN, abs=0.05)


def test_many_who_ask_get_two_keyframes_a_second(viewer: Viewer) -> None:
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    for frame in camera_frames(count=150, group=30):
        viewer.rendition.request_keyframe()
        viewer.play([frame])
    keyframes = [time for time, (_, keyframe) in zip(viewer.times, viewer.sent, strict=True) if keyframe]
    assert len(viewer.sent) > 30
    assert len(keyframes) >= 3
    assert all(after - before > KEYFRAME_INTERVAL - 0.001 for before, after in itertools.pairwise(keyframes))


def test_a_decoder_that_hangs_is_given_up_and_the_media_loop_never_waits(
    make_viewer: Callable[..., Viewer], hanging: Hanging
) -> None:
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    threads = []
    for stuck in range(1, MOST_STUCK + 1):
        viewer.play_at_once(camera_frames(count=60, group=30, begin=viewer.now - 1000.0), hanging)
        threads.append(viewer.thread)
        viewer.pass_time(STUCK_AFTER + 1)
        stats = viewer.rendition.stats(viewer.now)
        assert (stats.stuck, stats.active) == (stuck, OFF)
        assert "hung" in stats.reason
        viewer.pass_time(STUCK_PAUSE)
    assert "until the camera's worker is replaced" in viewer.rendition.stats(viewer.now).reason
    viewer.play_at_once(camera_frames(count=60, group=30, begin=viewer.now - 1000.0), hanging)
    assert len(hanging.jobs) == MOST_STUCK
    hanging.free.set()
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    viewer.run_calls()
    stats = viewer.rendition.stats(viewer.now)
    assert (stats.failed, viewer.sent) == (0, []), "what comes back later counts for nothing"


def test_a_slow_machine_and_a_paused_one_are_no_hanging_decoder(
    make_viewer: Callable[..., Viewer], hanging: Hanging
) -> None:
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play_at_once(camera_frames(count=60, group=30), hanging)
    viewer.pass_time(STUCK_AFTER - 2)
    viewer.now += 25.0
    viewer.rendition.put_off(viewer.now)
    viewer.pass_time(STUCK_AFTER - 2)
    assert viewer.rendition.stats(viewer.now).stuck == 0
    hanging.free.set()
    viewer.settle()


def test_b_frames_leave_keyframes_and_say_so(viewer: Viewer) -> None:
    viewer.rendition.configure(SMOOTH, watched=True, budget=1e6)
    viewer.play(camera_frames(count=120, group=30, bf="2", x264_params="b-adapt=0"))
    stats = viewer.rendition.stats(viewer.now)
    assert (stats.active, stats.reason, stats.refused) == (KEYFRAMES, B_PICTURES, 1)
    assert viewer.rendition.counters()["refused_b_frames"] == 1
    assert viewer.times == [2.0, 3.0]


def test_too_large_pictures_are_refused_in_words_until_they_are_smaller(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(camera_frames(count=31, group=30))
    viewer.play(camera_frames(2880, 1620, count=2, group=1, begin=5.0))
    stats = viewer.rendition.stats(viewer.now)
    assert stats.active == OFF
    assert "2880x1620" in stats.reason
    assert stats.refused == viewer.rendition.counters()["refused_too_large"] == 1
    viewer.play(camera_frames(count=31, group=30, begin=10.0))
    stats = viewer.rendition.stats(viewer.now)
    assert (stats.active, stats.reason) == (KEYFRAMES, "")


def test_another_resolution_of_the_cameras_is_counted(viewer: Viewer) -> None:
    """Also where the small picture stays as large as it is; one that is made again counts for nothing."""
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(camera_frames(640, 360, count=61, group=30))
    viewer.now += AGAIN_AFTER
    viewer.rendition.request_keyframe()
    viewer.settle()
    assert viewer.rendition.counters()["resolution_changes"] == 0
    viewer.play(camera_frames(1280, 720, count=31, group=30, begin=5.0))
    viewer.play(camera_frames(640, 360, count=31, group=30, begin=8.0))
    assert viewer.rendition.counters()["resolution_changes"] == 2


def test_a_damaged_keyframe_costs_itself_alone(viewer: Viewer) -> None:
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    frames = camera_frames(count=121, group=30, crf="10")
    damaged = frames[60]
    broken = [(bytes(payload[:2]) + bytes(len(payload) - 2), marker) for payload, marker in damaged.payloads[1:]]
    frames[60] = Frame(damaged.kind, [damaged.payloads[0], *broken], damaged.media_time)
    viewer.play(frames)
    assert viewer.times == [1.0, 3.0, 4.0]
    assert viewer.rendition.stats(viewer.now).failed == 1


def test_memory_is_given_back_half_a_minute_after_the_last_viewer(
    hanging: Hanging, make_viewer: Callable[..., Viewer]
) -> None:
    hanging.free.set()
    viewer = make_viewer(hanging.work)
    viewer.rendition.configure(KEYFRAMES, watched=True, budget=0.0)
    viewer.play(camera_frames(count=60, group=30))
    viewer.pass_time(100)
    assert not any(job.release for job in hanging.jobs)
    viewer.rendition.configure(KEYFRAMES, watched=False, budget=0.0)
    viewer.pass_time(KEPT_FOR - 1)
    viewer.settle()
    assert not any(job.release for job in hanging.jobs)
    viewer.pass_time(5)
    viewer.settle()
    assert [(job.picture, job.encode) for job in hanging.jobs if job.release] == [(None, False)]
