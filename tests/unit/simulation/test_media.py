"""Generated clips, looked at through FFmpeg's decoders."""

from __future__ import annotations

import av
import pytest

from relay_common.simulation.camera.media import AudioSpec, Clip, VideoSpec, audio_clip, video_clip
from relay_common.simulation.camera.packetizer import audio_track, video_track
from relay_common.simulation.camera.picture import FRAME_NUMBER_BITS, frame_number_blocks

SMALL = VideoSpec(name="Door", width=160, height=120, seconds=2.0, gop=1.0)


def decode(clip: Clip, loops: int = 1) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames: list[av.VideoFrame] = []
    for unit in clip.units * loops:
        frames += decoder.decode(av.Packet(unit.data))
    return frames + decoder.decode(None)


def read_frame_number(frame: av.VideoFrame) -> int:
    left, top, edge = frame_number_blocks(frame.width, frame.height)
    pixels, stride = memoryview(frame.planes[0]), frame.planes[0].line_size
    row = (top + edge // 2) * stride
    bits = [pixels[row + left + edge * block + edge // 2] > 128 for block in range(FRAME_NUMBER_BITS)]
    return int("".join(str(int(bit)) for bit in bits), 2)


def test_every_picture_carries_its_number_and_the_loop_decodes_twice() -> None:
    frames = decode(video_clip(SMALL), loops=2)
    assert [read_frame_number(frame) for frame in frames] == [*range(60), *range(60)]


def test_there_is_an_idr_at_every_gop_and_no_reordering_by_default() -> None:
    units = video_clip(SMALL).units
    assert [index for index, unit in enumerate(units) if unit.keyframe] == [0, 30]
    assert all(unit.pts == unit.dts for unit in units)


def test_b_frames_are_reordered_and_stay_within_the_loop() -> None:
    units = video_clip(VideoSpec(width=160, height=120, seconds=2.0, gop=1.0, b_frames=2)).units
    assert sorted(unit.pts for unit in units) == list(range(60))
    assert [unit.pts for unit in units] != list(range(60))
    assert [unit.dts for unit in units] == list(range(-2, 58))


def test_the_bitrate_is_what_was_asked_for() -> None:
    clip = video_clip(VideoSpec(seconds=4.0))
    assert sum(len(unit.data) for unit in clip.units) * 8 / 4 == pytest.approx(800_000, rel=0.15)


def test_flashes_are_white_at_the_start_of_each_second() -> None:
    frames = decode(video_clip(VideoSpec(width=160, height=120, seconds=2.0, gop=1.0, pattern="flash")))
    bright = [index for index, frame in enumerate(frames) if memoryview(frame.planes[0])[0] > 200]
    assert bright == [0, 1, 2, 30, 31, 32]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_tones_loop_without_a_seam(rate: int, channels: int) -> None:
    spec = AudioSpec(rate=rate, channels=2 if channels == 2 else 1, bitrate=96_000)
    clip = audio_clip(spec)
    assert [unit.pts for unit in clip.units] == [1024 * index for index in range(64)]
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = clip.config
    peaks = []
    for unit in clip.units * 2:
        for frame in decoder.decode(av.Packet(unit.data)):
            samples = memoryview(bytes(frame.planes[0])).cast("f")
            peaks.append(max(abs(sample) for sample in samples))
    # A click at the seam (unit 64) would stand out; the first units are the decoder's start.
    assert max(peaks[2:]) < 0.3
    assert min(peaks[2:]) > 0.2


def test_beeps_stand_at_whole_seconds() -> None:
    clip = audio_clip(AudioSpec(rate=48_000, pattern="beep", bitrate=96_000))
    assert clip.ticks % 48_000 == 0
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = clip.config
    loud = []
    for unit in clip.units[:100]:
        for frame in decoder.decode(av.Packet(unit.data)):
            samples = memoryview(bytes(frame.planes[0])).cast("f")
            loud += [unit.pts + n for n, sample in enumerate(samples) if abs(sample) > 0.25]
    onset = next(n for n in loud if n > 10_000)
    # The decoder gives each unit's samples one unit late (its overlap), so the beep may stand 1024 samples behind.
    assert abs(onset - 48_000) < 1100


def test_packets_hold_whole_clips_within_the_payload_limit() -> None:
    track = video_track(SMALL, payload=400)
    assert max(len(payload) for unit in track.units for _, payload in unit.packets) == 400
    assert all(unit.packets[-1][0] == 0x80 | 96 for unit in track.units), "marker on the last packet of each unit"
    assert all(kind == 96 for unit in track.units for kind, _ in unit.packets[:-1])
    assert [unit.timestamp for unit in track.units] == [3000 * n for n in range(60)]


def test_audio_packets_hold_one_unit_each() -> None:
    track = audio_track(AudioSpec())
    assert [len(unit.packets) for unit in track.units] == [1] * 64
    for unit, encoded in zip(track.units, audio_clip(AudioSpec()).units, strict=True):
        ((_, payload),) = unit.packets
        assert payload[:2] == b"\x00\x10"  # sixteen bits of AU headers: one unit
        assert int.from_bytes(payload[2:4], "big") >> 3 == len(encoded.data)
        assert payload[4:] == encoded.data


def test_parameter_sets_can_be_left_out() -> None:
    kinds = {
        payload[0] & 0x1F for unit in video_track(SMALL, parameter_sets="absent").units for _, payload in unit.packets
    }
    assert not kinds & {7, 8, 24}
    assert not any("sprop" in line for line in video_track(SMALL, parameter_sets="absent").sdp)
    assert any("sprop" in line for line in video_track(SMALL, parameter_sets="out_of_band").sdp)


@pytest.mark.parametrize("wrong", [{"width": 161}, {"height": 10}, {"seconds": 3.0}])
def test_impossible_specs_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"even|whole GOPs"):
        VideoSpec(**wrong)  # type: ignore[arg-type]
