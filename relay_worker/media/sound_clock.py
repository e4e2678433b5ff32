"""When sound is moved to where its timestamps say that it belongs: seldom, by one whole frame, and in silence.

RTP time of sound advances by what is sent (RFC 7587 §4.1): a receiver conceals at every other step. Clocks differ, so
that sound which merely follows on runs away from its timestamps; this decides when that is corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import av
from av.audio.codeccontext import AudioCodecContext

from relay_worker.rtp.opus import packet_ticks

INTERVAL: Final = 30.0
"""Least seconds between two corrections."""
WAIT: Final = 10.0
"""Longest that a correction waits for silence."""
TOLERANCE: Final = (0.020, 0.040)
"""Bounds of the error in seconds from which on it is corrected; between them it is 3/4 of a frame."""
LIMIT: Final = 0.080
"""An error of so many seconds is no drift: sound is moved at once, by as many frames as it takes."""

QUIET: Final = 0.01
"""Peak of full scale below which a packet counts as silence (-40 dB)."""
_SMALL: Final = 3
_WARM: Final = 5  # packets after which a decoder that was begun in the middle tells the level


class SoundClock:
    """Decides on corrections. `inserted` and `removed` count frames, `moved` errors beyond `LIMIT`."""

    def __init__(self) -> None:
        self.inserted = self.removed = self.moved = 0
        self._corrected = float("-inf")
        self._since: float | None = None

    def correction(self, error: float, frame: float, now: float, is_quiet: Callable[[], bool]) -> int:
        """Frames to insert (negative: to leave out) before what comes now.

        `error` is by how many seconds the timestamps place it later than where the sound so far ends, `frame` the
        seconds that a frame lasts. `is_quiet` is asked only while a correction is due.
        """
        if abs(error) >= LIMIT:
            self._since = None
            self.moved += 1
            return round(error / frame)
        lowest, highest = TOLERANCE
        if abs(error) < min(max(lowest, 0.75 * frame), highest):
            self._since = None
            return 0
        if now - self._corrected < INTERVAL:
            return 0
        if self._since is None:
            self._since = now
        if not is_quiet() and now - self._since < WAIT:
            return 0
        self._corrected, self._since = now, None
        if error > 0:
            self.inserted += 1
            return 1
        self.removed += 1
        return -1


class OpusLevel:
    """Tells whether Opus packets are silent. Decodes, so ask only while it matters, and for packets in a row."""

    def __init__(self) -> None:
        self._decoder: AudioCodecContext | None = None
        self._heard = 0

    def forget(self) -> None:
        """What comes next does not follow on what was asked about before."""
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
            frames = self._decoder.decode(av.Packet(packet))
        except (av.error.FFmpegError, ValueError):
            self.forget()
            return False
        self._heard += 1
        peak = max((_peak(frame) for frame in frames), default=1.0)
        return self._heard > _WARM and peak < QUIET


def _peak(frame: av.AudioFrame) -> float:
    samples = memoryview(frame.planes[0])
    if frame.format.name.startswith("s16"):
        return max(map(abs, samples.cast("h")), default=0) / 32768
    return max(map(abs, samples.cast("f")), default=0.0)
