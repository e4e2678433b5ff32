"""Several outputs of one pipeline: each begins with a keyframe, and what becomes of one the others do not notice."""

from __future__ import annotations

import itertools
from typing import Final

from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import RtpTrack, audio_track, video_track
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.outputs import Outputs
from relay_worker.rtp.h264 import MAX_PAYLOAD
from relay_worker.rtp.h264_packetize import starts_keyframe
from tests.fixtures.manual_camera import ManualCamera
from tests.fixtures.packet_camera import DELIMITER, IDR, PPS, SLICE, SPS, PacketCamera

PICTURE: Final = video_track(VideoSpec(width=320, height=240, seconds=4.0))
SMALL: Final = video_track(VideoSpec(width=320, height=240, seconds=4.0, bitrate=300_000))
"""Two seconds of it are held."""
SOUND: Final = audio_track(AudioSpec())


class Screen:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    @property
    def pictures(self) -> list[float]:
        return list(dict.fromkeys(frame.media_time for frame in self.frames if frame.kind is Kind.VIDEO))

    @property
    def payloads(self) -> list[bytes]:
        return [bytes(data) for frame in self.frames for data, _ in frame.payloads if frame.kind is Kind.VIDEO]


class World:
    def __init__(self, picture: RtpTrack = PICTURE) -> None:
        self.outputs = Outputs(Pipeline())
        self.pipeline = self.outputs.pipeline
        self.camera = ManualCamera(self.pipeline, picture, SOUND)
        self.camera.connect()
        self.screens: list[Screen] = []

    def attach(self, max_payload: int = MAX_PAYLOAD) -> Screen:
        screen = Screen()
        self.screens.append(screen)
        self.outputs.attach(screen, screen, max_payload, self.camera.now)
        return screen


def test_one_that_joins_begins_at_a_keyframe_and_the_others_go_on() -> None:
    world = World()
    first = world.attach()
    world.camera.run(2.3)
    before = len(first.pictures)
    assert before
    second = world.attach()
    world.camera.run(6.0)
    assert starts_keyframe(second.payloads[0])
    assert second.pictures, "the camera has sent a keyframe meanwhile"
    assert second.pictures == first.pictures[-len(second.pictures) :]
    assert len(first.pictures) > before + len(second.pictures), "the first did not wait with it"
    times = first.pictures
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.1, "nothing is missing at the first"
    assert any(frame.kind is Kind.AUDIO for frame in second.frames)


def test_one_that_leaves_costs_the_others_nothing() -> None:
    world = World()
    first, second = world.attach(), world.attach()
    world.camera.run(6.0)
    world.outputs.detach(first)
    seen = len(second.pictures)
    world.camera.run(1.0)
    assert len(second.pictures) > seen + 10
    times = second.pictures
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.1
    assert world.pipeline.output is second, "a single one needs nothing in between"
    world.outputs.detach(second)
    assert world.pipeline.output is None
    assert world.pipeline.waits_for_keyframe
    world.outputs.detach(second)  # said twice: nothing new


def test_a_single_one_is_the_pipelines_output_itself() -> None:
    world = World()
    first = world.attach()
    assert world.pipeline.output is first
    second = world.attach()
    assert world.pipeline.output is world.outputs
    world.outputs.detach(second)
    assert world.pipeline.output is first
    other = Screen()
    world.outputs.replace(first, other)
    assert world.pipeline.output is other


def test_packets_fit_the_narrowest_as_long_as_it_is_there() -> None:
    world = World()
    first, narrow = world.attach(), world.attach(500)
    world.camera.run(6.0)
    world.outputs.detach(narrow)
    cut = len(first.payloads)
    assert max(map(len, first.payloads[:cut])) <= 500
    world.camera.run(6.0)
    assert max(map(len, first.payloads[cut:])) > 500


def test_the_rest_of_a_keyframe_is_no_beginning() -> None:
    world = World()
    first, second = Screen(), Screen()
    world.outputs.attach(first, first, MAX_PAYLOAD, 0.0)
    world.outputs.attach(second, second, MAX_PAYLOAD, 0.0)
    slice_of_idr, slice_of_other = bytes([0x65, 1, 2]), bytes([0x41, 1, 2])
    for media_time, payload in ((1.0, slice_of_idr), (1.0, slice_of_idr), (1.1, slice_of_other), (1.2, slice_of_idr)):
        world.outputs.send(Frame(Kind.VIDEO, [(payload, True)], media_time), media_time)
    assert second.pictures == [1.2]
    assert first.pictures == [1.0, 1.1, 1.2]


