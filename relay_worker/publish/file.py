"""Outputs of the pipeline other than the SFU: nowhere, or an MP4 file."""

from __future__ import annotations

import contextlib
import logging
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.video.stream import VideoStream

from relay_common.errors import RelayError
from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.coded import coded
from relay_worker.media.stream import Frame, Kind

VIDEO_CLOCK: Final = 90000
log = logging.getLogger(__name__)

OPUS_FRAME: Final = Fraction(1, 50)


class NullSink:
    """Sends nothing anywhere."""

    problem = ""
    """Why what was sent is lost, in words."""

    def send(self, frame: Frame, now: float) -> None:
        """Drop a frame."""

    def close(self) -> None:
        """Nothing to do."""


class FileSink(NullSink):
    """Writes an MP4 file with the H.264 unchanged and Opus sound, from the first keyframe on.

    Raises RelayError when the file cannot be created. `problem` says why writing failed later: a full disk is not the
    camera's fault.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._assembler = AccessUnitAssembler()
        self._start: float | None = None
        self._video: VideoStream | None = None
        try:
            path.open("wb").close()  # the muxer opens it with the first packet only
            self._container = av.open(str(path), "w", format="mp4")
            self._audio = self._container.add_stream("libopus", rate=48000, layout="mono")
        except (OSError, av.error.FFmpegError, ValueError) as error:
            raise RelayError(f"{path} cannot be written: {getattr(error, 'strerror', '') or error}") from None

    def send(self, frame: Frame, now: float) -> None:
        """Write a frame; a part of an access unit waits for the rest."""
        super().send(frame, now)
        if self.problem:
            return
        try:
            self._write(frame)
        except (OSError, av.error.FFmpegError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.problem = f"{self._path} cannot be written: {getattr(error, 'strerror', '') or error}"

    def _write(self, frame: Frame) -> None:
        if frame.kind is Kind.AUDIO:
            self._write_audio(frame)
            return
        timestamp = round(frame.media_time * VIDEO_CLOCK)
        for payload, marker in frame.payloads:
            for unit in self._assembler.receive_payload(bytes(payload), marker, timestamp):
                self._write_video(unit.data, unit.timestamp, unit.keyframe)

    def _write_video(self, data: bytes, timestamp: int, keyframe: bool) -> None:
        if self._video is None:
            if not keyframe:
                return
            self._video = self._container.add_stream("h264", rate=30)
            self._start = timestamp / VIDEO_CLOCK
            # The muxer wants parameter sets up front: a decoder reads them, and the size, from the first keyframe.
            decoder = av.CodecContext.create("h264", "r")
            with contextlib.suppress(av.error.FFmpegError):
                frames = [*decoder.decode(coded(data)), *decoder.decode(None)]
                if frames:
                    self._video.width, self._video.height = frames[0].width, frames[0].height
            self._video.codec_context.extradata = data
        assert self._start is not None
        packet = av.Packet(data)
        packet.stream = self._video
        packet.time_base = Fraction(1, VIDEO_CLOCK)
        packet.pts = packet.dts = timestamp - round(self._start * VIDEO_CLOCK)
        packet.is_keyframe = keyframe
        self._container.mux(packet)

    def _write_audio(self, frame: Frame) -> None:
        for number, (payload, _) in enumerate(frame.payloads):
            media_time = frame.media_time + number * frame.step
            if self._start is None or media_time < self._start:
                continue
            packet = av.Packet(bytes(payload))
            packet.stream = self._audio
            packet.time_base = Fraction(1, 48000)
            packet.pts = packet.dts = round((media_time - self._start) * 48000)
            packet.duration = 960
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file; a warning says what of the camera's video is missing in it."""
        damaged = self._assembler.malformed + self._assembler.oversized
        if damaged:
            log.warning("%d payloads or pictures could not be written to the file", damaged)
        if self._video is not None:
            try:
                self._container.close()
            except (OSError, av.error.FFmpegError) as error:
                self._fail(error)
