"""Where access units end, whatever the camera's marker bit says: exactly one marked packet leaves for each.

A picture is over when another begins: with another timestamp, with a slice whose first_mb_in_slice is 0, or with a NAL
unit that may only stand before a picture (H.264 §7.4.1.2.3 and §7.4.1.2.4, RFC 6184 §5.1). The marker bit says so
earlier, and packets are cut through on its word, where the camera is known to set it right:

- A marked packet before the first slice shows that it marks NAL units. Its marks wait for `DISTRUSTED` pictures.
- Another packet of the same picture behind a marked one shows that marks mean nothing: from then on all packets wait.
- A picture that ends without a mark shows that marks are left out: from then on unmarked packets wait.

Only the last packet of a NAL unit ever waits, until the next packet or for one frame interval (`longest_wait`).
"""

from __future__ import annotations

from typing import Final

from relay_worker.media.stream import VIDEO_CLOCK_RATE
from relay_worker.native.states import PassthroughState
from relay_worker.rtp.h264 import NAL_AUD, NAL_IDR, NAL_PPS, NAL_SEI, NAL_SPS

Payloads = list[tuple[bytes, bool]]
"""Outgoing RTP payloads with their marker bits."""

DISTRUSTED: Final = 10
"""Pictures for which the marks of a camera are not trusted after a wrong one."""
CLOSING: Final = b"\x0c\xff\x80"
"""A filler data NAL unit (§7.3.2.7): carries the mark of a picture whose last packet has left without one."""
MAX_UNDATED: Final = 32
"""Payloads held before a picture until its timestamp is known."""
MAX_INTERVAL: Final = VIDEO_CLOCK_RATE // 2
"""Ticks between two pictures beyond which they do not indicate the frame interval."""
DEFAULT_INTERVAL: Final = 1 / 30
_INTERVALS: Final = (1 / 60, 0.2)
_MAX_WAIT_FACTOR: Final = 4

# Types that begin an access unit behind a picture (§7.4.1.2.3), and those that belong to the picture before them.
_STARTERS: Final = frozenset((NAL_SEI, NAL_SPS, NAL_PPS, NAL_AUD, *range(14, 19)))
TRAILERS: Final = frozenset((10, 11, 12, 13, *range(19, 24)))

_NONE, _PREFIX, _PICTURE = range(3)  # contents of the access unit so far


