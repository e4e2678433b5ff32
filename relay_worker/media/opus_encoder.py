"""An Opus encoder: libopus itself, or FFmpeg's wrapper where its library cannot be found.

PyAV brings libopus along. Asked directly, a packet costs one foreign call; through FFmpeg it costs a frame, a packet,
several fractions and their copies: measured in a worker among others, whose caches are cold at every wake, 107 µs
against 45. The encoder is the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

FRAME_SECONDS: Final = 0.020
MAX_PACKET: Final = 1275
"""Bytes of the largest Opus frame (RFC 6716 §3.2)."""

SampleFormat = Literal["flt", "s16"]
SAMPLE_BYTES: Final[dict[SampleFormat, int]] = {"flt": 4, "s16": 2}

_APPLICATIONS: Final = {"voip": 2048, "audio": 2049, "lowdelay": 2051}  # opus_defines.h
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY = 4002, 4006, 4010

_INT32, _INT, _POINTER = ctypes.c_int32, ctypes.c_int, ctypes.c_void_p
_PROTOTYPES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "opus_encoder_create": (_POINTER, [_INT32, _INT, _INT, _POINTER]),
    "opus_encoder_destroy": (None, [_POINTER]),
    "opus_encoder_ctl": (_INT, [_POINTER, _INT]),  # and what the request takes
    "opus_encode": (_INT32, [_POINTER, _POINTER, _INT, _POINTER, _INT32]),
    "opus_encode_float": (_INT32, [_POINTER, _POINTER, _INT, _POINTER, _INT32]),
}
"""What each function of opus.h gives and takes. By ctypes: cffi would read C with a parser, 0.1 s of a start."""


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
def _library() -> ctypes.CDLL | None:
    """libopus as bundled with PyAV, or the system's; None when there is neither."""
    home = Path(av.__file__).parent
    candidates = [*home.with_name("av.libs").glob("libopus*.so*"), *(home / ".dylibs").glob("libopus*.dylib")]
    for name in [*map(str, candidates), ctypes.util.find_library("opus") if not candidates else None]:
        if name is not None:
            with contextlib.suppress(OSError):
                return _declared(ctypes.CDLL(name))
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class NativeEncoder:
    """libopus through its C interface (opus_encoder, https://opus-codec.org/docs/). Raises EncoderError."""

    def __init__(self, sample_format: SampleFormat, rate: int, settings: OpusSettings) -> None:
        library = _library()
        if library is None:
            raise EncoderError("libopus was not found")
        error = _INT()
        application = _APPLICATIONS[settings.application]
        self._encoder = _POINTER(library.opus_encoder_create(rate, settings.channels, application, ctypes.byref(error)))
        if error.value:
            raise EncoderError(f"libopus refuses {rate} Hz with {settings.channels} channels (error {error.value})")
        weakref.finalize(self, library.opus_encoder_destroy, self._encoder).atexit = False
        for request, value in (
            (_SET_BITRATE, settings.bitrate),
            (_SET_VBR, 0),
            (_SET_COMPLEXITY, settings.complexity),
        ):
            if refused := library.opus_encoder_ctl(self._encoder, request, _INT32(value)):
                raise EncoderError(f"libopus refuses setting {request} = {value} (error {refused})")
        self._encode = library.opus_encode_float if sample_format == "flt" else library.opus_encode
        self._samples = round(rate * FRAME_SECONDS)
        self._size = self._samples * settings.channels * SAMPLE_BYTES[sample_format]
        self._out = ctypes.create_string_buffer(MAX_PACKET)

    def encode(self, samples: bytes) -> list[bytes]:
        packets: list[bytes] = []
        for start in range(0, len(samples) - self._size + 1, self._size):
            frame = samples[start : start + self._size]
            length = self._encode(self._encoder, frame, self._samples, self._out, MAX_PACKET)
            if length < 0:
                raise EncoderError(f"libopus error {length}")
            packets.append(ctypes.string_at(self._out, length))
        return packets

    @property
    def addresses(self) -> tuple[int, int]:
        """Of libopus's function, and of the encoder that it is called with: valid while this object lives."""
        function, encoder = ctypes.cast(self._encode, _POINTER).value, self._encoder.value
        assert function is not None
        assert encoder is not None
        return function, encoder


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
