"""Generated camera media: H.264, AAC and Opus clips, encoded once and looping seamlessly.

A clip's pictures show the camera's name and a clock (see `picture`); its sound is a tone, or one beep a second together
with a flash for lip-sync measurements. Encoded clips are cached for the life of the process, since tests and demos
reuse them.
"""

from __future__ import annotations

import array
import functools
import itertools
import math
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal

import av
from av.codec.context import Flags

from relay_common.simulation.camera import picture

AAC_FRAME: Final = 1024
"""Samples in an AAC-LC access unit (ISO/IEC 14496-3)."""
OPUS_RATE: Final = 48_000
OPUS_FRAME: Final = 960
"""Samples in an Opus packet of 20 ms (RFC 7587: the clock is 48 kHz, whatever was encoded)."""

_BITRATES: Final = {360: 800_000, 720: 2_200_000, 1080: 4_000_000}
_FLASH_SECONDS: Final = 0.1
LEAST_SIDE: Final = 64
"""Pixels of a picture's width or height at least."""
_CACHED_CLIPS: Final = 256


@dataclass(frozen=True)
class VideoSpec:
    """A camera's video; equal specs give equal clips.

    `bitrate` in bit/s (0: by height); `gop` and `seconds` (the loop) in seconds, `seconds` a multiple of `gop`; `phase`
    is the burnt-in clock's value on the first picture; `profile` as libx264 names it ("baseline": no B-frames); `first`
    rotates the loop, so that encoding begins (with an IDR) at that picture and ends with the one before it.
    """

    name: str = "Camera"
    width: int = 640
    height: int = 360
    fps: int = 30
    bitrate: int = 0
    gop: float = 2.0
    seconds: float = 10.0
    phase: float = 0.0
    hue: int = 0
    profile: Literal["baseline", "main", "high"] = "main"
    b_frames: int = 0
    slices: int = 1
    delimiters: bool = False
    pattern: Literal["moving", "flash"] = "moving"
    first: int = 0

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < LEAST_SIDE:
            raise ValueError(
                f"picture size {self.width}x{self.height} must be even and at least {LEAST_SIDE}x{LEAST_SIDE}"
            )
        if self.frames < 1 or self.frames % self.gop_frames:
            raise ValueError(f"a loop of {self.seconds} s does not hold whole GOPs of {self.gop} s at {self.fps} fps")

    @property
    def frames(self) -> int:
        """Pictures in the loop."""
        return round(self.seconds * self.fps)

    @property
    def gop_frames(self) -> int:
        """Pictures from one IDR to the next."""
        return max(1, round(self.gop * self.fps))

    @property
    def target_bitrate(self) -> int:
        """`bitrate`, or the usual one for this height, in bit/s."""
        if self.bitrate:
            return self.bitrate
        return next((rate for height, rate in _BITRATES.items() if self.height <= height), 6_000_000)


@dataclass(frozen=True)
class AudioSpec:
    """A camera's audio: `rate` in Hz (8000 to 48000), one or two channels, `bitrate` in bit/s, `pitch` in Hz.

    `codec` is the RTSP camera's codec; WebRTC cameras always send Opus. A tone's pitch is rounded to a whole number of
    periods per AAC frame, so that any whole number of frames loops.
    """

    rate: int = 16_000
    channels: Literal[1, 2] = 1
    bitrate: int = 32_000
    pitch: float = 440.0
    pattern: Literal["tone", "beep"] = "tone"
    codec: Literal["aac", "opus"] = "aac"

    @property
    def frames(self) -> int:
        """AAC frames in the loop: whole seconds for beeps, 64 frames for a tone."""
        return self.rate // math.gcd(self.rate, AAC_FRAME) * (2 if self.rate > 16_000 else 1) if self.beeps else 64

    @property
    def beeps(self) -> bool:
        """Whether the sound is one beep a second in silence."""
        return self.pattern == "beep"