class AccessUnitEnds(PassthroughState):
    """Puts one track's outgoing payloads into access units. The base of `H264Passthrough`, which finds the NAL units.

    Payloads go to `_out`, between `_begin_nal` and `_end_nal`; `_take` gives what may leave. Counters: `frames` and
    `keyframes` that left, `unmarked` pictures without a marker, `misplaced` markers, `split` pictures that went on
    after their last packet seemed to be there.
    """

    def __init__(self) -> None:
        self.timestamp = -1
        """RTP timestamp with which the current access unit is sent."""
        self.earlier: list[tuple[int, Payloads]] = []
        """Remaining payloads of ended access units, with their timestamps: to be sent (and removed) first."""
        self.held: bytes | None = None
        """The payload being held, because the camera's marker does not say whether it is the last of its picture."""
        self.frames = self.keyframes = 0
        self.unmarked = self.misplaced = self.split = 0
        self._out: Payloads = []
        self._stamp = -1  # the camera's timestamp of the last packet
        self._raw = -1  # … of the current picture
        self._shift = 0  # what is added to it, while pictures share one
        self._sharing = 1  # pictures that had it so far
        self._stage = _NONE
        self._fields = False  # pictures may be fields: two may share a timestamp
        self._undated = False  # what stands before the picture has the timestamp of the one before it
        self._pending: Payloads = []
        self._sent = self._key = False  # a slice of this picture has left; it is an IDR picture
        self._closed = self._timed = False  # its marked packet has left; because time was up
        self._marked = False  # the camera's marker is on the last NAL unit
        self._waits = False  # the last payload in `_out` is to wait
        self._distrusted = 1
        self._warned = self._mistrusted = self._omits = False
        self._sets_seen = 0  # bit 0: SPS, bit 1: PPS went out in this access unit
        self.arrival_interval = DEFAULT_INTERVAL
        """Seconds from one picture to the next as they arrive: for cameras whose timestamps do not say."""
        self._interval = 0.0  # by timestamps; 0 while those have not said
        self._wait_factor = 1

    @property
    def longest_wait(self) -> float:
        """Seconds for which `held` waits: one frame interval; more where pictures were found to be split by it."""
        lowest, highest = _INTERVALS
        return min(max(lowest, self._interval or self.arrival_interval), highest) * self._wait_factor

    @property
    def _is_over(self) -> bool:
        """Whether no picture is currently incomplete."""
        return self._stage != _PICTURE or self._closed or self._marked

    def end_waiting(self) -> None:
        """Nothing followed `held` in time: it was the last of its picture, and is now in `earlier`."""
        self._release()
        if self._out:
            self._end_unit()
            self._timed = True
            self._finish()

    def _release(self) -> None:
        if self.held is not None:
            self._out.append((self.held, False))
            self.held = None

    def _begin_nal(self, kind: int, first: bool, timestamp: int, marker: bool) -> None:
        """A NAL unit of type `kind` begins; `first`: it is a slice with first_mb_in_slice 0, `marker`: and marked."""
        if self.held is not None:
            self._release()
        self._waits = False
        stage = self._stage
        if kind <= NAL_IDR:
            if stage == _NONE or (stage == _PICTURE and self._is_next_picture(first, timestamp)):
                self._begin(timestamp)
            elif stage == _PICTURE:
                self._go_on()
            elif self._undated:
                self.earlier.append((self.timestamp, []))  # what has left so far had another timestamp
                self.timestamp = self._dated(timestamp, again=timestamp == self._stamp)
                self._out, self._pending = self._pending + self._out, []
            self._undated = False
            self._stage = _PICTURE
        elif kind in _STARTERS:
            # A marked one at the picture's own time is its end, wherever the standard would put it.
            ends = timestamp == self._stamp and (self._fields or (marker and not self._closed and not self._marked))
            if stage == _NONE or (stage == _PICTURE and not ends):
                self._undated = stage == _PICTURE and timestamp == self._stamp
                self._begin(timestamp)
                self._stage = _PREFIX
        self._stamp = timestamp

    def _is_next_picture(self, first: bool, timestamp: int) -> bool:
        if timestamp == self._stamp:
            # Where the marker is set as it should be, it and the timestamp say that the picture goes on.
            return first and not self._fields and (self._marked or self._omits or self._mistrusted)
        # A slice from the middle of a picture goes on with it, unless time and marker agree that it does not.
        return first or self._marked

    def _end_nal(self, marker: bool, sent: bool) -> None:
        """The NAL unit is whole; the camera's `marker` is on its last packet or not, which was `sent` or held back."""
        if self._stage == _NONE:
            return
        if self._stage == _PREFIX:
            if marker:
                self.misplaced += 1
                self._distrusted = self._distrusted if self._warned else DISTRUSTED
                self._warned = True
            elif not self._warned:
                self._distrusted = 0
            return
        self._marked = marker
        if marker and not (self._mistrusted or self._distrusted):
            self._close()
        elif marker or self._omits or self._mistrusted:
            self._waits = sent

    def _misplaced(self) -> None:
        self.misplaced += 1
        self._mistrusted = True

    def _go_on(self) -> None:
        """Another part of the same picture: the marker before it was wrong."""
        if self._closed and self._timed:
            self.split += 1
            self._wait_factor = min(2 * self._wait_factor, _MAX_WAIT_FACTOR)
        if self._marked:
            self._misplaced()
        self._closed = self._timed = self._marked = False

    def _begin(self, timestamp: int) -> None:
        """Start an access unit; the rest of the previous one is sent first."""
        if self._stage == _PICTURE and not self._closed:
            self._end_unit()
        again = timestamp == self._stamp and not self._undated
        if self._out or again:
            self._finish()
        if not self._undated:
            self.timestamp = self._dated(timestamp, again=again)
        self._sent = self._key = self._closed = self._timed = self._marked = False
        self._sets_seen = 0

    def _dated(self, timestamp: int, *, again: bool) -> int:
        """The timestamp to leave with: two pictures must not share one, even where the camera's does not move."""
        before = self.timestamp
        if again:
            self._sharing += 1
            interval = self._interval or self.arrival_interval
            self._shift = before + round(interval * VIDEO_CLOCK_RATE) - timestamp
        else:
            step = (timestamp - self._raw) & 0xFFFFFFFF
            if self._raw >= 0 and 0 < step < MAX_INTERVAL:
                self._interval = step / VIDEO_CLOCK_RATE / self._sharing
            if self._shift:
                behind = (before - timestamp) & 0xFFFFFFFF
                if behind < VIDEO_CLOCK_RATE:
                    self._shift = before + 1 - timestamp
                elif behind > 0xFFFFFFFF - 2 * VIDEO_CLOCK_RATE:
                    self._shift = 0
            self._sharing, self._raw = 1, timestamp
        return (timestamp + self._shift) & 0xFFFFFFFF

    def _end_unit(self) -> None:
        """The picture has ended, and its marker has not been sent."""
        if self._marked:
            self._distrusted -= self._distrusted > 0
        else:
            self.unmarked += 1
            self._omits = True
        self._close()

    def _close(self) -> None:
        """Mark the last packet of the picture."""
        self._closed = True
        if self._sent:
            payload = self._out.pop()[0] if self._out else CLOSING
            self._out.append((payload, True))
            self._count()

    def _count(self) -> None:
        self.frames += 1
        self.keyframes += self._key
        self._key = False

    def _finish(self) -> None:
        self.earlier.append((self.timestamp, self._out))
        self._out = []

    def _abandon(self) -> None:
        """The picture has a gap: the rest of it says nothing about markers."""
        self._release()
        if self._out:
            self._finish()
        self._stage = _NONE
        self._sent = self._key = self._undated = self._waits = False
        self._pending = []

    def _take(self) -> Payloads:
        """The payloads in `_out` that may be sent, with `timestamp`."""
        out, self._out = self._out, []
        if self._undated:
            self._pending = (self._pending + out)[-MAX_UNDATED:]
            return []
        if self._waits and out:
            self.held = out.pop()[0]
        return out
