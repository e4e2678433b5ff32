"""Decides when sound is moved to where its timestamps place it: rarely, by one whole frame, and in silence.

RTP time of sound advances by what is sent (RFC 7587 §4.1): a receiver conceals at every other step. Clocks differ, so
sound that merely follows on drifts away from its timestamps; this decides when that is corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import av
from av.audio.codeccontext import AudioCodecContext
from typing_extensions import Buffer

from relay_worker.media.coded import coded
from relay_worker.native.states import SoundClockState
from relay_worker.rtp.opus import packet_ticks

INTERVAL: Final = 30.0
"""Shortest interval in seconds between corrections."""
WAIT: Final = 10.0
"""Longest time in seconds that a correction waits for silence."""
TOLERANCE: Final = (0.020, 0.035)
"""Bounds of the error in seconds from which on it is corrected; between them it is 3/4 of a frame."""
LIMIT: Final = 0.040
"""An error of so many seconds is no drift: sound is moved at once, by as many frames as it takes."""
BUDGET: Final = (0.6, 0.01)
"""Seconds that it may be moved at once, and per second: timestamps that make no sense must not cut it to pieces."""
AVERAGE: Final = 0.5
"""Seconds over which the error is averaged: individual timestamps are uneven."""

QUIET: Final = 0.01
"""Peak of full scale below which a packet counts as silence (-40 dB)."""
_SMALL: Final = 3
_WARM: Final = 5  # packets after which a decoder that was begun in the middle tells the level


class SoundClock(SoundClockState):
    """Decides on corrections. `inserted` and `removed` count frames, `moved` how often the error was beyond `LIMIT`."""

    def __init__(self) -> None:
        self.inserted = self.removed = self.moved = 0
        self._error = 0.0
        self._budget, self._now = BUDGET[0], float("-inf")
        self._corrected = float("-inf")
        self.due_since: float | None = None
        """Since when a correction is due and waits for silence."""

    def correction(self, error: float, frame: float, now: float, is_quiet: Callable[[], bool]) -> int:
        """Frames to insert (negative: to leave out) before what comes now.

        `error` is by how many seconds the timestamps place it later than where the sound so far ends, `frame` the
        seconds that a frame lasts. `is_quiet` is asked only while a correction is due.
        """
        elapsed, self._now = now - self._now, now
        self._error += (error - self._error) * min(1.0, max(elapsed, 0.001) / AVERAGE)
        self._budget = min(BUDGET[0], self._budget + elapsed * BUDGET[1])
        lowest, highest = TOLERANCE
        frames = 0
        if abs(self._error) >= LIMIT:
            frames = self._move(frame)
        elif abs(self._error) < min(max(lowest, 0.75 * frame), highest):
            self.due_since = None
        elif now - self._corrected >= INTERVAL:
            if self.due_since is None:
                self.due_since = now
            if is_quiet() or now - self.due_since >= WAIT:
                self._corrected, self.due_since = now, None
                frames = 1 if self._error > 0 else -1
                self.inserted += frames > 0
                self.removed += frames < 0
        self._error -= frames * frame
        return frames

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"inserted": self.inserted, "removed": self.removed, "moved": self.moved}

    def _move(self, frame: float) -> int:
        affordable = int(self._budget / frame)
        frames = max(-affordable, min(affordable, round(self._error / frame)))
        if frames:
            self._budget -= abs(frames) * frame
            self.moved += 1
            self.due_since = None
        return frames


class OpusLevel:
    """Tells whether Opus packets are silent. Decodes, so ask only while it matters, and for packets in a row."""

    def __init__(self) -> None:
        self._decoder: AudioCodecContext | None = None
        self._heard = 0

    def forget(self) -> None:
        """The next packet does not follow the one examined before."""
        self._decoder, self._heard = None, 0

    def is_quiet(self, packet: bytes) -> bool:
        """Whether this packet is silence; False until enough of those before it were heard."""
        if len(packet) <= _SMALL * max(1, packet_ticks(packet) // 960):
            return True  # what encoders send in discontinuous transmission, or for digital silence
        try:
            if self._decoder is None:
                decoder = av.CodecContext.create("libopus", "r")
                assert isinstance(decoder, AudioCodecContext)
                decoder.sample_rate, decoder.layout = 48000, "mono"
                self._decoder = decoder
            frames = self._decoder.decode(coded(packet))
        except (av.error.FFmpegError, ValueError):
            self.forget()
            return False
        self._heard += 1
        loudest = max((_peak(frame) for frame in frames), default=1.0)
        return self._heard > _WARM and loudest < QUIET


def _peak(frame: av.AudioFrame) -> float:
    return peak(frame.planes[0], frame.format.name)


def peak(samples: Buffer, sample_format: str) -> float:
    """The largest sample, as a share of full scale; `sample_format` is flt or s16 (FFmpeg's names, planar ones too)."""
    view = memoryview(samples)
    if sample_format.startswith("s16"):
        return max(map(abs, view.cast("h")), default=0) / 32768
    return max(map(abs, view.cast("f")), default=0.0)
