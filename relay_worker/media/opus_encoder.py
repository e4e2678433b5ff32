"""An Opus encoder: libopus itself, or FFmpeg's wrapper where its library cannot be found.

PyAV brings libopus along. Asked directly, a packet costs one foreign call; through FFmpeg it costs a frame, a packet,
several fractions and their copies: measured in a worker among others, whose caches are cold at every wake, 107 µs
against 45. The encoder is the same.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from cffi import FFI

FRAME_SECONDS: Final = 0.020
MAX_PACKET: Final = 1275
"""Bytes of the largest Opus frame (RFC 6716 §3.2)."""

SampleFormat = Literal["flt", "s16"]
SAMPLE_BYTES: Final[dict[SampleFormat, int]] = {"flt": 4, "s16": 2}

_APPLICATIONS: Final = {"voip": 2048, "audio": 2049, "lowdelay": 2051}  # opus_defines.h
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY = 4002, 4006, 4010

_ffi = FFI()
_ffi.cdef("""
    typedef struct OpusEncoder OpusEncoder;
    OpusEncoder *opus_encoder_create(int32_t rate, int channels, int application, int *error);
    void opus_encoder_destroy(OpusEncoder *encoder);
    int opus_encoder_ctl(OpusEncoder *encoder, int request, ...);
    int32_t opus_encode(OpusEncoder *encoder, const char *samples, int count, unsigned char *out, int32_t room);
    int32_t opus_encode_float(OpusEncoder *encoder, const char *samples, int count, unsigned char *out, int32_t room);
""")  # samples are plain bytes to us


@dataclass(frozen=True)
class OpusSettings:
    """Encoder settings. The defaults suit the speech of a 16 kHz mono camera."""

    bitrate: int = 32_000
    """Bit/s, constant: packets of one size leave in one system call."""
    channels: Literal[1, 2] = 1
    application: Literal["lowdelay", "voip", "audio"] = "lowdelay"
    """lowdelay is CELT alone: the cheapest, with 2.5 ms of look-ahead instead of 6.5."""
    complexity: int = 1
    """0..10."""


class EncoderError(Exception):
    """The encoder refused; the message says why."""


class OpusEncoder(Protocol):
    """Encodes 20 ms frames of interleaved samples."""

    def encode(self, samples: bytes) -> list[bytes]:
        """One Opus packet for each complete frame; raises EncoderError."""
        ...


@functools.cache
def _library() -> Any:
    """libopus as bundled with PyAV, or the system's; None when there is neither."""
    home = Path(av.__file__).parent
    candidates = [*home.with_name("av.libs").glob("libopus*.so*"), *(home / ".dylibs").glob("libopus*.dylib")]
    for name in [*map(str, candidates), ctypes.util.find_library("opus") if not candidates else None]:
        if name is not None:
            with contextlib.suppress(OSError):
                return _ffi.dlopen(name)
    return None


class NativeEncoder:
    """libopus through its C interface (opus_encoder, https://opus-codec.org/docs/). Raises EncoderError."""

    def __init__(self, sample_format: SampleFormat, rate: int, settings: OpusSettings) -> None:
        library = _library()
        if library is None:
            raise EncoderError("libopus was not found")
        error = _ffi.new("int *")
        encoder = library.opus_encoder_create(rate, settings.channels, _APPLICATIONS[settings.application], error)
        if error[0]:
            raise EncoderError(f"libopus refuses {rate} Hz with {settings.channels} channels (error {error[0]})")
        self._encoder = _ffi.gc(encoder, library.opus_encoder_destroy)
        for request, value in (
            (_SET_BITRATE, settings.bitrate),
            (_SET_VBR, 0),
            (_SET_COMPLEXITY, settings.complexity),
        ):
            if refused := library.opus_encoder_ctl(self._encoder, request, _ffi.cast("int32_t", value)):
                raise EncoderError(f"libopus refuses setting {request} = {value} (error {refused})")
        self._encode = library.opus_encode_float if sample_format == "flt" else library.opus_encode
        self._samples = round(rate * FRAME_SECONDS)
        self._size = self._samples * settings.channels * SAMPLE_BYTES[sample_format]
        self._out = _ffi.new("unsigned char[]", MAX_PACKET)
        self._packet = _ffi.buffer(self._out)

    def encode(self, samples: bytes) -> list[bytes]:
        packets: list[bytes] = []
        start = _ffi.from_buffer(samples)
        for offset in range(0, len(samples) - self._size + 1, self._size):
            length = self._encode(self._encoder, start + offset, self._samples, self._out, MAX_PACKET)
            if length < 0:
                raise EncoderError(f"libopus error {length}")
            packets.append(self._packet[:length])
        return packets

    @property
    def addresses(self) -> tuple[int, int]:
        """Of libopus's function, and of the encoder that it is called with: valid while this object lives."""
        encode, encoder = (int(_ffi.cast("uintptr_t", pointer)) for pointer in (self._encode, self._encoder))
        return encode, encoder


class AvEncoder:
    """libopus through FFmpeg. Raises EncoderError."""

    def __init__(self, sample_format: SampleFormat, rate: int, settings: OpusSettings) -> None:
        self._format, self._layout = sample_format, "mono" if settings.channels == 1 else "stereo"
        self._rate, self._samples, self._position = rate, round(rate * FRAME_SECONDS), 0
        self._size = self._samples * settings.channels * SAMPLE_BYTES[sample_format]
        with _as_encoder_error():
            encoder = av.CodecContext.create("libopus", "w")
            assert isinstance(encoder, AudioCodecContext)
            encoder.format, encoder.layout = av.AudioFormat(sample_format), self._layout
            encoder.sample_rate, encoder.bit_rate = rate, settings.bitrate
            encoder.time_base = Fraction(1, rate)
            encoder.options = {
                "application": settings.application,
                "compression_level": str(settings.complexity),
                "frame_duration": "20",
                "vbr": "off",
            }
            encoder.open()
            self._codec = encoder
        if encoder.options:  # PyAV leaves those here that the encoder does not know, and says nothing
            raise EncoderError(f"FFmpeg's libopus does not know {', '.join(encoder.options)}")

    def encode(self, samples: bytes) -> list[bytes]:
        packets: list[bytes] = []
        with _as_encoder_error():
            for start in range(0, len(samples) - self._size + 1, self._size):
                frame = AudioFrame(format=self._format, layout=self._layout, samples=self._samples)
                frame.planes[0].update(samples[start : start + self._size])
                frame.sample_rate, frame.pts = self._rate, self._position
                self._position += self._samples
                (packet,) = self._codec.encode(frame)
                packets.append(bytes(packet))
        return packets


@contextlib.contextmanager
def _as_encoder_error() -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        raise EncoderError(str(error)) from None


def make_encoder(sample_format: SampleFormat, rate: int, settings: OpusSettings) -> OpusEncoder:
    """The best available encoder for 20 ms frames at one of Opus's own rates. Raises EncoderError."""
    if _library() is None:
        return AvEncoder(sample_format, rate, settings)
    return NativeEncoder(sample_format, rate, settings)
