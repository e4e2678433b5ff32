"""Filler: a slate that decodes and shows the name, silence that is silent, and its schedule."""

from __future__ import annotations

import av
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext

from relay_worker.media.stream import PayloadRun
from relay_worker.publish.filler import SILENCE_20MS, SILENCE_100MS, Filler, slate
from relay_worker.publish.slate_font import glyph
from relay_worker.rtp.h264 import MAX_PAYLOAD
from relay_worker.rtp.h264_packetize import starts_keyframe


def picture(payloads: PayloadRun) -> av.VideoFrame:
    """Decode RTP payloads of one access unit with an assembly of its own."""
    nals: list[bytes] = []
    for payload, _ in payloads:
        kind = payload[0] & 31
        if kind == 24:
            rest = bytes(payload[1:])
            while rest:
                size = int.from_bytes(rest[:2], "big")
                nals.append(rest[2 : 2 + size])
                rest = rest[2 + size :]
        elif kind == 28:
            if payload[1] & 0x80:
                nals.append(bytes([payload[0] & 0xE0 | payload[1] & 31]))
            nals[-1] += bytes(payload[2:])
        else:
            nals.append(bytes(payload))
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    data = b"".join(b"\0\0\0\1" + nal for nal in nals)
    (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    assert decoder.profile == "Constrained Baseline"
    return frame


def bright(frame: av.VideoFrame) -> int:
    plane = frame.planes[0]
    data = bytes(plane)
    return sum(value > 120 for y in range(plane.height) for value in data[y * plane.line_size :][: plane.width])


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080), (720, 1280), (321, 241), (2, 2)])
def test_the_slate_decodes_at_the_cameras_size(width: int, height: int) -> None:
    made = slate("Front Door", width, height)
    frame = picture(made.payloads)
    assert (frame.width, frame.height) == (max(64, width & ~1), max(64, height & ~1)) == (made.width, made.height)
    assert bright(frame) > 0
    assert starts_keyframe(made.payloads[0][0])
    assert [marker for _, marker in made.payloads] == [False] * (len(made.payloads) - 1) + [True]
    assert all(len(payload) <= MAX_PAYLOAD for payload, _ in made.payloads)


def test_the_slate_shows_the_name() -> None:
    blank, short, long = (bright(picture(slate(name, 640, 360, "").payloads)) for name in ("", "i", "WWW"))
    assert blank == 0
    assert 0 < short < long
    assert slate("Porch").payloads == slate("Porch", caption="Reconnecting").payloads


def test_names_beyond_the_font_are_drawn_as_far_as_possible() -> None:
    assert slate("Entrée").payloads == slate("entree").payloads
    assert bright(picture(slate("玄関", 320, 180).payloads)) > 0  # the caption alone
    assert glyph("~") == glyph("?")


@pytest.mark.parametrize(("data", "samples"), [(SILENCE_20MS, 960), (SILENCE_100MS, 4800)])
def test_silence_is_silent(data: bytes, samples: int) -> None:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, AudioCodecContext)
    (frame,) = decoder.decode(av.Packet(data))
    assert (frame.samples, frame.sample_rate) == (samples, 48000)
    assert not any(bytes(frame.planes[0]))


def test_the_schedule_is_one_picture_a_second_and_continuous_sound() -> None:
    filler = Filler("Porch", audio=True)
    filler.begin(10.0)
    media: list[tuple[str, float]] = []
    for step in range(301):
        now = 10.0 + step / 100
        media += [(item.kind, item.media_time) for item in filler.poll(now)]
    video = [time for kind, time in media if kind == "video"]
    audio = [time for kind, time in media if kind == "audio"]
    assert video == pytest.approx([10.0, 11.0, 12.0, 13.0])
    assert audio == pytest.approx([10.0 + index * 0.1 for index in range(len(audio))])
    assert len(audio) in (30, 31)
    assert filler.next_time() > 13.0


def test_without_audio_there_is_no_audio() -> None:
    filler = Filler("Porch", audio=False)
    filler.begin(0.0)
    assert [item.kind for item in filler.poll(0.5)] == ["video"]
    assert filler.next_time() == 1.0


def test_a_stalled_caller_is_not_flooded() -> None:
    filler = Filler("Porch", audio=True)
    filler.begin(0.0)
    list(filler.poll(0.0))
    assert len(list(filler.poll(3600.0))) <= 3
