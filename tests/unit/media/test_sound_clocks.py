"""Sound with odd clocks: units follow each other by their length, and timestamps correct that slowly and bounded."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator

import av
import pytest

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.inputs import AudioInput
from relay_worker.media.opus import OpusTranscoder
from relay_worker.media.sound_clock import BUDGET, INTERVAL, SoundClock
from relay_worker.media.stream import Batch, Format, Frame, Kind, Track
from relay_worker.pipeline import Pipeline

UNITS = [unit.data for unit in audio_clip(AudioSpec(rate=16_000)).units]
HBR = {"mode": "AAC-hbr", "config": "1408", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}

HUSH = b"\xfe" * 160
"""20 ms of G.711, as quiet as it can be and not digital silence, for which libopus takes four times as long."""


def hbr(units: list[bytes]) -> bytes:
    return (
        struct.pack("!H", 16 * len(units)) + b"".join(struct.pack("!H", len(u) << 3) for u in units) + b"".join(units)
    )


class Camera:
    """One sound track over TCP, on a hand-moved clock; what leaves is kept."""

    def __init__(self, sound: Format) -> None:
        self.pipeline = Pipeline()
        self.pipeline.attach(self, 1000.0)
        self.track = Track(Kind.AUDIO, sound, control="")
        self.pipeline.on_playing([self.track], 1000.0)
        self.ticks: list[int] = []
        self._sequence = 0

    def send(self, frame: Frame, now: float) -> None:
        first = round(frame.media_time * 48_000)
        assert frame.media_time == first / 48_000
        self.ticks += [first + 960 * number for number in range(len(frame.payloads))]

    def packet(self, payload: bytes, timestamp: int, seconds: float) -> None:
        self._sequence += 1
        head = struct.pack(
            "!BBHII", 0x80, 0x80 | self.track.format.payload_type, self._sequence, timestamp & 0xFFFFFFFF, 1
        )
        self.pipeline.on_media([Batch(self.track, [head + payload], [])], 1000.0 + seconds)

    @property
    def input(self) -> AudioInput:
        found = self.pipeline.inputs[Kind.AUDIO]
        assert isinstance(found, AudioInput)
        return found

    def is_whole(self, seconds: float, *, moved: float = 0.0) -> None:
        """All that came left, evenly; silence and cuts amount to no more than `moved` seconds."""
        assert all(b - a == 960 for a, b in itertools.pairwise(self.ticks))
        assert len(self.ticks) == pytest.approx(seconds * 50, abs=4 + 50 * moved)
        tolerated = self.pipeline.track_stats(Kind.AUDIO).tolerated
        assert tolerated.get("sound_gap_filled_ms", 0) <= 1000 * moved
        assert tolerated.get("sound_overlap_ms", 0) == tolerated.get("sound_gap_jumped", 0) == 0


def units() -> Iterator[bytes]:
    return itertools.cycle(UNITS)


def test_uneven_timestamps_cut_and_fill_nothing() -> None:
    camera, rng = Camera(Format(97, "MPEG4-GENERIC", 16_000, parameters=HBR)), random.Random(3)
    for index, unit in zip(range(600), units(), strict=False):
        uneven = (0, 122, -249, 654)[index % 4] + rng.randint(-200, 200)
        camera.packet(hbr([unit]), index * 1024 + uneven, (index * 1024 + 700) / 16_000)
    # Where the timestamps' mean lies shows only after a while.
    camera.is_whole(600 * 0.064, moved=0.06)
    assert camera.input._transcoder.clock.moved <= 1


@pytest.mark.parametrize("clock", [8_000, 16_000, 44_100, 48_000, 90_000])
@pytest.mark.parametrize("by", ["rtpmap", "configuration"])
def test_several_units_in_a_packet_with_a_clock_that_is_not_the_configurations(clock: int, by: str) -> None:
    camera = Camera(Format(97, "MPEG4-GENERIC", clock, parameters=HBR))
    rate = clock if by == "rtpmap" else 16_000
    everything = units()
    for index in range(60):
        five = [next(everything) for _ in range(5)]
        camera.packet(hbr(five), round(index * 5 * 1024 * rate / 16_000), (index + 1) * 5 * 0.064)
    wrong = by == "configuration" and clock != 16_000
    camera.is_whole(300 * 0.064, moved=(BUDGET[0] + 20 * BUDGET[1]) if wrong else 0.0)


def test_a_frozen_timestamp_plays_on() -> None:
    for frozen_from in (0, 50):
        camera = Camera(Format(97, "MPEG4-GENERIC", 16_000, parameters=HBR))
        for index, unit in zip(range(300), units(), strict=False):
            camera.packet(hbr([unit]), min(index, frozen_from) * 1024, index * 0.064)
        camera.is_whole(300 * 0.064)


@pytest.mark.parametrize("parameters", [{"cpresent": "0", "config": "40002810"}, {"config": "40002810"}])
def test_latm_with_uneven_timestamps_and_its_configuration_out_of_band(parameters: dict[str, str]) -> None:
    camera, rng = Camera(Format(97, "MP4A-LATM", 16_000, parameters=parameters)), random.Random(3)
    for index, unit in zip(range(300), units(), strict=False):
        element = b"\xff" * (len(unit) // 255) + bytes((len(unit) % 255,)) + unit
        camera.packet(element, index * 1024 + rng.randint(-400, 400), index * 0.064)
    camera.is_whole(300 * 0.064)


def test_g711_with_uneven_timestamps() -> None:
    camera, rng = Camera(Format(0, "PCMU", 8000)), random.Random(3)
    for index in range(1000):
        camera.packet(b"\xff" * 160, index * 160 + rng.randint(-150, 150), index * 0.02)
    camera.is_whole(1000 * 0.02)


def test_he_aac_plays_at_its_output_rate_with_the_cores_clock_and_five_units_a_packet() -> None:
    # Explicit SBR over an AAC-LC core of 16 kHz: the decoder gives 32 kHz, and 2048 samples a unit.
    camera = Camera(Format(97, "MPEG4-GENERIC", 16_000, parameters=HBR | {"config": _he_aac_config()}))
    everything = units()
    for index in range(60):
        five = [next(everything) for _ in range(5)]
        camera.packet(hbr(five), index * 5 * 1024, (index + 1) * 5 * 0.064)
    camera.is_whole(300 * 0.064)
    assert camera.input._transcoder._source[0] == 32_000


def _he_aac_config() -> str:
    """AudioSpecificConfig: object type 5, core 16 kHz (8), mono, extension 32 kHz (5), then AAC-LC."""
    bits = f"{5:05b}{8:04b}{1:04b}{5:04b}{2:05b}000".ljust(32, "0")
    return f"{int(bits, 2):08x}"


def test_a_real_pause_is_filled_or_jumped() -> None:
    camera = Camera(Format(97, "MPEG4-GENERIC", 16_000, parameters=HBR))
    at = 0
    for index, unit in zip(range(300), units(), strict=False):
        at += {100: 4000, 200: 64_000}.get(index, 0)
        camera.packet(hbr([unit]), index * 1024 + at, (index * 1024 + at) / 16_000)
    steps = [b - a for a, b in itertools.pairwise(camera.ticks) if b - a != 960]
    assert len(steps) == 1
    assert steps[0] / 48_000 == pytest.approx(4.0, abs=0.05)
    tolerated = camera.pipeline.track_stats(Kind.AUDIO).tolerated
    assert (tolerated["sound_gap_filled_ms"], tolerated["sound_gap_jumped"]) == (250, 1)


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-200, 200])
def test_drift_is_followed_within_lip_sync(ppm: float) -> None:
    camera = Camera(Format(0, "PCMU", 8000))
    worst = 0.0
    for index in range(50 * 900):
        now = index * 0.02 / (1 + ppm * 1e-6)
        camera.packet(HUSH, index * 160, now)
        if camera.ticks:
            worst = max(worst, abs(camera.ticks[-1] / 48_000 - 1000.0 - now))
    assert all(b - a == 960 for a, b in itertools.pairwise(camera.ticks))
    assert worst < 0.045
    clock = camera.input._transcoder.clock
    assert clock.inserted + clock.removed == pytest.approx(900 * 200e-6 / 0.020, abs=2)
    assert clock.moved == 0


def test_an_empty_unit_does_not_end_the_decoder() -> None:
    transcoder = OpusTranscoder("aac", bytes.fromhex("1408"))
    transcoder.transcode(UNITS[0], 0.0, 0.0)
    transcoder.transcode(b"", 0.064, 0.064)
    out = [p for i, unit in enumerate(UNITS[1:20]) for p in transcoder.transcode(unit, 0.128 + i * 0.064, i * 0.064)]
    assert len(out) > 50
    # PyAV itself: an empty packet is the end of the stream.
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = bytes.fromhex("1408")
    decoder.decode(av.Packet(UNITS[0]))
    decoder.decode(av.Packet(b""))
    with pytest.raises(av.error.EOFError):
        decoder.decode(av.Packet(UNITS[1]))


def test_corrections_are_seldom_and_bounded_whatever_the_error() -> None:
    clock, rng = SoundClock(), random.Random(1)
    moved = sum(
        abs(clock.correction(rng.uniform(-9, 9), 0.02, index * 0.02, lambda: False)) for index in range(50 * 600)
    )
    assert moved * 0.02 <= BUDGET[0] + 600 * BUDGET[1] + 0.02 * (600 / INTERVAL + 1)


def test_two_corrections_are_thirty_seconds_apart_also_in_silence() -> None:
    clock = SoundClock()
    times = [at * 0.02 for at in range(50 * 100) if clock.correction(0.03, 0.02, at * 0.02, lambda: True)]
    assert len(times) == 4
    assert all(b - a >= INTERVAL for a, b in itertools.pairwise(times))
