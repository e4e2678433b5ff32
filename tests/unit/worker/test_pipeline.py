"""The data path of one camera: cut-through, the group of pictures that waits for an output, what cannot be relayed."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from collections.abc import Callable

import pytest

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.stream import Batch, Format, Frame, Kind
from relay_worker.media.track_input import MAX_BURST
from relay_worker.pipeline import MAX_HELD_BYTES, MAX_HELD_SECONDS, Pipeline
from relay_worker.rtp.h264 import fragment
from tests.fixtures.packet_camera import DELIMITER, FRAME, IDR, SETS, SLICE, PacketCamera


class Output:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def payloads(self, kind: Kind = Kind.VIDEO) -> list[bytes]:
        return [bytes(payload) for frame in self.frames if frame.kind is kind for payload, _ in frame.payloads]


def test_each_packet_of_a_picture_goes_on_when_it_comes() -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline)
    picture = fragment(IDR + bytes(5000), 1200)
    assert len(picture) == 5
    for index, payload in enumerate([SETS, *picture]):
        last = index == len(picture)
        packet = camera.packet(camera.video, payload, 0, marker=last)
        pipeline.on_media([Batch(camera.video, [packet], [])], index * 0.01)
        gone = output.payloads()
        # Parameter sets wait for the picture that they are for.
        assert gone == ([SETS, *picture[:index]] if index else [])
    assert len({frame.media_time for frame in output.frames}) == 1


def test_an_output_that_comes_within_a_group_of_pictures_gets_all_of_it() -> None:
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SLICE)
    camera.shoot(1, SETS, IDR)
    camera.shoot(2, SLICE + b"2")
    pipeline.attach(output, 0.0)
    camera.shoot(3, SLICE + b"3")
    assert output.payloads() == [SETS, IDR, SLICE + b"2", SLICE + b"3"]


def test_small_pictures_are_made_of_what_was_held_as_well() -> None:
    pipeline = Pipeline()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, IDR)
    camera.shoot(1, SLICE)
    output, rendition = Output(), Output()
    pipeline.rendition = rendition
    pipeline.attach(output, 0.0)
    assert rendition.payloads() == output.payloads() == [SETS, IDR, SLICE]
    camera.shoot(2, SLICE)
    assert rendition.payloads() == output.payloads() == [SETS, IDR, SLICE, SLICE]


def test_what_is_held_fits_a_path_that_takes_less_than_was_thought() -> None:
    """An IPv6 path of 1280 bytes shows when there is a publication, after the first pictures."""
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, *fragment(IDR + bytes(5000), 1200))
    camera.shoot(1, SLICE + bytes(1190))
    pipeline.fit(1180)
    pipeline.attach(output, 0.0)
    camera.shoot(2, SLICE + bytes(1190))
    assert max(map(len, output.payloads())) <= 1180
    assert sum(len(payload) - 2 for payload in output.payloads() if payload[0] & 0x1F == 28) >= 5000 + 2 * 1190


@pytest.mark.parametrize(
    ("size", "pictures"),
    [(1100, MAX_HELD_BYTES // 4400), (0, int(30 * MAX_HELD_SECONDS))],
    ids=["bytes", "seconds"],
)
def test_what_waits_for_an_output_is_bounded(size: int, pictures: int) -> None:
    def held(count: int) -> list[bytes]:
        pipeline, output = Pipeline(), Output()
        camera = PacketCamera(pipeline)
        camera.shoot(0, SETS, IDR)
        for index in range(1, count):
            camera.shoot(index, *[SLICE + bytes(size)] * 4)
        pipeline.attach(output, 0.0)
        assert len(output.frames) in (0, count)
        assert pipeline.held_over == (0 if output.frames else 2 + 4 * (count - 1))
        return output.payloads()

    assert len(held(pictures - 1)) == 2 + 4 * (pictures - 2)
    assert held(pictures + 3) == []


def test_a_keyframe_whose_delimiter_comes_by_itself_replaces_what_was_held() -> None:
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, IDR)
    second_slice = b"\x65\x40\x84\x00"  # which begins nothing
    for part in (DELIMITER, SETS, IDR, second_slice):
        camera.take(part, 1, marker=False)
    pipeline.attach(output, 0.0)
    assert output.payloads() == [SETS, IDR, second_slice]


def test_what_is_left_of_a_keyframe_that_is_too_large_is_not_held() -> None:
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.take(SETS, 0)
    for _ in range(MAX_HELD_BYTES // 1000 + 2):
        camera.take(IDR + bytes(1000), 0)
    pipeline.attach(output, 0.0)
    assert output.payloads() == [], "no decoder could do anything with it"
    assert pipeline.waits_for_keyframe
    assert pipeline.held_over > MAX_HELD_BYTES // 1000


def test_a_later_keyframe_replaces_what_was_held() -> None:
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, IDR)
    camera.shoot(1, SLICE)
    camera.shoot(2, SETS, IDR + b"2")
    pipeline.attach(output, 0.0)
    assert output.payloads() == [SETS, IDR + b"2"]


AAC = audio_clip(AudioSpec(rate=16_000)).units[0].data
HBR = {"mode": "AAC-hbr", "config": "1408", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}


@pytest.mark.parametrize(
    ("sound", "payload", "ticks"),
    [
        (Format(97, "MPEG4-GENERIC", 16_000, parameters=HBR), struct.pack("!HH", 16, len(AAC) << 3) + AAC, 1024),
        (
            Format(97, "MP4A-LATM", 16_000, parameters={"cpresent": "0", "config": "40002810"}),
            b"\xff" * (len(AAC) // 255) + bytes((len(AAC) % 255,)) + AAC,
            1024,
        ),
        (Format(0, "PCMU", 8000), b"\xff" * 160, 160),
        (Format(8, "PCMA", 8000), b"\xd5" * 160, 160),
    ],
    ids=["AAC-hbr", "LATM", "PCMU", "PCMA"],
)
def test_sound_of_each_kind_becomes_opus(sound: Format, payload: bytes, ticks: int) -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline, sound)
    for index in range(100):
        camera.sound(payload, index * ticks, index * ticks / sound.clock_rate)
    made = output.payloads(Kind.AUDIO)
    assert len(made) == pytest.approx(100 * ticks / sound.clock_rate / 0.020, abs=4)
    assert {opus[0] >> 3 & 3 for opus in made} == {3}, "20 ms each (RFC 6716 §3.1)"
    stats = pipeline.track_stats(Kind.AUDIO)
    assert (stats.frames, pipeline.malformed) == (len(made), 0)
    assert pipeline.totals(Kind.AUDIO) == (100, len(made), 0)
    assert stats.codec == (sound.encoding if sound.encoding.startswith("PCM") else "AAC"), "as people call it"


@pytest.mark.parametrize(
    "sound",
    [
        Format(97, "L16", 44_100),
        Format(97, "MPEG4-GENERIC", 16_000),
        Format(97, "MP4A-LATM", 16_000, parameters={"cpresent": "1"}),
    ],
)
def test_sound_that_cannot_be_had_costs_no_picture(sound: Format) -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline, sound)
    camera.shoot(0, SETS, IDR)
    camera.sound(b"anything", 0, 0.0)
    assert output.payloads() == [SETS, IDR]
    assert list(pipeline.inputs) == [Kind.VIDEO]


class Timers:
    """An event loop's `call_at`, moved by hand."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, when: float, function: Callable[[], None]) -> Timers:
        self.set.append((when, function))
        return self

    def cancel(self) -> None:
        """Nothing here cancels."""

    def fire(self) -> float:
        when, function = self.set.pop(0)
        function()
        return when


