"""Reception of one published RTP stream: order, loss and repair, jitter, reports, and statistics for tests.

No I/O and no clock. Sequence numbers are extended to integers that never wrap (RFC 3550 A.1).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from relay_common.simulation.sfu import rtcp as sfu_rtcp

HISTORY: Final = 2048
"""Packets kept for viewers' NACKs; a power of two (7 s at 275 packets/s)."""
_MAX_GAP: Final = 1000
"""A larger jump is a restart of the stream, not loss."""
_MAX_NACKS: Final = 20
_REORDER_WINDOW: Final = 10_000
_RATE_SAMPLES: Final = 7


class Missing:
    """A sequence number that was skipped."""

    __slots__ = ("next_nack", "since", "tries")

    def __init__(self, now: float) -> None:
        self.since = self.next_nack = now
        self.tries = 0


class Upstream:
    """One SSRC from a publisher.

    `receive` takes each authenticated packet; `nacks(now)` returns what to request; `report_block(now)` the RR block.
    """

    def __init__(self, kind: str, clock_rate: int, *, nack_retry: float, nack_give_up: float) -> None:
        self.kind = kind
        self.clock_rate = clock_rate
        self.ssrc: int | None = None
        self.codec = ""
        self._nack_retry, self._nack_give_up = nack_retry, nack_give_up
        self.history: list[bytes | None] = [None] * HISTORY
        self.packets = self.bytes = self.frames = self.keyframes = 0
        self.duplicates = self.reordered = self.restarts = 0
        self.skipped = self.repaired = self.retransmissions = self.nacks_sent = 0
        self.empty = 0
        self.plis_forwarded = 0
        self.gaps: deque[tuple[float, int, int]] = deque(maxlen=64)
        self.lost = 0
        self.highest = -1
        self.first = -1
        self.arrived = 0.0
        self.timestamp = 0
        self.missing: dict[int, Missing] = {}
        self.sender_report: tuple[int, int, float] | None = None
        """(64-bit NTP, RTP timestamp, arrival) of the last SR."""
        self.sender_reports = 0
        self._expected_before = self._received_before = self._received = 0
        self._transit = 0.0
        self._jitter = 0.0
        self._keyframe_timestamp = -1
        self._given_up: dict[int, None] = {}
        self._measured: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES)

    def measure(self, now: float) -> None:
        """Note how much has arrived by now, about once a second."""
        self._measured.append((now, self.bytes))

    @property
    def rate(self) -> float:
        """Bits a second over the last seconds that `measure` noted, long enough to hold a keyframe."""
        if len(self._measured) < 2:
            return 0.0
        (since, before), (now, size) = self._measured[0], self._measured[-1]
        return 8 * (size - before) / max(0.001, now - since)

    def restart(self, ssrc: int) -> None:
        """Start over with a new SSRC (or after a jump): sequence state is reset; counters continue."""
        if self.ssrc is not None:
            self.restarts += 1
            self._settle_lost(list(self.missing), self.arrived)
        self.ssrc = ssrc
        self.highest = self.first = -1
        self.missing.clear()
        self._given_up.clear()
        self._expected_before = self._received_before = self._received = 0
        self._jitter = 0.0
        self.sender_report = None
        self.history = [None] * HISTORY

    def receive(self, sequence: int, timestamp: int, size: int, now: float) -> int:
        """Account for a packet of `size` bytes; returns its extended sequence number, or -1 for a duplicate."""
        highest = self.highest
        if highest < 0:
            self.highest = self.first = extended = sequence
            self._transit = now * self.clock_rate - timestamp
            self.frames = max(1, self.frames)
        else:
            delta = (sequence - highest) & 0xFFFF
            if delta == 1:
                self.highest = extended = highest + 1
            elif 0 < delta < 0x8000:
                if delta > _MAX_GAP:
                    assert self.ssrc is not None
                    self.restart(self.ssrc)
                    return self.receive(sequence, timestamp, size, now)
                extended = highest + delta
                self.skipped += delta - 1
                for number in range(highest + 1, extended):
                    self.missing[number] = Missing(now)
                self.highest = extended
            else:
                extended = highest - (-delta & 0xFFFF)
                if not self._late(extended):
                    self.duplicates += 1
                    return -1
            if extended > highest:
                if timestamp != self.timestamp:
                    self.frames += 1
                # RFC 3550 A.8 in timestamp units, the difference taken modulo 2^32.
                transit = now * self.clock_rate - timestamp
                d = abs(transit - self._transit)
                if d > 0x80000000:
                    d = 0.0
                self._transit = transit
                self._jitter += (d - self._jitter) / 16
        if extended == self.highest:
            self.timestamp = timestamp
        self.packets += 1
        self._received += 1
        self.bytes += size
        self.arrived = now
        return extended

    def _late(self, extended: int) -> bool:
        if self.missing.pop(extended, None) is not None:
            self.repaired += 1
            self.reordered += 1
            return True
        if extended in self._given_up:
            del self._given_up[extended]
            self.lost -= 1
            self.repaired += 1
            return True
        return False

    def see_h264(self, payload: memoryview, timestamp: int) -> None:
        """Count a keyframe when an IDR slice with a new timestamp begins in `payload` (RFC 6184)."""
        if timestamp != self._keyframe_timestamp and begins_idr(payload):
            self._keyframe_timestamp = timestamp
            self.keyframes += 1

    def nacks(self, now: float) -> list[int]:
        """Sequence numbers (16 bit) to request now; gives up on those missing for too long."""
        wanted, hopeless = [], []
        for number, missing in self.missing.items():
            if now - missing.since > self._nack_give_up:
                hopeless.append(number)
            elif now >= missing.next_nack and missing.tries < _MAX_NACKS:
                missing.tries += 1
                missing.next_nack = now + self._nack_retry
                wanted.append(number & 0xFFFF)
        self._settle_lost(hopeless, now)
        return wanted[:250]

    def _settle_lost(self, numbers: list[int], now: float) -> None:
        run = 0
        for index, number in enumerate(numbers):
            del self.missing[number]
            self._given_up[number] = None
            run += 1
            if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
                self.gaps.append((now, (number - run + 1) & 0xFFFF, run))
                run = 0
        self.lost += len(numbers)
        while len(self._given_up) > _REORDER_WINDOW:
            del self._given_up[next(iter(self._given_up))]

    def report_block(self, now: float) -> bytes | None:
        """The RR block for the interval since the last one, None before the first packet."""
        if self.highest < 0 or self.ssrc is None:
            return None
        expected = self.highest - self.first + 1
        expected_interval = expected - self._expected_before
        lost_interval = expected_interval - (self._received - self._received_before)
        self._expected_before, self._received_before = expected, self._received
        fraction = min(255, (lost_interval << 8) // expected_interval) if expected_interval and lost_interval > 0 else 0
        lsr = dlsr = 0
        if self.sender_report:
            ntp, _, arrival = self.sender_report
            lsr, dlsr = ntp >> 16 & 0xFFFFFFFF, int((now - arrival) * 65536)
        return sfu_rtcp.report_block(
            self.ssrc, fraction, expected - self._received, self.highest, int(self._jitter), lsr, dlsr
        )

    def snapshot(self, now: float) -> dict[str, Any]:
        """The stream as shown by `GET /control/sessions`; times in seconds, gaps as (seconds ago, first, count)."""
        report = self.sender_report
        return {
            "kind": self.kind,
            "codec": self.codec,
            "ssrc": self.ssrc,
            "packets": self.packets,
            "bytes": self.bytes,
            "frames": self.frames,
            "keyframes": self.keyframes,
            "lost": self.lost + len(self.missing),
            "lost_before_repair": self.skipped,
            "repaired": self.repaired,
            "retransmissions": self.retransmissions,
            "nacks_sent": self.nacks_sent,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "restarts": self.restarts,
            "empty": self.empty,
            "gaps": [(round(now - at, 3), first, count) for at, first, count in self.gaps],
            "first_sequence": self.first & 0xFFFF if self.first >= 0 else None,
            "last_sequence": self.highest & 0xFFFF if self.highest >= 0 else None,
            "timestamp": self.timestamp,
            "jitter": self._jitter / self.clock_rate,
            "last_packet_age": now - self.arrived if self.packets else None,
            "sender_reports": self.sender_reports,
            "last_sender_report": {"ntp": report[0], "rtp": report[1], "age": now - report[2]} if report else None,
            "plis_forwarded": self.plis_forwarded,
        }


def begins_idr(payload: memoryview) -> bool:
    """Whether an H.264 RTP payload starts an IDR slice: single NAL, first FU-A fragment or inside a STAP-A."""
    if len(payload) < 2:
        return False
    kind = payload[0] & 31
    if kind == 28:
        return payload[1] & 0x9F == 0x85
    if kind == 24:
        position = 1
        while position + 2 < len(payload):
            if payload[position + 2] & 31 == 5:
                return True
            position += 2 + (payload[position] << 8 | payload[position + 1])
        return False
    return kind == 5
