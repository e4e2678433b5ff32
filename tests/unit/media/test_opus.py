"""AAC and G.711 into Opus: the sound survives, its time is continuous, faults cost no more than silence."""

from __future__ import annotations

import array
import itertools
import math
from fractions import Fraction

import av
import pytest
from av.audio.codeccontext import AudioCodecContext

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.opus import FRAME_SECONDS, OpusSettings, OpusTranscoder
from relay_worker.media.opus_encoder import AvEncoder, EncoderError, NativeEncoder

AAC_SAMPLES = 1024


def transcode_clip(
    spec: AudioSpec, count: int = 64, settings: OpusSettings | None = None
) -> tuple[OpusTranscoder, list[tuple[bytes, float]]]:
    clip = audio_clip(spec)
    transcoder = OpusTranscoder("aac", clip.config, settings=settings)
    packets: list[tuple[bytes, float]] = []
    for index, unit in zip(range(count), itertools.cycle(clip.units), strict=False):
        packets += transcoder.transcode(unit.data, at := 100.0 + index * AAC_SAMPLES / spec.rate, at)
    return transcoder, packets


def decoded(packets: list[tuple[bytes, float]]) -> list[float]:
    """The first channel of Opus packets, at 48 kHz, by libopus."""
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, AudioCodecContext)
    samples: list[float] = []
    for data, _ in packets:
        for frame in decoder.decode(av.Packet(data)):
            values = array.array("h", bytes(frame.planes[0])[: frame.samples * 2 * frame.layout.nb_channels])
            samples += [value / 32768 for value in values[:: frame.layout.nb_channels]]
    return samples


def power_at(samples: list[float], frequency: float) -> float:
    """Share of the signal's power at `frequency` (Goertzel, one bin of a whole second)."""
    samples = samples[-48000:]
    re = sum(s * math.cos(2 * math.pi * frequency * i / 48000) for i, s in enumerate(samples))
    im = sum(s * math.sin(2 * math.pi * frequency * i / 48000) for i, s in enumerate(samples))
    total = sum(s * s for s in samples)
    return 2 * (re * re + im * im) / (len(samples) * total) if total else 0.0


def assert_continuous(times: list[float]) -> None:
    assert all(b - a == pytest.approx(FRAME_SECONDS, abs=1e-6) for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_survives_at_every_rate(rate: int, channels: int) -> None:
    spec = AudioSpec(rate=rate, channels=channels, pitch=440.0)  # type: ignore[arg-type]
    units = math.ceil(1.6 * rate / AAC_SAMPLES)
    transcoder, packets = transcode_clip(spec, units)
    assert len(packets) == pytest.approx(units * AAC_SAMPLES / rate / FRAME_SECONDS, abs=3)
    assert_continuous([time for _, time in packets])
    assert packets[0][1] == 100.0
    assert transcoder.stats.faults == 0
    samples = decoded(packets)
    # The clip rounds its pitch to a whole number of periods per AAC frame.
    pitch = round(440.0 * AAC_SAMPLES / rate) * rate / AAC_SAMPLES
    assert power_at(samples, pitch) > 0.8


def test_stereo_is_kept_when_asked_for() -> None:
    _, packets = transcode_clip(AudioSpec(rate=48000, channels=2), 20, OpusSettings(channels=2, bitrate=64000))
    # RFC 6716 §3.1: bit 2 of the TOC byte tells stereo.
    assert all(data[0] & 0x04 for data, _ in packets)


@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
def test_both_sides_of_a_stereo_camera_are_heard(side: int) -> None:
    coder = av.CodecContext.create("aac", "w")
    assert isinstance(coder, AudioCodecContext)
    coder.sample_rate, coder.layout, coder.format = 48000, "stereo", av.AudioFormat("fltp")
    coder.time_base, coder.bit_rate = Fraction(1, 48000), 128_000
    units: list[bytes] = []
    for index in range(100):
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=AAC_SAMPLES)
        frame.sample_rate, frame.pts = 48000, index * AAC_SAMPLES
        times = range(index * AAC_SAMPLES, (index + 1) * AAC_SAMPLES)
        frame.planes[side].update(array.array("f", (0.5 * math.sin(math.tau * 500 * t / 48000) for t in times)))
        frame.planes[1 - side].update(bytes(4 * AAC_SAMPLES))
        units += map(bytes, coder.encode(frame))
    transcoder = OpusTranscoder("aac", bytes(coder.extradata or b""))
    packets = [
        p
        for i, unit in enumerate(units)
        for p in transcoder.transcode(unit, i * AAC_SAMPLES / 48000, i * AAC_SAMPLES / 48000)
    ]
    samples = decoded(packets)
    assert power_at(samples, 500) > 0.8
    assert max(samples[-48000:]) > 0.1


def test_every_packet_is_one_frame_of_20_ms() -> None:
    _, packets = transcode_clip(AudioSpec())
    # Code 0, and a 20 ms configuration of CELT (configurations 16-31, the last of each four).
    assert all(data[0] & 0x03 == 0 and data[0] >> 3 >= 16 and data[0] >> 3 & 3 == 3 for data, _ in packets)


