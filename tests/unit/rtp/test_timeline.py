from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.timeline import Timeline

VIDEO, AUDIO = 90000, 16000
NTP = 3_900_000_000.0


class Camera:
    """A camera whose clock runs `ppm` fast, with tracks at random RTP origins; sound and picture in step by design."""

    def __init__(self, timeline: Timeline, ppm: float = 0.0, seed: int = 1, audio_late: float = 0.0) -> None:
        self.timeline, self.speed = timeline, 1 + ppm * 1e-6
        self.rng = random.Random(seed)
        self.origin = {"video": self.rng.getrandbits(32), "audio": self.rng.getrandbits(32)}
        self.rate: dict[str, float] = {"video": VIDEO, "audio": AUDIO}
        self.delay = {"video": 0.0, "audio": audio_late}
        self.ntp = NTP
        timeline.add_track("video", VIDEO)
        timeline.add_track("audio", AUDIO)

    def rtp(self, track: str, at: float) -> int:
        return (self.origin[track] + round(at * self.speed * self.rate[track])) & 0xFFFFFFFF

    def report(self, track: str, at: float) -> None:
        ntp = int((self.ntp + at * self.speed) * 2**32)
        self.timeline.sender_report(track, ntp, self.rtp(track, at), 1000.0 + at + self.delay[track])

    def map(self, track: str, at: float, jitter: float = 0.0) -> float:
        return self.timeline.map(track, self.rtp(track, at), 1000.0 + at + self.delay[track] + jitter)

    def play(
        self,
        start: float,
        seconds: float,
        *,
        reports: tuple[str, ...] = ("video", "audio"),
        jitter: Callable[[random.Random], float] = lambda rng: 0.0,
        fps: float = 30,
    ) -> dict[str, list[tuple[float, float]]]:
        """(capture time, media time) of each frame; both tracks, a report every five seconds."""
        out: dict[str, list[tuple[float, float]]] = {"video": [], "audio": []}
        for index in range(int(seconds * fps)):
            at = start + index / fps
            for track in ("video", "audio"):
                if track in reports and index % int(5 * fps) == 0:
                    self.report(track, at)
                out[track].append((at, self.map(track, at, jitter(self.rng))))
        return out


def skew(out: dict[str, list[tuple[float, float]]], index: int = -1) -> float:
    """How much later the sound is placed than the picture of the same instant."""
    return out["audio"][index][1] - out["video"][index][1]


def increasing(samples: list[tuple[float, float]]) -> bool:
    return all(b[1] > a[1] for a, b in itertools.pairwise(samples))


def test_an_even_source_maps_to_arrival() -> None:
    out = Camera(Timeline()).play(0, 20)
    assert all(abs(media - 1000 - at) < 1e-3 for at, media in out["video"] + out["audio"])


def test_equal_timestamps_map_to_equal_times() -> None:
    camera = Camera(Timeline())
    first = camera.map("video", 0.0)
    assert camera.map("video", 0.0, jitter=0.5) == first


@pytest.mark.parametrize("ppm", [-200, 200])
def test_drift_of_the_cameras_clock_does_not_add_up(ppm: float) -> None:
    # Four hours at two frames a second: the camera's clock is off by 2.9 s in the end.
    out = Camera(Timeline(), ppm).play(0, 4 * 3600, fps=2, jitter=lambda rng: rng.random() * 0.03)
    assert increasing(out["video"])
    late = [1000 + at - media for at, media in out["video"][100:]]
    assert max(map(abs, late)) < 0.03
    steps = [b[1] - a[1] for a, b in zip(out["video"][100:], out["video"][101:], strict=False)]
    assert max(abs(step - 0.5) for step in steps) < 0.005


def test_jitter_does_not_reach_the_media_clock() -> None:
    out = Camera(Timeline()).play(0, 120, jitter=lambda rng: rng.random() * 0.08)["video"][300:]
    steps = [b[1] - a[1] for a, b in itertools.pairwise(out)]
    assert max(abs(step - 1 / 30) for step in steps) < 0.001