@dataclass(frozen=True)
class EncodedUnit:
    """One access unit: times in ticks of the clip's time base, `data` as encoded (Annex B, or raw AAC)."""

    pts: int
    dts: int
    keyframe: bool
    data: bytes


@dataclass(frozen=True)
class Clip:
    """One track's loop: units in decoding order, `ticks` long at `clock_rate` ticks per second.

    `config` is the AudioSpecConfig for AAC, and empty for H.264, whose parameter sets are in band, and for Opus.
    """

    codec: Literal["h264", "aac", "opus"]
    clock_rate: int
    ticks: int
    units: tuple[EncodedUnit, ...]
    config: bytes = b""


_video_clips: dict[VideoSpec, Clip] = {}


class Abandoned(Exception):
    """Encoding was cancelled by its caller."""


def video_clip(spec: VideoSpec, cancelled: threading.Event | None = None) -> Clip:
    """Encode the loop that `spec` describes (about half a second of one core for ten seconds of 640x360).

    Raises Abandoned soon after `cancelled` is set.
    """
    clip = _video_clips.get(spec)
    if clip is None:
        clip = _encode_video(spec, cancelled)
        if len(_video_clips) >= _CACHED_CLIPS:
            _video_clips.pop(next(iter(_video_clips)), None)
        _video_clips[spec] = clip
    return clip


def _encode_video(spec: VideoSpec, cancelled: threading.Event | None) -> Clip:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = spec.width, spec.height, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(spec.fps), Fraction(1, spec.fps)
    encoder.bit_rate = spec.target_bitrate
    encoder.gop_size = spec.gop_frames
    encoder.max_b_frames = spec.b_frames
    encoder.thread_count = 1
    encoder.options = {"preset": "ultrafast", "profile": spec.profile, "x264-params": _x264_params(spec)}
    units: list[EncodedUnit] = []
    for frame in _pictures(spec):
        if cancelled and cancelled.is_set():
            raise Abandoned
        units += map(_unit, encoder.encode(frame))
    units += map(_unit, encoder.encode(None))
    return Clip("h264", spec.fps, spec.frames, tuple(units))