def test_the_end_of_a_picture_without_a_mark_waits_for_one_frame_interval() -> None:
    timers, output = Timers(), Output()
    pipeline = Pipeline(call_at=timers)
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline)
    camera.mute_markers = True
    camera.shoot(0, SETS, IDR)
    for index in range(1, 10):
        camera.shoot(index, SLICE + bytes((index,)))
    assert len(timers.set) == 1, "one timer, however many pictures"
    timers.fire()
    when, _ = timers.set[0]
    assert when == pytest.approx(9 / 30 + 1 / 30)
    assert SLICE + b"\x09" not in output.payloads()
    timers.fire()
    assert output.payloads()[-1] == SLICE + b"\x09"
    marks = [(frame.media_time, marker) for frame in output.frames for _, marker in frame.payloads]
    assert len([time for time, marker in marks if marker]) == len({time for time, _ in marks}) == 10
    assert not timers.set
    assert pipeline.track_stats(Kind.VIDEO).tolerated["marker_missing"] == 10


def test_a_sane_camera_sets_no_timer() -> None:
    timers, output = Timers(), Output()
    pipeline = Pipeline(call_at=timers)
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline)
    for index in range(30):
        camera.shoot(index, *([SETS, IDR] if not index % 10 else [SLICE]))
    assert len(output.frames) == 30
    assert not timers.set
    assert pipeline.track_stats(Kind.VIDEO).tolerated == {}