def test_bursts_do_not_reach_the_media_clock() -> None:
    camera = Camera(Timeline())
    times = []
    for index in range(3000):
        at = index / 30
        times.append(camera.map("video", at, jitter=0.5 - at % 0.5))  # all of half a second at its end
    steps = [b - a for a, b in itertools.pairwise(times[300:])]
    assert max(abs(step - 1 / 30) for step in steps) < 0.001


def test_lip_sync_comes_from_sender_reports() -> None:
    # The sound comes 300 ms late over the network; the reports say how it belongs.
    out = Camera(Timeline(), audio_late=0.3).play(0, 30)
    assert abs(skew(out)) < 0.002


def test_reports_before_media_place_a_track_at_once() -> None:
    camera = Camera(Timeline(), audio_late=0.3)
    camera.report("video", 0.0)
    camera.report("audio", 0.0)
    assert abs(camera.map("video", 0.0) - camera.map("audio", 0.0)) < 0.002


def test_late_reports_move_a_track_smoothly() -> None:
    camera = Camera(Timeline(), audio_late=0.3)
    before = camera.play(0, 10, reports=())
    assert skew(before) == pytest.approx(0.3, abs=0.002)
    after = camera.play(10, 30)
    assert abs(skew(after)) < 0.002
    steps = [b[1] - a[1] for a, b in zip(after["audio"], after["audio"][1:], strict=False)]
    assert max(abs(step - 1 / 30) for step in steps) <= 0.05 / 30 + 0.0005


def test_without_reports_arrival_decides() -> None:
    out = Camera(Timeline(), audio_late=0.02).play(0, 30, reports=())
    assert skew(out) == pytest.approx(0.02, abs=0.002)


def test_lip_sync_holds_through_drift_and_jitter() -> None:
    camera = Camera(Timeline(), ppm=150, audio_late=0.1)
    out = camera.play(0, 1800, fps=5, jitter=lambda rng: rng.random() * 0.05)
    assert max(abs(skew(out, index)) for index in range(500, 9000)) < 0.005


def test_reports_keep_a_sound_clock_of_its_own_in_step() -> None:
    # The microphone's crystal runs 100 ppm off the camera's wall clock: 360 ms in an hour without correction.
    camera = Camera(Timeline())
    camera.rate["audio"] = AUDIO * (1 + 100e-6)
    out = camera.play(0, 3600, fps=2)
    assert max(abs(skew(out, index)) for index in range(100, 7200)) < 0.01


def test_a_set_camera_clock_does_not_move_anything() -> None:
    timeline = Timeline()
    camera = Camera(timeline, audio_late=0.1)
    camera.play(0, 30)
    camera.ntp += 7200.0
    out = camera.play(30, 60)
    assert timeline.clock_steps == 1
    assert max(abs(skew(out, index)) for index in range(len(out["video"]))) < 0.005
    assert all(abs(media - 1000 - at) < 0.01 for at, media in out["video"])


def test_reports_that_make_no_sense_are_not_believed() -> None:
    timeline = Timeline()
    camera = Camera(timeline)
    camera.play(0, 10, reports=("video",))
    timeline.sender_report("audio", int((NTP + 3600) * 2**32), camera.rtp("audio", 10), 1010.0)
    timeline.sender_report("audio", 0, 0, 1010.0)
    out = camera.play(10, 10, reports=("video",))
    assert timeline.disbelieved == 2
    assert abs(skew(out)) < 0.005


def test_timestamps_wrap() -> None:
    camera = Camera(Timeline())
    camera.origin["video"] = 0x100000000 - 5 * VIDEO
    camera.origin["audio"] = 0x100000000 - 7 * AUDIO
    out = camera.play(0, 20)
    assert camera.timeline.jumps == 0
    assert all(abs(media - 1000 - at) < 0.002 for at, media in out["video"] + out["audio"])