def test_a_keyframe_that_comes_packet_by_packet_is_a_beginning() -> None:
    """Its access unit delimiter and parameter sets first, each in a wake of its own, as a camera may send them."""
    outputs = Outputs(Pipeline())
    camera = PacketCamera(outputs.pipeline)
    first, second = Screen(), Screen()
    outputs.attach(first, first, MAX_PAYLOAD, 0.0)
    for part in (SPS, PPS, IDR):
        camera.take(part, 0, marker=part is IDR)
    camera.shoot(1, SLICE)
    outputs.attach(second, second, MAX_PAYLOAD, 0.0)
    camera.shoot(2, SLICE)
    keyframe = [DELIMITER, SPS, PPS, IDR]
    for part in keyframe:
        camera.take(part, 3, marker=part is IDR)
    camera.shoot(4, SLICE)
    assert second.payloads == [*keyframe[1:], SLICE], "all that a decoder needs of it"
    assert first.payloads[-len(keyframe) - 1 :] == [*keyframe, SLICE]


def test_who_joins_in_the_middle_of_a_keyframes_beginning_gets_it() -> None:
    """Parameter sets come before the first slice, whatever came before them; a slice alone may be a later one."""
    outputs = Outputs(Pipeline())
    camera = PacketCamera(outputs.pipeline)
    first, second, third = Screen(), Screen(), Screen()
    outputs.attach(first, first, MAX_PAYLOAD, 0.0)
    for part in (SPS, PPS, IDR):
        camera.take(part, 0, marker=part is IDR)
    camera.take(DELIMITER, 1, marker=False)
    outputs.attach(second, second, MAX_PAYLOAD, 0.0)
    for part in (SPS, PPS):
        camera.take(part, 1, marker=False)
    outputs.attach(third, third, MAX_PAYLOAD, 0.0)
    camera.take(IDR, 1, marker=True)
    camera.shoot(2, SLICE)
    assert second.payloads == [SPS, PPS, IDR, SLICE]
    assert third.payloads == [], "it has not seen the sets"


def test_a_sink_that_joins_viewers_keeps_no_picture_from_them() -> None:
    """Whether it gets a held group or waits for a keyframe: what the worker's own viewers see goes on."""
    world = World()
    viewers = Screen()
    world.pipeline.viewers = viewers
    world.camera.run(3.3)
    world.pipeline._drop_held()  # as when it is longer than its bounds
    sink = world.attach()
    world.camera.run(4.0)
    world.outputs.detach(sink)
    world.camera.run(1.0)
    assert max(b - a for a, b in itertools.pairwise(viewers.pictures)) < 0.1, "nothing is missing"
    assert starts_keyframe(sink.payloads[0])
    assert set(sink.pictures) < set(viewers.pictures)


def hold(world: World, within: float = 4.1) -> None:
    """Play until something is held."""
    end = world.camera.now + within
    while not world.pipeline._held:
        assert world.camera.now < end
        world.camera.run(0.1)


def test_nothing_is_held_for_an_output_that_is_not_expected() -> None:
    """As where cameras are watched from their workers alone; one that comes later begins as if it had always been."""
    world = World(SMALL)
    viewers = Screen()
    world.pipeline.viewers = viewers
    hold(world)
    world.pipeline.expect(output=False)
    world.camera.run(4.0)
    assert not world.pipeline._held
    held_over = world.pipeline.held_over
    world.camera.run(4.0)
    assert world.pipeline.held_over == held_over
    world.pipeline.expect(output=True)
    hold(world)
    sink = world.attach()
    world.camera.run(6.0)
    assert starts_keyframe(sink.payloads[0])
    assert set(sink.pictures) < set(viewers.pictures)
    assert max(b - a for a, b in itertools.pairwise(sink.pictures)) < 0.1


def test_what_is_expected_before_anything_came_is_held_from_the_start() -> None:
    world = World(SMALL)
    viewers = world.pipeline.viewers = Screen()
    world.pipeline.expect(output=False)
    world.pipeline.expect(output=True)
    hold(world)
    assert world.attach().pictures[0] == viewers.pictures[0]