def test_the_tail_of_a_picture_is_no_frame_after_a_resync() -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, IDR)
    first, *rest = fragment(SLICE + bytes(3000), 1200)
    camera.take(first, 1)
    pipeline.filling = True
    pipeline.resync()
    before = len(output.frames)
    for piece in rest:
        camera.take(piece, 1, marker=piece is rest[-1])
    assert pipeline.filling
    assert len(output.frames) == before
    camera.shoot(2, SETS, IDR)
    assert not pipeline.filling


def test_what_was_tolerated_adds_up_over_sessions() -> None:
    pipeline = Pipeline()
    for _ in range(2):
        camera = PacketCamera(pipeline)
        camera.shoot(0, b"\x00\x00\x01" + SETS[3:13], IDR)
    assert pipeline.track_stats(Kind.VIDEO).tolerated["annex_b"] == 2


def feed(pipeline: Pipeline, camera: PacketCamera, megabits: float, seconds: float, began: float) -> float:
    """Packets of 1000 octets at a rate, fifty wakes a second, as pictures of one wake; returns when it ended."""
    first, count = round(began * 50), round(seconds * 50)
    for index in range(first, first + count):
        payloads = [SETS, IDR] if index % 50 == 0 else []
        payloads += [SLICE + bytes(996)] * round(megabits * 1e6 / 8 / 50 / 1000)
        last = len(payloads) - 1
        packets = [
            camera.packet(camera.video, payload, index * 1800, marker=number == last)
            for number, payload in enumerate(payloads)
        ]
        pipeline.on_media([Batch(camera.video, packets, [])], index / 50)
    return (first + count) / 50


def test_a_camera_that_sends_far_too_much_is_cut_and_one_in_bounds_is_not(caplog: pytest.LogCaptureFixture) -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output, 0.0)
    camera = PacketCamera(pipeline)
    ended = feed(pipeline, camera, 18, 8, 0.0)
    assert pipeline.track_stats(Kind.VIDEO).tolerated.get("over_rate", 0) == 0
    before = sum(map(len, output.payloads()))
    ended = feed(pipeline, camera, 60, 8, ended)
    sent = sum(map(len, output.payloads())) - before
    assert sent * 8 < 8 * 20e6 + 8 * MAX_BURST
    assert pipeline.track_stats(Kind.VIDEO).tolerated["over_rate"] > 10_000
    assert caplog.text.count("more than 20 Mbit/s of H264") == 1
    # A camera that comes to its senses plays on.
    feed(pipeline, camera, 2, 2, ended)
    output.frames.clear()
    over = pipeline.track_stats(Kind.VIDEO).tolerated["over_rate"]
    feed(pipeline, camera, 2, 2, ended + 2)
    assert output.payloads().count(IDR) == 2
    assert pipeline.track_stats(Kind.VIDEO).tolerated["over_rate"] == over


@pytest.mark.slow
@pytest.mark.parametrize("payload", [b"\x7c\x05" + bytes(998), SLICE + bytes(996)], ids=["FU-A", "picture"])
def test_a_picture_that_never_ends_costs_no_memory(payload: bytes) -> None:
    pipeline, output = Pipeline(), Output()
    camera = PacketCamera(pipeline)
    camera.shoot(0, SETS, IDR)
    pipeline.attach(output, 0.0)
    wake = [camera.packet(camera.video, payload, FRAME, marker=False) for _ in range(200)]

    def play(seconds: int) -> None:
        for index in range(seconds * 10):
            pipeline.on_media([Batch(camera.video, wake, [])], pipeline.playing_since + index / 10)
            output.frames.clear()

    play(2)
    gc.collect()  # what earlier tests have left is not this one's growth
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    play(60)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1_000_000
    stats = pipeline.track_stats(Kind.VIDEO)
    assert stats.frames <= 2, "a picture without an end was counted as one"
    for _ in range(2):
        assert pipeline.totals(Kind.VIDEO) == (stats.packets_in, stats.frames, stats.keyframes)
        pipeline.on_playing([], 99.0)