def test_a_report_on_the_other_side_of_the_wrap_is_no_set_clock() -> None:
    timeline = Timeline()
    timeline.add_track("video", VIDEO)
    timeline.map("video", 50, 1000.0)
    for step in range(3):
        timeline.sender_report("video", int((NTP + step / VIDEO) * 2**32), (step * 100 - 100) & 0xFFFFFFFF, 1000.0)
    assert (timeline.clock_steps, timeline.disbelieved) == (0, 0)


@pytest.mark.parametrize("jump", [-100_000.0, -5.0, 5.0, 20_000.0])
def test_jumps_are_bridged_and_sync_found_again(jump: float) -> None:
    timeline = Timeline()
    camera = Camera(timeline)
    first = camera.play(0, 20)
    camera.origin["video"] += round(jump * VIDEO)
    second = camera.play(20, 30)
    assert timeline.jumps == 1
    samples = first["video"] + second["video"]
    assert increasing(samples)
    assert max(b[1] - a[1] for a, b in itertools.pairwise(samples)) < 0.05
    assert abs(skew(second)) < 0.005


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("jump", [-100.0, -1.7, 5.0, 20_000.0])
def test_a_report_of_new_timestamps_before_their_first_packet_moves_nothing(jump: float, *, reported: bool) -> None:
    """As GStreamer's server sends it when somebody else begins to play: findings/gstreamer-play-rewinds-others.sh."""
    timeline = Timeline()
    camera = Camera(timeline)
    samples = camera.play(0, 3, reports=("video", "audio") if reported else ())
    for track, rate in (("video", VIDEO), ("audio", AUDIO)):
        camera.origin[track] += round(jump * rate)
    camera.report("video", 3)
    for track, added in camera.play(3, 40, reports=("audio",)).items():
        samples[track] += added
    assert (timeline.jumps, timeline.clock_steps, timeline.disbelieved) == (2, 0, 0)
    assert all(abs(media - 1000 - at) < 0.005 for at, media in samples["video"] + samples["audio"])


def test_reports_of_long_ago_keep_sound_and_picture_together() -> None:
    """Of the latest keyframe, say: each names a time and a timestamp that belong together."""
    timeline = Timeline()
    camera = Camera(timeline, audio_late=0.3)
    out = camera.play(0, 5, reports=())
    for second in range(5, 60, 5):
        for track in ("video", "audio"):
            ntp = int((NTP + second - 3) * 2**32)
            timeline.sender_report(track, ntp, camera.rtp(track, second - 3), 1000.0 + second)
        out = camera.play(second, 5, reports=())
    assert abs(skew(out)) < 0.005


def test_a_stall_keeps_media_time_and_the_backlog_its_spacing() -> None:
    camera = Camera(Timeline())
    camera.play(0, 20)
    times = [camera.map("video", 20 + index / 30, jitter=3.0 - index / 30) for index in range(90)]
    assert all(abs(media - 1020 - index / 30) < 0.01 for index, media in enumerate(times))


def test_a_source_that_becomes_late_for_good_is_followed_forward() -> None:
    camera = Camera(Timeline())
    camera.play(0, 20)
    camera.delay = {"video": 5.0, "audio": 5.0}
    out = camera.play(20, 20)
    assert increasing(out["video"])
    assert out["video"][-1][1] == pytest.approx(1000 + out["video"][-1][0] + 5, abs=0.1)
    assert abs(skew(out)) < 0.005


def test_a_source_that_becomes_early_is_followed_to_its_arrival_and_no_further() -> None:
    camera = Camera(Timeline())
    camera.delay = {"video": 0.5, "audio": 0.5}
    camera.play(0, 20)
    camera.delay = {"video": 0.0, "audio": 0.0}
    out = camera.play(20, 10)
    assert increasing(out["video"])
    assert all(abs(media - 1000 - at) < 0.005 for at, media in out["video"][30:] + out["audio"][30:])


