"""What the SFU says about our packets: loss, round trip, receive rate and delay trend.

Bookkeeping only: `congestion` draws conclusions from it. RFC 3550 §6.4, draft-alvestrand-rmcat-remb,
draft-holmer-rmcat-transport-wide-cc-extensions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtp.transport_cc import TransportFeedback

_SENT_KEPT: Final = 2048
_RATE_WINDOW: Final = 1.0
_TREND_PACKETS: Final = 100
_SMOOTHING: Final = 0.25
_LOWEST_WINDOW: Final = 20.0
"""Seconds of one half of the window in which the shortest way is remembered."""


@dataclass
class Estimate:
    """The latest view of the way to the SFU; times are monotonic seconds, None means never heard."""

    rtt: float | None = None
    """Smoothed round trip time in seconds."""
    fraction_lost: float = 0.0
    """Share lost in the last receiver report (the worst track), 0..1."""
    remb: int | None = None
    """Receiver's bitrate estimate in bit/s."""
    received_bitrate: float | None = None
    """Bit/s that transport-wide feedback acknowledged over the last second."""
    transport_loss: float = 0.0
    """Smoothed share lost by transport-wide feedback, 0..1."""
    delay_gradient: float = 0.0
    """Growth of one-way delay in seconds per second; above 0.01 a queue is building."""
    lowest_rtt: float | None = None
    """The lowest round trip of the last 20 to 40 seconds."""
    queue_delay: float = 0.0
    """Seconds by which the last round trip (or one-way delay, where it is known) exceeded its lowest of late."""
    delivered_bitrate: float | None = None
    """Bit/s of video that arrived between the last two receiver reports, with headers."""
    repair_share: float = 0.0
    """Share of video packets sent again meanwhile: what was lost, when reports count what repair brought."""
    last_report: float | None = None
    """When a report about one of our streams last came."""
    last_feedback: float | None = None
    """When transport-wide feedback last came."""
    last_remb: float | None = None


class Feedback:
    """Collects reports into an `Estimate`."""

    def __init__(self) -> None:
        self.estimate = Estimate()
        self._fractions: dict[int, float] = {}
        self._reports_sent: deque[tuple[int, float]] = deque(maxlen=8)
        self._sent: dict[int, tuple[float, int]] = {}
        self._order: deque[int] = deque()
        self._acknowledged: deque[tuple[float, int]] = deque()
        self._acknowledged_bytes = 0
        self._delays: deque[tuple[float, float]] = deque(maxlen=_TREND_PACKETS)
        self._round_trips, self._one_way = _Lowest(), _Lowest()

    def sender_report_sent(self, ntp: int, now: float) -> None:
        """Remember when the sender report with this NTP time left; round trips are taken from it."""
        self._reports_sent.append((ntp >> 16 & 0xFFFFFFFF, now))

    def report(self, block: ReportBlock, now: float) -> None:
        """A receiver report block about one of our streams."""
        estimate = self.estimate
        estimate.last_report = now
        self._fractions[block.ssrc] = block.fraction_lost / 256
        estimate.fraction_lost = max(self._fractions.values())
        for ntp, sent in self._reports_sent:
            if block.lsr and ntp == block.lsr:
                rtt = now - sent - block.dlsr / 65536
                if rtt >= 0:
                    known = estimate.rtt
                    estimate.rtt = rtt if known is None else known + _SMOOTHING * (rtt - known)
                    estimate.lowest_rtt = self._round_trips.add(rtt, now)
                    if now - (estimate.last_feedback or -1.0) > 1.0:
                        estimate.queue_delay = rtt - estimate.lowest_rtt

    def remb(self, bitrate: int, now: float) -> None:
        """The receiver's estimated maximum bitrate in bit/s."""
        self.estimate.remb, self.estimate.last_remb = bitrate, now

    def packet_sent(self, sequence: int, size: int, now: float) -> None:
        """A packet left with this transport-wide number."""
        if len(self._order) >= _SENT_KEPT:
            self._sent.pop(self._order.popleft(), None)
        self._order.append(sequence)
        self._sent[sequence] = (now, size)

    def transport_feedback(self, feedback: TransportFeedback, now: float) -> None:
        """Arrival times by transport-wide number; unknown numbers are ignored."""
        estimate = self.estimate
        estimate.last_feedback = now
        known = 0
        delay = 0.0
        for sequence, arrival in feedback.received:
            sent = self._sent.pop(sequence, None)
            if sent is None:
                continue
            known += 1
            delay += arrival - sent[0]
            self._delays.append((sent[0], arrival - sent[0]))
            self._acknowledged.append((now, sent[1]))
            self._acknowledged_bytes += sent[1]
        while self._acknowledged and self._acknowledged[0][0] <= now - _RATE_WINDOW:
            self._acknowledged_bytes -= self._acknowledged.popleft()[1]
        estimate.received_bitrate = self._acknowledged_bytes * 8 / _RATE_WINDOW
        if feedback.packet_count and known:
            lost = max(0.0, 1 - len(feedback.received) / feedback.packet_count)
            estimate.transport_loss += _SMOOTHING * (lost - estimate.transport_loss)
            estimate.queue_delay = delay / known - self._one_way.add(delay / known, now)
        estimate.delay_gradient = _slope(self._delays)


class _Lowest:
    """The lowest value of the last 20 to 40 seconds."""

    def __init__(self) -> None:
        self._before = self._current = float("inf")
        self._until = 0.0

    def add(self, value: float, now: float) -> float:
        if now >= self._until:
            self._before, self._current, self._until = self._current, value, now + _LOWEST_WINDOW
        self._current = min(self._current, value)
        return min(self._current, self._before)


def _slope(points: deque[tuple[float, float]]) -> float:
    """Least-squares slope of (x, y) points; 0 while there are too few."""
    count = len(points)
    if count < 10:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
