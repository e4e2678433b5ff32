"""What a browser's `getStats()` would report for the H.264 forwarded to one viewer.

A model of how libwebrtc assembles and decodes: packets are taken in order of sequence number, only the marker bit ends
a picture, a keyframe needs its parameter sets, and after a gap or a malformed fragment nothing is decoded until the
next keyframe. Slice data is not examined.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_PATIENCE: Final = 256
"""Packets that may wait for a missing one before it is given up."""
_SLICE, _IDR, _SPS, _PPS, _STAP_A, _FU_A = 1, 5, 7, 8, 24, 28
_BROKEN: Final = -1


class ViewerStats:
    """One viewer's video. Sequence numbers are extended; counters are named as in `getStats()`, in snake case."""

    def __init__(self) -> None:
        self.frames_received = self.frames_decoded = self.keyframes_decoded = 0
        self._waiting: dict[int, tuple[bool, tuple[int, ...]]] = {}
        self._next: int | None = None
        self._kinds: set[int] = set()
        self._sets: set[int] = set()
        self._whole = False
        """Whether everything since the last decoded keyframe was decoded."""

    def receive(self, sequence: int, marker: bool, payload: bytes | memoryview) -> None:
        """Process a packet as it was forwarded or retransmitted."""
        if self._next is None:
            self._next = sequence
        if sequence < self._next or len(payload) == 0:
            if sequence == self._next:
                self._next += 1
            return
        self._waiting[sequence] = (marker, tuple(_kinds(payload)))
        if len(self._waiting) > _PATIENCE:
            self._next = min(self._waiting)
            self._kinds = {_BROKEN}
        while (packet := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self._take(*packet)

    def _take(self, marker: bool, kinds: tuple[int, ...]) -> None:
        self._kinds.update(kinds)
        if marker:
            self._end()

    def _end(self) -> None:
        kinds, self._kinds = self._kinds, set()
        self._sets |= kinds & {_SPS, _PPS}
        if not kinds & {_SLICE, _IDR, _BROKEN}:
            return
        self.frames_received += 1
        if _BROKEN in kinds:
            self._whole = False
        elif _IDR in kinds:
            self._whole = self._sets >= {_SPS, _PPS}
            self.keyframes_decoded += self._whole
            self.frames_decoded += self._whole
        else:
            self.frames_decoded += self._whole

    def snapshot(self) -> dict[str, Any]:
        """The counters under their `getStats()` names."""
        return {
            "framesReceived": self.frames_received,
            "framesDecoded": self.frames_decoded,
            "keyFramesDecoded": self.keyframes_decoded,
        }


def _kinds(payload: bytes | memoryview) -> Iterator[int]:
    """Types of the NAL units that begin in an RTP payload (RFC 6184); `_BROKEN` for payloads browsers reject."""
    kind = payload[0] & 31
    if kind == _FU_A:
        if len(payload) <= 2:
            yield _BROKEN
        elif payload[1] & 0x80:
            yield payload[1] & 31
    elif kind == _STAP_A:
        position = 1
        while position + 2 < len(payload):
            yield payload[position + 2] & 31
            position += 2 + (payload[position] << 8 | payload[position + 1])
    else:
        yield kind if 0 < kind < _STAP_A else _BROKEN