def test_a_source_that_becomes_a_little_early_is_followed_slowly() -> None:
    camera = Camera(Timeline())
    camera.delay = {"video": 0.05, "audio": 0.05}
    camera.play(0, 20)
    camera.delay = {"video": 0.0, "audio": 0.0}
    out = camera.play(20, 20)["video"]
    steps = [b[1] - a[1] for a, b in itertools.pairwise(out)]
    assert all(0.988 / 30 <= step <= 1.0005 / 30 for step in steps), "at most a hundredth slower"
    assert abs(out[-1][1] - 1000 - out[-1][0]) < 0.002


def test_a_report_that_differs_from_those_before_it_moves_nothing_at_once() -> None:
    camera = Camera(Timeline())
    camera.play(0, 20)
    at, step = 20.0, 1 / 30
    before = camera.map("video", at)
    camera.ntp += 0.2
    camera.report("video", at)
    camera.ntp -= 0.2
    camera.map("audio", at)
    for _ in range(60):
        at += step
        media = camera.map("video", at)
        assert abs(media - before - step) <= 0.055 * step
        before = media


def test_a_set_clock_goes_on_from_where_a_move_had_come() -> None:
    timeline = Timeline()
    camera = Camera(timeline, audio_late=0.3)
    camera.play(0, 10, reports=())
    out = camera.play(10, 1)["audio"]  # the sound has begun to move over
    assert 0.02 < abs(skew({"audio": out, "video": [(10.967, 1010.967)]})) < 0.28
    camera.ntp += 7200.0
    camera.report("video", 11.0)
    after = camera.map("audio", 11.0)
    assert timeline.clock_steps == 1
    assert abs(after - out[-1][1] - 1 / 30) < 0.003


def test_a_cached_gop_at_the_start_does_not_leave_delay() -> None:
    camera = Camera(Timeline())
    times = [camera.timeline.map("video", camera.rtp("video", at / 30), 1002.0) for at in range(60)]
    assert all(b > a for a, b in itertools.pairwise(times))
    out = camera.play(2, 10, reports=())
    assert abs(1000 + out["video"][-1][0] - out["video"][-1][1]) < 0.11


def test_reconnect_never_goes_back() -> None:
    timeline = Timeline()
    camera = Camera(timeline)
    first = camera.play(0, 10)
    timeline.rebase(not_before=1013.0)
    again = Camera(timeline, seed=2)
    second = again.play(12, 10)
    assert second["video"][0][1] >= 1013.0
    assert second["audio"][0][1] >= 1013.0
    assert increasing(first["video"] + second["video"])
    assert abs(skew(second)) < 0.005


def test_new_ssrc_is_placed_by_elapsed_time() -> None:
    timeline = Timeline()
    camera = Camera(timeline)
    last = camera.play(0, 10)["video"][-1][1]
    camera.origin["video"] += 4000  # too little to be seen as a jump
    timeline.discontinuity("video")
    assert camera.map("video", 10.0) == pytest.approx(last + 1 / 30, abs=0.001)


@given(
    st.lists(
        st.tuples(st.sampled_from("va"), st.integers(0, 2**32 - 1), st.floats(0, 10), st.integers(0, 2**64 - 1)),
        max_size=50,
    )
)
def test_never_backwards_whatever_comes(events: list[tuple[str, int, float, int]]) -> None:
    timeline = Timeline()
    timeline.add_track("v", VIDEO)
    timeline.add_track("a", AUDIO)
    now, reached = 0.0, {"v": float("-inf"), "a": float("-inf")}
    for track, timestamp, wait, ntp in events:
        now += wait
        if ntp % 3 == 0:
            timeline.sender_report(track, ntp, timestamp, now)
        if ntp % 17 == 0:
            timeline.rebase()
        media = timeline.map(track, timestamp, now)
        assert media >= reached[track]
        reached[track] = media
