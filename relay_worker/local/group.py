"""The group of pictures under way, for viewers that join in the middle of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_worker.media.keyframe_starts import KeyframeStarts
from relay_worker.media.stream import Frame, Kind

MAX_BYTES: Final = 2 * 1024 * 1024
"""Most that is held of a camera. A longer group is let go, and who joins meanwhile waits for the next one."""
OF_PAYLOAD: Final = 96
OF_FRAME: Final = 160
"""Bytes of memory that each takes beside its octets: a camera may send many small ones."""
PRESSED: Final = 0.05
"""Seconds of media time that a group takes for who joins. A player shows pictures as far apart as their timestamps are:
with those of the camera it would begin with the past and stay as far behind."""


class HeldGroup:
    """Holds video from the last keyframe on.

    `from_start` says that no video came before, so that the first picture is whole. `bytes` is what it takes of memory,
    `too_long` counts groups that were let go.
    """

    def __init__(self, *, from_start: bool = False) -> None:
        self._frames: list[Frame] = []
        self._starts = KeyframeStarts(from_start=from_start)
        self.bytes = 0
        self.too_long = 0
        self.begins = False
        """Whether the last frame was the first of a group."""

    def add(self, frame: Frame) -> Frame:
        """Take a frame, or the part of it that is there; returns it with payloads that nobody else reuses."""
        payloads, size, borrowed = frame.payloads, OF_FRAME, False
        for payload, _ in payloads:
            size += len(payload) + OF_PAYLOAD
            borrowed |= type(payload) is not bytes
        if borrowed:
            payloads = [(bytes(payload), marker) for payload, marker in payloads]
        kept = Frame(frame.kind, payloads, frame.media_time)
        self.begins = self._starts.begins(kept)
        if self.begins:
            self.clear()
        elif not self._frames:
            return kept
        self._frames.append(kept)
        self.bytes += size
        if self.bytes > MAX_BYTES:
            self.too_long += 1
            self.clear()
        return kept

    def clear(self) -> None:
        """Let it go."""
        self._frames, self.bytes = [], 0

    def pressed(self) -> Sequence[Frame]:
        """The group, with the media times of its pictures moved up to just before that of the newest, which stays."""
        times = list(dict.fromkeys(frame.media_time for frame in self._frames))
        if not times:
            return []
        step, newest = PRESSED / len(times), times[-1]
        moved = {time: max(time, newest - back * step) for back, time in enumerate(reversed(times))}
        return [Frame(Kind.VIDEO, frame.payloads, moved[frame.media_time]) for frame in self._frames]
