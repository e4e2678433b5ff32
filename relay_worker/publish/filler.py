"""Filler for viewers while the camera is away: a slate with the camera's name, and Opus silence.

The SFU drops a track that is silent for 30 s, and viewers would lose their subscription with it; a frame a second keeps
both. The slate is encoded once, when it is first needed (the wheels lack FFmpeg's drawtext, so a small bitmap font is
used).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, NamedTuple

import av
from av.video.codeccontext import VideoCodecContext

from relay_worker.media.stream import PayloadRun
from relay_worker.publish.slate_font import GLYPH_HEIGHT, GLYPH_WIDTH, glyph
from relay_worker.rtp.h264 import NAL_SEI, split_annex_b
from relay_worker.rtp.h264_packetize import packetize

VIDEO_INTERVAL: Final = 1.0
AUDIO_INTERVAL: Final = 0.1

SILENCE_20MS: Final = bytes((0xF8, 0xFF, 0xFE))
"""One 20 ms full-band CELT frame of silence, mono (RFC 6716 §3.1)."""
SILENCE_100MS: Final = bytes((0xFB, 0x05)) + 5 * bytes((0xFF, 0xFE))
"""Five such frames in one packet (code 3, RFC 6716 §3.2.5): ten packets and wakes a second instead of fifty."""

_BACKGROUND: Final = 40
_NAME: Final = 210
_CAPTION: Final = 140
_CAPTION_TEXT: Final = "RECONNECTING"


class Slate(NamedTuple):
    """A still picture as RTP payloads: one access unit with parameter sets and an IDR, constrained baseline."""

    payloads: PayloadRun
    width: int
    height: int


@functools.lru_cache(maxsize=4)
def slate(name: str, width: int = 640, height: int = 360, caption: str = _CAPTION_TEXT) -> Slate:
    """The slate of a camera, encoded at the first call (some 10-30 ms) and cached.

    `width` and `height` are made even and at least 64; use the camera's own so that viewers need not resize.
    """
    width, height = max(64, width & ~1), max(64, height & ~1)
    luma = bytearray([_BACKGROUND]) * (width * height)
    _write(luma, width, height, _printable(name), height * 2 // 5, _NAME)
    _write(luma, width, height, _printable(caption), height * 3 // 5, _CAPTION, relative=0.6)
    # The encoder's SEI is a line of advertising.
    nals = [nal for nal in split_annex_b(_encode(luma, width, height)) if nal[0] & 0x1F != NAL_SEI]
    return Slate(tuple(packetize(nals)), width, height)


def _printable(text: str) -> str:
    """`text` in the font's alphabet: accents dropped, upper case, at most 40 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return plain.upper()[:40].strip()


def _write(
    luma: bytearray, width: int, height: int, text: str, middle: int, shade: int, *, relative: float = 1.0
) -> None:
    """Draw `text` centred on the line `middle`, as large as fits."""
    if not text:
        return
    advance = GLYPH_WIDTH + 1
    scale = max(1, min(int(width * 0.9 / (len(text) * advance)), int(height * 0.12 * relative / GLYPH_HEIGHT)))
    left = (width - (len(text) * advance - 1) * scale) // 2
    top = middle - GLYPH_HEIGHT * scale // 2
    for index, character in enumerate(text):
        for row, bits in enumerate(glyph(character)):
            for column in range(GLYPH_WIDTH):
                if bits >> (GLYPH_WIDTH - 1 - column) & 1:
                    x, y = left + (index * advance + column) * scale, top + row * scale
                    _fill(luma, width, height, x, y, scale, shade)


def _fill(luma: bytearray, width: int, height: int, x: int, y: int, size: int, shade: int) -> None:
    first, last = max(0, x), min(width, x + size)
    for line in range(max(0, y), min(height, y + size)):
        if first < last:
            luma[line * width + first : line * width + last] = bytes([shade]) * (last - first)


def _encode(luma: bytearray, width: int, height: int) -> bytes:
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, source in zip(frame.planes, (luma, None, None), strict=True):
        line = plane.line_size
        rows = bytearray([128]) * (line * plane.height)
        if source is not None:
            for y in range(height):
                rows[y * line : y * line + width] = source[y * width : (y + 1) * width]
        plane.update(bytes(rows))
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 1), Fraction(1, 1)
    encoder.thread_count = 1
    encoder.options = {"preset": "veryfast", "tune": "stillimage,zerolatency", "profile": "baseline", "crf": "24"}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


class FillerMedia(NamedTuple):
    """Filler to send for one media time."""

    kind: str
    """`"video"` (RTP payloads with markers) or `"audio"` (one Opus packet)."""
    payloads: PayloadRun
    media_time: float


class Filler:
    """Makes filler due by a media time: `video` is an IDR a second, `audio` 100 ms of silence ten times a second.

    `begin` after the last live frame, `poll` at `next_time` (both media times), stop calling when the camera is back.
    """

    def __init__(self, name: str, *, audio: bool, video: bool = True, width: int = 640, height: int = 360) -> None:
        self._name, self._size, self._with_audio, self._with_video = name, (width, height), audio, video
        self._video_at = self._audio_at = 0.0

    def begin(self, media_time: float) -> None:
        """Start filling at `media_time`; the first frame is due at once."""
        self._video_at = self._audio_at = media_time

    def next_time(self) -> float:
        """Media time at which `poll` has something."""
        if not self._with_video:
            return self._audio_at
        return min(self._video_at, self._audio_at) if self._with_audio else self._video_at

    def poll(self, media_time: float) -> Iterator[FillerMedia]:
        """Everything due by `media_time`, audio first. After the caller was paused it resumes instead of catching
        up.
        """
        if self._with_audio:
            if media_time - self._audio_at > VIDEO_INTERVAL:
                self._audio_at = media_time
            while self._audio_at <= media_time:
                yield FillerMedia("audio", ((SILENCE_100MS, False),), self._audio_at)
                self._audio_at += AUDIO_INTERVAL
        if self._with_video and self._video_at <= media_time:
            yield FillerMedia("video", slate(self._name, *self._size).payloads, self._video_at)
            self._video_at = max(self._video_at + VIDEO_INTERVAL, media_time)
