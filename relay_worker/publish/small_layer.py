"""The small layer of a simulcast track on its way out: never at the cost of the original.

Sans-I/O, like the pacer: `add` a picture, `pop` what may leave now, sleep until `next_deadline()`. A few packets leave
at once, of a keyframe one at a time, and none while packets of the original wait, for `LONGEST_YIELD`: a busy pacer may
always hold some. Where the uplink is narrow, only what the original leaves over, until a picture has waited
`LONGEST_WAIT`, so that the receiver does not take the layer for gone.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from relay_worker.media.stream import PayloadRun
from relay_worker.publish.pacer import PACKET_OVERHEAD, Pacer

BURST: Final = 4
"""Packets that leave at once."""
INTERVAL: Final = 0.005
"""Seconds from one burst to the next: 8 Mbit/s."""
KEYFRAME_INTERVAL: Final = 0.025
"""The same for the packets of a keyframe: 400 kbit/s. It is what a viewer gets whose line did not carry the original,
which has just filled the queue before it: of a burst only the first packets would find room.
"""
YIELD: Final = 0.02
"""Seconds after which it is tried again while the original has to go first."""
LONGEST_YIELD: Final = 0.1
"""Seconds for which the original goes first where the uplink carries both: it is spread over time, and not for want of
room.
"""
LONGEST_WAIT: Final = 5.0
MOST_QUEUED: Final = 64 * 1024
"""Payload bytes that may wait."""


class _Queued(NamedTuple):
    payloads: PayloadRun
    media_time: float
    keyframe: bool
    came: float
    begun: bool = False


class SmallLayer:
    """Queues pictures, which refer to each other from one keyframe to the next."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        self._next = 0.0
        self.waits_for_keyframe = True
        """Whether pictures are left out until the next keyframe."""
        self.unsent = 0
        """Pictures that were left out for a newer one, or because the uplink had no room for them."""

    def add(self, payloads: PayloadRun, media_time: float, now: float, *, keyframe: bool) -> None:
        """Queue a picture. A keyframe takes the place of all that has not begun to leave, and has waited for as long:
        who waits for one asks once a second.
        """
        came = now
        if keyframe:
            came = self._drop_waiting(now)
            self.waits_for_keyframe = False
        elif self.waits_for_keyframe:
            self.unsent += 1
            return
        size = _size(payloads)
        if self._bytes + size > MOST_QUEUED and not keyframe:
            self._drop_waiting(now)
            self.unsent += 1
            self.waits_for_keyframe = True
            return
        self._queue.append(_Queued(payloads, media_time, keyframe, came))
        self._bytes += size

    def _drop_waiting(self, now: float) -> float:
        """Since when the oldest of them has waited; `now` where there is none."""
        since = now
        while self._queue and not self._queue[-1].begun:
            last = self._queue.pop()
            since = last.came
            self._bytes -= _size(last.payloads)
            self.unsent += 1
        return since

    def pop(self, now: float) -> tuple[PayloadRun, float] | None:
        """Payloads to send now, with their media time; None: nothing is due."""
        if not self._queue or now < self._next:
            return None
        first = self._queue[0]
        count = self._room(first, now)
        if not count:
            self._next = now + YIELD
            return None
        if first.keyframe:
            count, self._next = 1, now + KEYFRAME_INTERVAL
        else:
            self._next = now + INTERVAL
        run, rest = first.payloads[:count], first.payloads[count:]
        size = _size(run)
        self._bytes -= size
        self._pacer.charge(size + PACKET_OVERHEAD * len(run))
        self._queue.popleft()
        if rest:
            self._queue.appendleft(_Queued(rest, first.media_time, first.keyframe, first.came, begun=True))
        return run, first.media_time

    def _room(self, first: _Queued, now: float) -> int:
        """Packets of this picture that may leave."""
        if self._pacer.ceiling is None:
            return BURST if not self._pacer.queued_bytes or now - first.came > LONGEST_YIELD else 0
        spare, count = self._pacer.spare(now), 0
        for payload, _ in first.payloads[:BURST]:
            spare -= len(payload) + PACKET_OVERHEAD
            if spare < 0:
                break
            count += 1
        return count or int(now - first.came > LONGEST_WAIT)

    def next_deadline(self) -> float | None:
        """When `pop` is to be called again; None while nothing waits."""
        return self._next if self._queue else None


def _size(payloads: PayloadRun) -> int:
    return sum(len(payload) for payload, _ in payloads)