@pytest.mark.parametrize(("codec", "encoder"), [("pcmu", "pcm_mulaw"), ("pcma", "pcm_alaw")])
def test_g711(codec: str, encoder: str) -> None:
    coder = av.CodecContext.create(encoder, "w")
    assert isinstance(coder, AudioCodecContext)
    coder.sample_rate, coder.layout, coder.format = 8000, "mono", av.AudioFormat("s16")
    coder.time_base = Fraction(1, 8000)
    transcoder = OpusTranscoder(codec)  # type: ignore[arg-type]
    packets = []
    for index in range(80):
        frame = av.AudioFrame(format="s16", layout="mono", samples=160)
        frame.sample_rate, frame.pts = 8000, index * 160
        tone = (int(9000 * math.sin(2 * math.pi * 500 * (index * 160 + i) / 8000)) for i in range(160))
        frame.planes[0].update(array.array("h", tone).tobytes())
        for packet in coder.encode(frame):
            packets += transcoder.transcode(bytes(packet), index * 0.02, index * 0.02)
    assert_continuous([time for _, time in packets])
    assert power_at(decoded(packets), 500) > 0.8


def feed(transcoder: OpusTranscoder, times: list[float]) -> list[float]:
    units = itertools.cycle(audio_clip(AudioSpec()).units)
    return [time for at, unit in zip(times, units, strict=False) for _, time in transcoder.transcode(unit.data, at, at)]


def aac() -> OpusTranscoder:
    return OpusTranscoder("aac", audio_clip(AudioSpec()).config)


def test_jitter_of_the_mapping_does_not_reach_the_output() -> None:
    times = [index * 0.064 + (0.015 if index % 3 else -0.015) for index in range(60)]
    transcoder = aac()
    assert_continuous(feed(transcoder, times))
    assert transcoder.stats.filled == 0


def test_a_small_gap_becomes_silence_of_its_length() -> None:
    times = [index * 0.064 for index in range(30)] + [index * 0.064 for index in range(33, 60)]
    transcoder = aac()
    out = feed(transcoder, times)
    assert_continuous(out)
    assert transcoder.stats.filled == pytest.approx(3 * 0.064, abs=0.001)
    assert out[-1] == pytest.approx(60 * 0.064, abs=0.04)


def test_a_long_gap_is_jumped_not_filled() -> None:
    transcoder = aac()
    first = feed(transcoder, [index * 0.064 for index in range(20)])
    second = feed(transcoder, [30 + index * 0.064 for index in range(20)])
    assert second[0] == 30.0
    assert len(first) + len(second) <= 2 * 64
    assert_continuous(second)
    assert transcoder.stats.jumps == 1


def test_sound_that_comes_twice_is_dropped() -> None:
    times = [index * 0.064 for index in range(30)] + [index * 0.064 for index in range(28, 60)]
    transcoder = aac()
    out = feed(transcoder, times)
    assert_continuous(out)
    assert transcoder.stats.overlapped == pytest.approx(2 * 0.064, abs=0.001)
    assert out[-1] == pytest.approx(60 * 0.064, abs=0.04)


def test_slow_drift_is_followed() -> None:
    # The timeline stretches by 0.5 %: much more than any clock drift, over ten seconds.
    times = [index * 0.064 * 1.005 for index in range(160)]
    transcoder = aac()
    out = feed(transcoder, times)
    assert_continuous(out)
    assert out[-1] == pytest.approx(times[-1] + 0.064, abs=0.065)


def test_faults_are_counted_and_become_silence() -> None:
    clip = audio_clip(AudioSpec())
    transcoder = aac()
    out: list[tuple[bytes, float]] = []
    for index, unit in zip(range(60), itertools.cycle(clip.units), strict=False):
        data = b"\xff\xf1broken" if index == 30 else unit.data
        out += transcoder.transcode(data, index * 0.064, index * 0.064)
    assert transcoder.stats.faults == 1
    assert_continuous([time for _, time in out])
    assert transcoder.stats.filled > 0


def test_nothing_makes_it_raise() -> None:
    for config in (b"", b"\x00", b"\xff" * 40):
        transcoder = OpusTranscoder("aac", config)
        for size in range(0, 300, 7):
            transcoder.transcode(bytes((size * 7 + i * 13) & 0xFF for i in range(size)), size * 0.064, 0.0)
        assert transcoder.stats.faults > 0


def test_every_setting_of_the_encoders_is_in_force() -> None:
    for made in (AvEncoder("flt", 48_000, OpusSettings()), NativeEncoder("flt", 48_000, OpusSettings())):
        (packet,) = made.encode(bytes(4 * 960))
        assert len(packet) == 32_000 // 50 // 8
    with pytest.raises(EncoderError, match="refuses setting 4010 = 11"):
        NativeEncoder("flt", 48_000, OpusSettings(complexity=11))


@pytest.mark.parametrize("size", [1, 2])
def test_a_unit_that_was_cut_short_is_not_read_on_into_what_lies_behind_it(size: int) -> None:
    clip = audio_clip(AudioSpec(rate=16000))
    units = [unit.data for unit in clip.units]

    def sound(behind: int) -> list[tuple[bytes, float]]:
        transcoder = OpusTranscoder("aac", clip.config)
        packets: list[tuple[bytes, float]] = []
        for number, data in enumerate((units[0], units[1], units[2][:size], units[3], units[4])):
            there = memoryview(data + bytes((behind,)) * 64)[: len(data)]
            packets += transcoder.transcode(there, 100 + number * 0.064, 100.0 + number)  # type: ignore[arg-type]
        return packets

    assert sound(0x00) == sound(0xFF) == sound(0xAA)
