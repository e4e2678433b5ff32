"""A still picture of the camera: the next keyframe, decoded, as JPEG. Costs nothing while nobody asks for one."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Final

import av
from av.video.frame import VideoFrame

from relay_common.errors import RelayError
from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.coded import coded
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline

MAX_JPEG: Final = 2 * 1024 * 1024
"""Bytes of the largest JPEG that is sent."""
_VIDEO_CLOCK: Final = 90_000
_QUALITIES: Final = (3, 8, 20)
"""FFmpeg quantisers tried one after the other until the picture is small enough; 2 is best, 31 worst."""


class KeyframeTap:
    """Collects the first complete keyframe: pass it every frame until it returns the access unit."""

    def __init__(self) -> None:
        self._assembler = AccessUnitAssembler()
        self._joined: float | None = None

    def receive_frame(self, frame: Frame) -> bytes | None:
        """The keyframe in Annex B form, parameter sets included, once its last payload has passed."""
        if frame.kind is not Kind.VIDEO:
            return None
        if self._joined is None:
            self._joined = frame.media_time
        if frame.media_time == self._joined:
            return None  # the picture under way when the tap was opened: its beginning may be missing
        timestamp = round(frame.media_time * _VIDEO_CLOCK)
        for payload, marker in frame.payloads:
            for unit in self._assembler.receive_payload(bytes(payload), marker, timestamp):
                if unit.keyframe and unit.complete:
                    return unit.data
        return None


class Snapshots:
    """Takes still pictures of what passes through a pipeline; who asks meanwhile gets the same."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._keyframe: asyncio.Future[bytes] | None = None

    async def take(self, within: float) -> bytes:
        """A JPEG of the next live keyframe; raises RelayError when none comes in `within` seconds."""
        try:
            unit = await asyncio.wait_for(self._next_keyframe(), within)
        except TimeoutError:
            raise RelayError(
                f"no keyframe came from the camera in {within:.0f} s", hint="A camera that is not live has no picture"
            ) from None
        return await asyncio.to_thread(to_jpeg, unit)

    async def _next_keyframe(self) -> bytes:
        if self._keyframe is None or self._keyframe.done():
            self._keyframe = asyncio.get_running_loop().create_future()
            tap = KeyframeTap()
            self._pipeline.tap = lambda frame: self._tapped(tap.receive_frame(frame))
        return await asyncio.shield(self._keyframe)

    def _tapped(self, unit: bytes | None) -> None:
        if unit is not None and self._keyframe is not None:
            self._pipeline.tap = None
            self._keyframe.set_result(unit)


def to_jpeg(access_unit: bytes) -> bytes:
    """Decode a keyframe and encode it as JPEG, at most 2 MiB; blocks for some 10 ms. Raises RelayError."""
    try:
        decoder = av.CodecContext.create("h264", "r")
        pictures = [*decoder.decode(coded(access_unit)), *decoder.decode(None)]
        if not pictures:
            raise RelayError("the keyframe could not be decoded", hint="Try again: it may have been damaged")
        picture = pictures[0]
        assert isinstance(picture, VideoFrame)
        for quality in _QUALITIES:
            jpeg = _encode(picture, quality)
            if len(jpeg) <= MAX_JPEG:
                return jpeg
    except av.error.FFmpegError as error:
        raise RelayError(f"the keyframe could not be decoded: {error}", hint="Try again") from None
    raise RelayError(f"the picture is larger than {MAX_JPEG >> 20} MiB however it is compressed")


def _encode(picture: VideoFrame, quality: int) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.qmin = encoder.qmax = quality
    still = picture.reformat(format="yuvj420p")
    still.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(still), *encoder.encode(None)])
