"""Which part of a picture begins a keyframe, of video that comes in parts: whoever joins begins there."""

from __future__ import annotations

from typing import Final

from relay_worker.media.stream import Frame
from relay_worker.rtp.h264 import NAL_SPS, STAP_A
from relay_worker.rtp.h264_packetize import kinds_in, starts_keyframe

_SLICES: Final = frozenset((1, 2, 3, 4, 5, 28))
"""NAL units that are slices, and fragments, which here are always of slices (RFC 6184 §5.4)."""


class KeyframeStarts:
    """Follows one video stream. `from_start` says that no video came before, so that the first picture is whole;
    without it that begins with a sequence parameter set, or not at all: a slice may be a later one.

    A later slice of a keyframe looks like its first one, and what precedes that may have come by itself: an access unit
    delimiter, SEI, parameter sets.
    """

    def __init__(self, *, from_start: bool = False) -> None:
        self._from_start = from_start
        self._picture: float | None = None  # media time of the picture under way
        self._over = True  # whether this picture can no longer begin: a slice of it, or a keyframe's start, has come
        self._joined = False  # whether what came of this picture before is not known

    def begins(self, frame: Frame) -> bool:
        """Whether a keyframe begins with `frame`, the next part of the stream; once for each."""
        if frame.media_time != self._picture:
            self._over, self._joined = False, self._picture is None and not self._from_start
            self._picture = frame.media_time
        if self._over:
            return False
        for payload, _ in frame.payloads:
            if starts_keyframe(payload) and (not self._joined or NAL_SPS in kinds_in(payload)):
                self._over = True
                return True
            kind = payload[0] & 0x1F if payload else 0
            if kind in _SLICES or (kind == STAP_A and not _SLICES.isdisjoint(kinds_in(payload))):
                self._over = True
                break  # a keyframe would have begun before it
        return False
