"""Remedies for a picture that nobody decodes: in turn, one in a minute, and none that makes it worse."""

from __future__ import annotations

from relay_common.causes import Cause
from relay_common.protocol import WorkerState
from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.packetizer import video_track
from relay_common.worker_stats import WorkerStats
from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.remedies import REMEDY_INTERVAL, PictureRemedies, PictureRemedy, next_try
from relay_worker.rtp.h264_packetize import starts_keyframe
from tests.fixtures.manual_camera import ManualCamera
from tests.unit.worker.test_relay import SMALL, World

SPS, PPS, STAP_A = 7, 8, 24


def test_one_in_a_minute_whoever_asks_and_in_turn() -> None:
    remedies = PictureRemedies()
    tried = [(second, remedy) for second in range(200) if (remedy := remedies.next(1000.0 + second)) is not None]
    assert tried == [
        (0, PictureRemedy.PARAMETER_SETS),
        (60, PictureRemedy.INPUT),
        (120, PictureRemedy.PARAMETER_SETS),
        (180, PictureRemedy.INPUT),
    ]
    assert REMEDY_INTERVAL == 60.0
    assert remedies.counters() == {"tried": 4, "refused": 196}


class Screen:
    """What leaves."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def sets_before_keyframes(self) -> list[int]:
        """How many payloads of parameter sets left with each keyframe."""
        units: dict[float, list[bytes]] = {}
        for frame in self.frames:
            units.setdefault(frame.media_time, []).extend(payload for payload, _ in frame.payloads)
        keyframes = [payloads for payloads in units.values() if any(map(starts_keyframe, payloads))]
        return [sum(payload[0] & 0x1F in (SPS, PPS, STAP_A) for payload in payloads) for payloads in keyframes]


def playing() -> tuple[Pipeline, ManualCamera, Screen]:
    pipeline, screen = Pipeline(), Screen()
    camera = ManualCamera(pipeline, video_track(VideoSpec(**SMALL)))
    pipeline.attach(screen, camera.now)
    camera.connect()
    camera.run(4.0)
    return pipeline, camera, screen


def test_parameter_sets_are_repeated_from_then_on_also_after_the_input_was_rebuilt() -> None:
    pipeline, camera, screen = playing()
    before = max(screen.sets_before_keyframes())
    for rebuilt in (False, True):
        if rebuilt:
            pipeline.rebuild(Kind.VIDEO)
        else:
            pipeline.repeat_parameter_sets()
        screen.frames.clear()
        camera.run(6.0)
        _, *after = screen.sets_before_keyframes()  # with the first, the camera's own may have been held back
        assert after
        assert min(after) > before


def test_a_rebuilt_input_knows_the_parameter_sets_that_came_at_the_start_only() -> None:
    pipeline, camera, screen = playing()
    video = pipeline.inputs[Kind.VIDEO]
    assert isinstance(video, VideoInput)
    video.track.parameters.pop("sprop-parameter-sets", None)
    known = video.passthrough.parameter_sets
    pipeline.rebuild(Kind.VIDEO)
    rebuilt = pipeline.inputs[Kind.VIDEO]
    assert isinstance(rebuilt, VideoInput)
    assert rebuilt is not video
    assert rebuilt.passthrough.parameter_sets is known
    screen.frames.clear()
    camera.run(6.0)
    assert screen.sets_before_keyframes(), "it goes on with the next keyframe"


async def test_asked_twice_the_relay_tries_once_and_asks_for_a_keyframe() -> None:
    relay = World().relay()
    camera = ManualCamera(relay.pipeline, video_track(VideoSpec(**SMALL)))
    camera.connect()
    try:
        relay.recover_video("nobody decodes it")
        relay.recover_video("nobody decodes it")
        assert relay.keyframe_requests == 1
        assert relay.counters()["mending.tried"] == 1
        assert relay.counters()["mending.refused"] == 1
    finally:
        await relay.close()


def test_the_next_try_is_that_of_what_is_wrong() -> None:
    def at(code: Cause, state: WorkerState = WorkerState.RECONNECTING, *, published: bool = True) -> float:
        known = "" if code is Cause.NONE else code.value
        stats = WorkerStats(instance="", camera="", sequence=0, at=0.0, uptime=0.0, state=state, code=known)
        return next_try(stats, 1.0, 2.0, published=published)

    assert (at(Cause.CAMERA_STALLED), at(Cause.SFU_REFUSES), at(Cause.UPLINK_BLOCKED)) == (1.0, 2.0, 2.0)
    assert (at(Cause.NONE), at(Cause.NONE, published=False)) == (1.0, 2.0)
    assert (at(Cause.SOUND_MISSING, WorkerState.LIVE), at(Cause.SINK_FAILS, WorkerState.LIVE)) == (0.0, 2.0)
