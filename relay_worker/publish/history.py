"""Sent packets, kept for retransmission: bounded by time and by bytes.

Packets are kept as sent, in runs: one object for each call of the sender, so that keeping them costs next to nothing;
finding one, which only a loss requires, walks the runs. Compiled code copies them into blocks of their own
(`native/blocks.c`): objects of every size that live for two seconds leave holes in the heap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from relay_worker import native
from relay_worker.native.states import HistoryState

DEFAULT_SECONDS: Final = 2.0
DEFAULT_BYTES: Final = 4 * 1024 * 1024


class SentRun(msgspec.Struct, gc=False):
    """Packets with consecutive numbers, as they were sent together."""

    sent: float
    """Monotonic seconds."""
    sequence: int
    """Sequence number of the first."""
    timestamp: int
    """RTP timestamp of the first …"""
    step: int
    """… and ticks from one to the next; 0 within a picture."""
    packets: Sequence[tuple[bytes, bool]]
    """Payload and marker bit of each."""
    size: int
    """Payload bytes in all."""
    transport_sequence: int
    """Transport-wide number of the first (0 when none is negotiated)."""


class SentPacket(NamedTuple):
    """The data needed to send a packet again."""

    payload: bytes
    marker: bool
    timestamp: int
    transport_sequence: int
    sent: float
    """Monotonic time of its first transmission. A repeat must carry the same number and send time: SRTP derives its
    nonce from SSRC and sequence number, and two different packets under one nonce would reveal the key.
    """


class SentHistory(HistoryState):
    """The packets of one track sent in the last `seconds`, or fewer when they exceed `max_bytes`.

    `evicted_early` counts packets that had to leave before their time, `repaired` those sent again at least once.
    """

    def __init__(self, seconds: float = DEFAULT_SECONDS, max_bytes: int = DEFAULT_BYTES) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._compiled = native.compiled()
        self._runs: deque[SentRun] = deque()
        self._resent: dict[int, float] = {}
        self.bytes = 0
        """Payload bytes held."""
        self.evicted_early = 0
        self.repaired = 0

    def append(self, run: SentRun) -> None:
        """Keep `run`, which was sent after everything kept so far."""
        runs = self._runs
        runs.append(run if self._compiled is None else self._compiled.kept(run))
        self.bytes += run.size
        expired = run.sent - self._seconds
        while runs[0].sent < expired:
            self._evict()
        if self.bytes > self._max_bytes:
            self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._max_bytes and len(self._runs) > 1:
            self.evicted_early += len(self._runs[0].packets)
            self._evict()

    def _evict(self) -> None:
        run = self._runs.popleft()
        self.bytes -= run.size
        if self._resent:
            for index in range(len(run.packets)):
                self._resent.pop((run.sequence + index) & 0xFFFF, None)

    def get(self, sequence: int) -> SentPacket | None:
        """The packet with this number, or None when it is gone or was never sent."""
        for run in reversed(self._runs):
            index = (sequence - run.sequence) & 0xFFFF
            if index < len(run.packets):
                payload, marker = run.packets[index]
                number = (run.transport_sequence + index) & 0xFFFF
                timestamp = (run.timestamp + index * run.step) & 0xFFFFFFFF
                return SentPacket(payload, marker, timestamp, number, run.sent)
        return None

    def size_of(self, sequence: int, count: int) -> float:
        """Mean payload bytes of the kept packets among the `count` before and including `sequence`; 0 when none are."""
        size = packets = 0
        for run in reversed(self._runs):
            back = (sequence - run.sequence) & 0xFFFF
            if back < count:
                size, packets = size + run.size, packets + len(run.packets)
            elif packets:
                break
        return size / packets if packets else 0.0

    def resend(self, sequence: int, now: float, interval: float) -> bool:
        """Whether a kept packet may be sent again now: not within `interval` seconds of the last time. Records the
        attempt.
        """
        last = self._resent.get(sequence)
        if last is not None and now - last < interval:
            return False
        self.repaired += last is None
        self._resent[sequence] = now
        return True
