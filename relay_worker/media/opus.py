"""Camera audio into Opus for WebRTC: AAC or G.711 in, 20 ms Opus packets with continuous media times out.

Opus takes 8, 12, 16, 24 and 48 kHz input itself and its RTP clock is always 48 kHz (RFC 7587 §4.1), so a mono camera at
such a rate needs no resampler: measured, half of the whole cost. Everything else goes through FFmpeg's resampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.resampler import AudioResampler

from relay_worker import native
from relay_worker.media.aac_decoder import aac_decoder, direct_decoder
from relay_worker.media.coded import coded
from relay_worker.media.opus_encoder import (
    FRAME_SECONDS,
    SAMPLE_BYTES,
    EncoderError,
    NativeEncoder,
    OpusSettings,
    SampleFormat,
    make_encoder,
)
from relay_worker.media.sound_clock import QUIET, SoundClock, peak
from relay_worker.media.stream import AUDIO_CLOCK_RATE
from relay_worker.native.states import SoundEncoderState, TranscoderState

__all__ = ["FRAME_SECONDS", "Codec", "OpusSettings", "OpusStats", "OpusTranscoder"]

FRAME_TICKS: Final = round(FRAME_SECONDS * AUDIO_CLOCK_RATE)
OPUS_RATES: Final = frozenset({8000, 12000, 16000, 24000, 48000})

TOLERANCE: Final = 0.040
"""Pauses shorter than this many seconds are not filled."""
PAUSE: Final = 0.150
"""A timestamp this many seconds after the end of the previous unit means a pause, even without loss."""
MAX_FILL: Final = 0.500
"""Longer gaps (seconds) are not filled with silence: time jumps there instead."""

_UNDECODABLE: Final = (av.error.FFmpegError, ValueError, MemoryError)
"""What a decoder raises for a unit that is none."""

Codec = Literal["aac", "pcmu", "pcma"]
_G711_DECODERS: Final = {"pcmu": "pcm_mulaw", "pcma": "pcm_alaw"}
_G711_RATE: Final = 8000

# Decoded formats whose mono samples libopus takes as they are: planar and packed are the same with one channel.
_DIRECT: Final[dict[str, SampleFormat]] = {"fltp": "flt", "flt": "flt", "s16": "s16", "s16p": "s16"}


@dataclass
class OpusStats:
    """Totals."""

    faults: int = 0
    """Access units that could not be decoded, or encoder failures."""
    filled: float = 0.0
    """Seconds of silence inserted into gaps."""
    overlapped: float = 0.0
    """Seconds of sound dropped because it overlapped."""
    jumps: int = 0
    """Gaps too long to fill."""


class OpusTranscoder(TranscoderState):
    """One camera's audio. `config` is the AudioSpecificConfig (AAC); `rate` and `channels` are those of G.711.

    `transcode` never raises for bad input: it is counted in `stats.faults`, and what is missing becomes silence.
    """

    def __init__(
        self,
        codec: Codec,
        config: bytes = b"",
        *,
        rate: int = _G711_RATE,
        channels: int = 1,
        settings: OpusSettings | None = None,
    ) -> None:
        self._codec, self._config = codec, config
        self._g711 = (rate, channels)
        self._settings = settings or OpusSettings()
        self.stats = OpusStats()
        self._decoder: AudioCodecContext | None = None
        self._chain: _Encoder | None = None
        self._source = (0, 0)  # sample rate and planes of the chain
        self._expected = float("inf")  # media time of the next unit, by the timestamps before it
        self._latest = float("-inf")
        self._hole = False  # sound is missing because it could not be decoded
        self.clock = SoundClock()

    def transcode(
        self, data: bytes, media_time: float | None, now: float, *, lost: bool = False
    ) -> list[tuple[bytes, float]]:
        """Take one access unit, received at `now`; return Opus packets with their media times (seconds).

        `media_time` is where its timestamp places it, None when that says nothing; `lost` that sound is missing before
        it. Units follow each other by their length. Times rise by exactly 20 ms except over a pause too long to fill.
        """
        pause = lost or self._hole
        if media_time is not None:
            pause = pause or media_time - self._expected >= PAUSE
            if media_time < self._latest and self._chain is not None:
                self.stats.overlapped += self._chain.cut_back_to(media_time)
            self._latest = media_time
        try:
            if self._decoder is None:
                self._decoder = self._open_decoder()
            # An empty packet would end the decoder permanently.
            frames = self._decoder.decode(coded(data)) if data else []
        except _UNDECODABLE:
            self.note_undecodable()
            return []
        return self.encode(frames, media_time, now, pause)

    def encode(
        self, frames: Sequence[AudioFrame], media_time: float | None, now: float, pause: bool
    ) -> list[tuple[bytes, float]]:
        """The rest of `transcode`, of what an access unit was decoded to."""
        self._hole = self._hole and not frames
        packets: list[tuple[bytes, float]] = []
        for frame in frames:
            try:
                packets += self._encode(frame, media_time, now, pause)
            except (av.error.FFmpegError, EncoderError, ValueError):
                self.note_unencodable()
            length = frame.samples / frame.sample_rate
            self._expected = (self._expected if media_time is None else media_time) + length
            media_time, pause = None, False
        return packets

    def note_undecodable(self) -> None:
        """A unit could not be decoded: what it held is missing."""
        self.stats.faults += 1
        self._hole = True

    def note_unencodable(self) -> None:
        """The encoder has failed: another is made for what follows."""
        self.stats.faults += 1
        self._chain = None

    def wake_parts(self) -> tuple[native.TranscodingParts | None, list[native.StillSo]]:
        """What compiled code needs to do as `transcode` does, None while it cannot, and what must stay as it is."""
        chain = self._chain
        guards: list[native.StillSo] = [(self, "_chain", chain)]
        if chain is None or self._decoder is None or (encoder := chain.wake_parts()) is None:
            return None, guards
        return native.TranscodingParts(
            self,
            clock=self.clock,
            packet=av.Packet,
            decode=self._decoder.decode,
            refusals=_UNDECODABLE,
            decoder=direct_decoder(self._decoder),
            **encoder,
        ), guards

    def _open_decoder(self) -> AudioCodecContext:
        if self._codec == "aac":
            return aac_decoder(self._config)
        decoder = av.CodecContext.create(_G711_DECODERS[self._codec], "r")
        assert isinstance(decoder, AudioCodecContext)
        rate, channels = self._g711
        decoder.sample_rate = rate
        decoder.layout = "mono" if channels == 1 else "stereo"
        return decoder

    def _encode(
        self, frame: AudioFrame, media_time: float | None, now: float, pause: bool
    ) -> list[tuple[bytes, float]]:
        planes = frame.planes
        # The decoder's format never changes; asking for names makes objects.
        source = (frame.sample_rate, len(planes))
        if self._chain is None or source != self._source:
            position = self._chain.position if self._chain is not None else None
            self._source = source
            self._chain = _Encoder(
                frame.format.name, frame.layout.name, frame.sample_rate, settings=self._settings, stats=self.stats
            )
            self._chain.clock, self._chain.position = self.clock, position
        return self._chain.encode(frame, planes[0], media_time, now, pause)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        stats = self.stats
        return {
            "faults": stats.faults,
            "jumps": stats.jumps,
            "filled_ms": round(stats.filled * 1e3),
            "overlapped_ms": round(stats.overlapped * 1e3),
        }


class _Encoder(SoundEncoderState):
    """Samples of one format into Opus packets, keeping their time.

    `position` is the media time of the first sample in `_pending`, in ticks: sums of seconds would run off the tick.
    """

    def __init__(self, sample_format: str, layout: str, rate: int, *, settings: OpusSettings, stats: OpusStats) -> None:
        direct = _DIRECT.get(sample_format)
        self._resampler: AudioResampler | None = None
        target = "mono" if settings.channels == 1 else "stereo"
        if direct is None or rate not in OPUS_RATES or not layout == target == "mono":
            direct, rate = "flt", 48000
            self._resampler = AudioResampler(format="flt", layout=target, rate=rate)
        self._rate, self._stats = rate, stats
        self._stride = SAMPLE_BYTES[direct] * settings.channels
        self._frame_bytes = round(rate * FRAME_SECONDS) * self._stride
        self._pending = bytearray()
        self._format = direct
        self._cut = 0  # bytes that are to be left out
        self.clock = SoundClock()
        self.position: int | None = None
        self._codec = make_encoder(direct, rate, settings)

    def wake_parts(self) -> dict[str, Any] | None:
        """Its fields of `native.TranscodingParts`; None where samples are converted, or libopus is not at hand."""
        if self._resampler is not None or not isinstance(self._codec, NativeEncoder):
            return None
        encode, context = self._codec.addresses
        return {
            "chain": self,
            "encoder": self._codec,
            "encode": encode,
            "context": context,
            "rate": self._rate,
            "stride": self._stride,
            "frame_bytes": self._frame_bytes,
        }

    def encode(
        self, frame: AudioFrame, plane: AudioPlane, media_time: float | None, now: float, pause: bool
    ) -> list[tuple[bytes, float]]:
        """Packets that `frame`, whose first plane is `plane`, completes. See `OpusTranscoder.transcode`.

        The encoder's look-ahead (2.5 ms for lowdelay) is left uncorrected.
        """
        if self._resampler is None:
            samples = bytearray(memoryview(plane)[: frame.samples * self._stride])
        else:
            samples = bytearray()
            for part in self._resampler.resample(frame):
                samples += memoryview(part.planes[0])[: part.samples * self._stride]
        if media_time is not None:
            self._place(samples, media_time, now, pause)
        at = self.position
        if at is None:
            return []  # its time is unknown
        if self._cut:
            cut = min(self._cut, len(samples))
            self._cut -= cut
            del samples[:cut]
        self._pending += samples
        whole = len(self._pending) // self._frame_bytes * self._frame_bytes
        packets = self._codec.encode(bytes(self._pending[:whole]))
        del self._pending[:whole]
        self.position = at + FRAME_TICKS * len(packets)
        return [(packet, (at + FRAME_TICKS * number) / AUDIO_CLOCK_RATE) for number, packet in enumerate(packets)]

    def _place(self, samples: bytearray, media_time: float, now: float, pause: bool) -> None:
        """Put silence before `samples`, or take from them, where they do not follow on what is pending."""
        if self.position is None:
            self.position = round(media_time * AUDIO_CLOCK_RATE)
        bytes_per_second = self._stride * self._rate
        gap = media_time - (self.position / AUDIO_CLOCK_RATE + len(self._pending) / bytes_per_second)
        if pause and gap > TOLERANCE:
            if gap > MAX_FILL:
                self._stats.jumps += 1
                self._pending.clear()
                self.position = round(media_time * AUDIO_CLOCK_RATE)
                return
            self._stats.filled += gap
            self._pending += bytes(round(gap * self._rate) * self._stride)
            return
        if self._cut:
            return
        frames = self.clock.correction(gap, FRAME_SECONDS, now, lambda: peak(samples, self._format) < QUIET)
        if frames > 0:
            self._pending += bytes(frames * self._frame_bytes)
        elif frames < 0:
            self._cut = -frames * self._frame_bytes

    def cut_back_to(self, media_time: float) -> float:
        """Sound from this time on comes again: leave so much of it out. Seconds that will be."""
        assert self.position is not None
        ahead = self.position / AUDIO_CLOCK_RATE + len(self._pending) / (self._stride * self._rate) - media_time
        self._cut = max(0, round(ahead * self._rate)) * self._stride
        return max(0.0, ahead)
