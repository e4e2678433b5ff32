"""Test pictures: FFmpeg's moving pattern with a camera's name, a running clock and a machine-readable frame number.

The clock shows seconds and milliseconds within the loop, so that a person can read the delay off the screen; the row of
blocks below it is the frame number in binary, so that a program can read it off a canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import av
import av.filter
from av.video.frame import PictureType

from relay_common.simulation.camera.font import GLYPH_HEIGHT, text_rows, width

FRAME_NUMBER_BITS: Final = 12
"""Blocks in the machine-readable row, most significant first; white is 1."""

_WHITE, _BLACK, _NEUTRAL = 235, 16, 128


def frame_number_blocks(picture_width: int, picture_height: int) -> tuple[int, int, int]:
    """Position of the frame number: (left, top, block edge) in pixels; the blocks are adjacent."""
    edge = max(8, picture_height // 24 // 2 * 2)
    return (picture_width - edge * (FRAME_NUMBER_BITS + 1)) // 2 * 2, (picture_height - 2 * edge) // 2 * 2, edge


def moving_pattern(
    name: str, picture_width: int, picture_height: int, fps: int, frames: int, phase: float, hue: int
) -> Iterator[av.VideoFrame]:
    """`frames` yuv420p pictures; the clock starts at `phase` seconds and wraps with the loop; `hue` in degrees."""
    label = _Text(name, max(1, picture_height // 120))
    loop = frames / fps
    for number, frame in enumerate(_pattern(picture_width, picture_height, fps, frames, hue)):
        seconds = (phase + number / fps) % loop
        label.paint(frame, 8, 8)
        clock = _Text(f"{seconds:06.3f}", max(1, picture_height // 60))
        clock.paint(frame, 8, (picture_height - clock.height - 8) // 2 * 2)
        _paint_number(frame, number)
        yield _timed(frame, number)


def flashes(
    picture_width: int, picture_height: int, fps: int, frames: int, flash_frames: int
) -> Iterator[av.VideoFrame]:
    """Black pictures with `flash_frames` white ones at the start of every second (for lip-sync measurements)."""
    for number in range(frames):
        frame = av.VideoFrame(picture_width, picture_height, "yuv420p")
        light = _WHITE if number % fps < flash_frames else _BLACK
        for index, plane in enumerate(frame.planes):
            plane.update(bytes([light if index == 0 else _NEUTRAL]) * plane.buffer_size)
        _paint_number(frame, number)
        yield _timed(frame, number)


def _pattern(picture_width: int, picture_height: int, fps: int, frames: int, hue: int) -> Iterator[av.VideoFrame]:
    graph = av.filter.Graph()  # the filters hold it only weakly
    size = f"size={picture_width}x{picture_height}"
    pattern = graph.add("testsrc2", f"{size}:rate={fps}:duration={frames / fps + 1}")
    tint = graph.add("hue", f"h={hue}")
    sink = graph.add("buffersink")
    pattern.link_to(tint)
    tint.link_to(sink)
    graph.configure()
    for _ in range(frames):
        frame = sink.pull()
        assert isinstance(frame, av.VideoFrame)
        yield frame


def _timed(frame: av.VideoFrame, number: int) -> av.VideoFrame:
    frame.pts = number
    # The source marks every picture as intra, which the encoder would obey.
    frame.pict_type = PictureType.NONE
    return frame


def _paint_number(frame: av.VideoFrame, number: int) -> None:
    left, top, edge = frame_number_blocks(frame.width, frame.height)
    bits = f"{number % (1 << FRAME_NUMBER_BITS):0{FRAME_NUMBER_BITS}b}"
    row = b"".join(bytes([_WHITE if bit == "1" else _BLACK]) * edge for bit in bits)
    _paint_rows(frame, left, top, [row] * edge)


def _paint_rows(frame: av.VideoFrame, left: int, top: int, rows: list[bytes]) -> None:
    """Put grey `rows` at (left, top), both even, clipped to the picture's width."""
    luma, *chroma = frame.planes
    visible = min(len(rows[0]), frame.width - left)
    pixels, stride = memoryview(luma), luma.line_size
    for index, row in enumerate(rows):
        start = (top + index) * stride + left
        pixels[start : start + visible] = row[:visible]
    grey = bytes([_NEUTRAL]) * (visible // 2)
    for plane in chroma:
        pixels, stride = memoryview(plane), plane.line_size
        for index in range(len(rows) // 2):
            start = (top // 2 + index) * stride + left // 2
            pixels[start : start + len(grey)] = grey


class _Text:
    """A line of text, rendered once and painted on many pictures."""

    def __init__(self, text: str, scale: int) -> None:
        self._rows = [row for row in text_rows(text, scale, _WHITE, _BLACK) for _ in range(scale)]
        margin = [bytes([_BLACK]) * width(text, scale)] * scale
        self._rows = [*margin, *self._rows, *margin]
        self.height = (GLYPH_HEIGHT + 2) * scale

    def paint(self, frame: av.VideoFrame, left: int, top: int) -> None:
        _paint_rows(frame, left, top, self._rows)
