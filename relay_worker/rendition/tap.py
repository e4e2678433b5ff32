"""Coded pictures for the rendition, collected from the frames that pass on their way to the outputs."""

from __future__ import annotations

from typing import Final, NamedTuple

from relay_worker.media.keyframe_starts import KeyframeStarts
from relay_worker.media.stream import Frame

MAX_PICTURE: Final = 2 * 1024 * 1024
"""Bytes of the largest coded picture that is collected; a larger one is left out and counted."""


class CodedPicture(NamedTuple):
    """One whole picture as the camera coded it."""

    payloads: list[tuple[bytes, bool]]
    """Its RTP payloads, parameter sets among them where it is a keyframe."""
    media_time: float
    keyframe: bool
    size: int
    """Payload bytes in all."""


class PictureTap:
    """Pass it every video frame: returns a picture once its last payload has come.

    Of pictures that are not wanted nothing is copied. One that lost packets never ends, and is forgotten with the next.
    """

    def __init__(self) -> None:
        # Of a keyframe with several slices that it joins in the middle of, what it takes for the whole is not decoded.
        self._starts = KeyframeStarts(from_start=True)
        self._payloads: list[tuple[bytes, bool]] | None = None
        self._media_time = -1.0
        self._keyframe = False
        self._size = 0
        self.oversized_pictures = 0

    def take(self, frame: Frame, *, every: bool) -> CodedPicture | None:
        """Take a part of the stream; `every`: not keyframes alone."""
        begins = self._starts.begins(frame)
        if begins or frame.media_time != self._media_time:
            self._media_time, self._keyframe, self._size = frame.media_time, begins, 0
            self._payloads = [] if begins or every else None
        payloads = self._payloads
        if payloads is None or not frame.payloads:
            return None
        # A view may point into a buffer that its owner reuses; bytes() of bytes makes no copy.
        payloads += [(bytes(payload), marker) for payload, marker in frame.payloads]
        self._size += sum(len(payload) for payload, _ in frame.payloads)
        if self._size > MAX_PICTURE:
            self.oversized_pictures += 1
            self._payloads = None
            return None
        if not payloads[-1][1]:
            return None
        self._payloads = None
        return CodedPicture(payloads, frame.media_time, self._keyframe, self._size)
