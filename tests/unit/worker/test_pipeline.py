"""The data path of one camera: cut-through, the group of pictures that waits for an output, what cannot be relayed."""

from __future__ import annotations

import struct

import pytest

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import MAX_HELD_BYTES, MAX_HELD_SECONDS, Pipeline
from relay_worker.rtp.h264 import fragment

SPS, PPS = bytes.fromhex("6742c01e95a0280bfe54"), bytes.fromhex("68ce3c80")
SETS = b"\x78" + b"".join(len(nal).to_bytes(2, "big") + nal for nal in (SPS, PPS))
IDR, SLICE = b"\x65\x88\x84\x00", b"\x41\x9a\x00\x00"
FRAME = 3000
"""Ticks of one thirtieth of a second."""


class Output:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame, now: float) -> None:
        self.frames.append(frame)

    def payloads(self, kind: Kind = Kind.VIDEO) -> list[bytes]:
        return [bytes(payload) for frame in self.frames if frame.kind is kind for payload, _ in frame.payloads]


class Camera:
    """Plays one video track, and sound of any format, packet by packet."""

    def __init__(self, pipeline: Pipeline, sound: Format | None = None) -> None:
        self._pipeline = pipeline
        self._sequence = dict.fromkeys(Kind, 0)
        self.video = Track(Kind.VIDEO, Format(96, "H264", 90_000), control="")
        self.audio = Track(Kind.AUDIO, sound, control="") if sound is not None else None
        pipeline.on_playing([track for track in (self.video, self.audio) if track is not None], 0.0)

    def packet(self, track: Track, payload: bytes, timestamp: int, *, marker: bool = True) -> bytes:
        self._sequence[track.kind] += 1
        second = marker << 7 | track.format.payload_type
        return struct.pack("!BBHII", 0x80, second, self._sequence[track.kind], timestamp, 1) + payload

    def shoot(self, index: int, *payloads: bytes) -> None:
        """One picture, in one wake."""
        packets = [
            self.packet(self.video, payload, index * FRAME, marker=payload is payloads[-1]) for payload in payloads
        ]
        self._pipeline.on_media([Batch(self.video, packets, [])], index / 30)

    def sound(self, payload: bytes, timestamp: int, now: float) -> None:
        assert self.audio is not None
        self._pipeline.on_media([Batch(self.audio, [self.packet(self.audio, payload, timestamp)], [])], now)


def test_each_packet_of_a_picture_goes_on_when_it_comes() -> None:
    pipeline, output = Pipeline(), Output()
    pipeline.attach(output)
    camera = Camera(pipeline)
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
    camera = Camera(pipeline)
    camera.shoot(0, SLICE)
    camera.shoot(1, SETS, IDR)
    camera.shoot(2, SLICE + b"2")
    pipeline.attach(output)
    camera.shoot(3, SLICE + b"3")
    assert output.payloads() == [SETS, IDR, SLICE + b"2", SLICE + b"3"]


@pytest.mark.parametrize(
    ("size", "pictures"),
    [(1100, MAX_HELD_BYTES // 4400), (0, int(30 * MAX_HELD_SECONDS))],
    ids=["bytes", "seconds"],
)
def test_what_waits_for_an_output_is_bounded(size: int, pictures: int) -> None:
    def held(count: int) -> list[bytes]:
        pipeline, output = Pipeline(), Output()
        camera = Camera(pipeline)
        camera.shoot(0, SETS, IDR)
        for index in range(1, count):
            camera.shoot(index, *[SLICE + bytes(size)] * 4)
        pipeline.attach(output)
        assert len(output.frames) in (0, count)
        assert pipeline.held_over == (0 if output.frames else 2 + 4 * (count - 1))
        return output.payloads()

    assert len(held(pictures - 1)) == 2 + 4 * (pictures - 2)
    assert held(pictures + 3) == []


def test_a_later_keyframe_replaces_what_was_held() -> None:
    pipeline, output = Pipeline(), Output()
    camera = Camera(pipeline)
    camera.shoot(0, SETS, IDR)
    camera.shoot(1, SLICE)
    camera.shoot(2, SETS, IDR + b"2")
    pipeline.attach(output)
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
    pipeline.attach(output)
    camera = Camera(pipeline, sound)
    for index in range(100):
        camera.sound(payload, index * ticks, index * ticks / sound.clock_rate)
    made = output.payloads(Kind.AUDIO)
    assert len(made) == pytest.approx(100 * ticks / sound.clock_rate / 0.020, abs=4)
    assert {opus[0] >> 3 & 3 for opus in made} == {3}, "20 ms each (RFC 6716 §3.1)"
    stats = pipeline.track_stats(Kind.AUDIO)
    assert (stats.codec, stats.frames, pipeline.malformed) == (sound.encoding, len(made), 0)


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
    pipeline.attach(output)
    camera = Camera(pipeline, sound)
    camera.shoot(0, SETS, IDR)
    camera.sound(b"anything", 0, 0.0)
    assert output.payloads() == [SETS, IDR]
    assert list(pipeline.inputs) == [Kind.VIDEO]