@functools.lru_cache(maxsize=_CACHED_CLIPS)
def audio_clip(spec: AudioSpec) -> Clip:
    """Encode the loop that `spec` describes.

    The loop is encoded twice and the second pass kept, so that the overlapping transform joins end to start.
    """
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout = spec.rate, "mono" if spec.channels == 1 else "stereo"
    encoder.format, encoder.bit_rate, encoder.time_base = av.AudioFormat("fltp"), spec.bitrate, Fraction(1, spec.rate)
    encoder.flags |= Flags.global_header
    samples = _tone(spec, AAC_FRAME, spec.frames * AAC_FRAME // spec.rate)
    ticks = spec.frames * AAC_FRAME
    units: list[EncodedUnit] = []
    for index in range(2 * spec.frames + 2):
        units += map(_unit, encoder.encode(_sound(spec, samples, index, AAC_FRAME)))
    kept = [replace(u, pts=u.pts - ticks, dts=u.dts - ticks) for u in units if ticks <= u.pts < 2 * ticks]
    return Clip("aac", spec.rate, ticks, tuple(kept), bytes(encoder.extradata or b""))


@functools.lru_cache(maxsize=_CACHED_CLIPS)
def opus_clip(spec: AudioSpec) -> Clip:
    """One second of what `spec` describes as Opus at 48 kHz, in 20 ms packets; the second of two passes, as for AAC."""
    spec = replace(spec, rate=OPUS_RATE)
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout = spec.rate, "mono" if spec.channels == 1 else "stereo"
    encoder.format, encoder.bit_rate, encoder.time_base = av.AudioFormat("flt"), spec.bitrate, Fraction(1, spec.rate)
    samples = _tone(spec, OPUS_FRAME, 1)
    data = [
        bytes(packet)
        for index in range(2 * OPUS_RATE // OPUS_FRAME + 2)
        for packet in encoder.encode(_sound(spec, samples, index, OPUS_FRAME))
    ]
    frames = OPUS_RATE // OPUS_FRAME
    units = (EncodedUnit(n * OPUS_FRAME, n * OPUS_FRAME, True, data[frames + n]) for n in range(frames))
    return Clip("opus", OPUS_RATE, OPUS_RATE, tuple(units))


def prepare(
    videos: Iterable[VideoSpec],
    audios: Iterable[AudioSpec],
    cancelled: threading.Event | None = None,
    *,
    opus: Iterable[AudioSpec] = (),
) -> None:
    """Encode clips into the cache, in parallel on all cores (the encoder releases the interpreter's lock).

    `audios` become AAC, `opus` becomes Opus. Raises Abandoned soon after `cancelled` is set.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encode") as pool:
        jobs: list[Future[Clip]] = [pool.submit(video_clip, spec, cancelled) for spec in set(videos)]
        jobs += [pool.submit(audio_clip, spec) for spec in set(audios)]
        jobs += [pool.submit(opus_clip, spec) for spec in set(opus)]
        for job in jobs:
            job.result()


def _x264_params(spec: VideoSpec) -> str:
    kilobits = spec.target_bitrate // 1000
    parameters = {
        "keyint": spec.gop_frames,
        "min-keyint": spec.gop_frames,
        "scenecut": 0,
        "rc-lookahead": 0,
        "bframes": spec.b_frames,
        "cabac": int(spec.profile != "baseline"),
        # Makes x264 write High into the SPS.
        "8x8dct": int(spec.profile == "high"),
        "slices": spec.slices,
        "aud": int(spec.delimiters),
        "vbv-maxrate": kilobits * 3 // 2,
        "vbv-bufsize": kilobits,
        "threads": 1,
    }
    return ":".join(f"{key}={value}" for key, value in parameters.items())


def _pictures(spec: VideoSpec) -> Iterator[av.VideoFrame]:
    """The loop's pictures, beginning with number `spec.first`, timed from 0."""
    turned = itertools.chain(itertools.islice(_loop(spec), spec.first, None), itertools.islice(_loop(spec), spec.first))
    for number, frame in enumerate(turned):
        frame.pts = number
        yield frame


def _loop(spec: VideoSpec) -> Iterator[av.VideoFrame]:
    if spec.pattern == "flash":
        return picture.flashes(spec.width, spec.height, spec.fps, spec.frames, round(_FLASH_SECONDS * spec.fps))
    return picture.moving_pattern(spec.name, spec.width, spec.height, spec.fps, spec.frames, spec.phase, spec.hue)


def _unit(packet: av.Packet[Any]) -> EncodedUnit:
    assert packet.pts is not None
    return EncodedUnit(packet.pts, packet.pts if packet.dts is None else packet.dts, packet.is_keyframe, bytes(packet))


def _tone(spec: AudioSpec, frame: int, seconds: int) -> array.array[float]:
    """One frame's worth of the tone, or `seconds` of beeps, as float samples."""
    step = spec.rate / frame
    omega = 2 * math.pi * max(1, round(spec.pitch / step)) * step / spec.rate
    if not spec.beeps:
        return array.array("f", (0.25 * math.sin(omega * n) for n in range(frame)))
    beep = array.array("f", (0.5 * math.sin(omega * n) for n in range(round(_FLASH_SECONDS * spec.rate))))
    second = beep + array.array("f", bytes(4 * (spec.rate - len(beep))))
    return second * seconds


def _sound(spec: AudioSpec, samples: array.array[float], index: int, size: int) -> av.AudioFrame:
    frame = av.AudioFrame("fltp", "mono" if spec.channels == 1 else "stereo", size)
    frame.sample_rate, frame.pts, frame.time_base = spec.rate, index * size, Fraction(1, spec.rate)
    start = index * size % len(samples)
    data = samples[start : start + size].tobytes()
    for plane in frame.planes:
        plane.update(data)
    return frame
