"""Feedback of the SFU about our packets: loss, round trip, receive rate and queueing delay.

Bookkeeping only: `congestion` draws conclusions from it. RFC 3550 §6.4, draft-alvestrand-rmcat-remb,
draft-holmer-rmcat-transport-wide-cc-extensions.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from typing import Final

from relay_worker.native.states import FeedbackState
from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtp.transport_cc import TransportFeedback

SENT_KEPT: Final = 4096
"""Packets whose time and size are remembered for transport-wide feedback; a power of two."""
_RATE_WINDOW: Final = 1.0
_CLOCK_PERIOD: Final = 0.064 * 2**24
"""Seconds after which the reference time of transport-wide feedback wraps."""
_SMOOTHING: Final = 0.25
_LOWEST_WINDOW: Final = 20.0
"""Half the length, in seconds, of the window over which the minimum is kept."""


@dataclass
class Estimate:
    """Current estimate of the network path to the SFU; times are monotonic seconds, None means never heard."""

    rtt: float | None = None
    """Smoothed round trip time in seconds."""
    fraction_lost: float = 0.0
    """Share lost in the last receiver report (the worst track), 0..1."""
    remb: int | None = None
    """Receiver's bitrate estimate in bit/s, where such estimates were agreed."""
    received_bitrate: float | None = None
    """Bit/s that transport-wide feedback acknowledged over the last second."""
    transport_loss: float = 0.0
    """Smoothed share lost by transport-wide feedback, 0..1."""
    lowest_rtt: float | None = None
    """The lowest round trip of the last 20 to 40 seconds."""
    queue_delay: float = 0.0
    """Seconds by which the last round trip (or one-way delay, where known) exceeded its recent minimum."""
    delivered_bitrate: float | None = None
    """Bit/s of video, probes included, that arrived between the last two receiver reports, with headers."""
    repair_share: float = 0.0
    """Share of video packets sent again meanwhile: what was lost, when reports count what repair brought."""
    last_report: float | None = None
    """When a report about one of our streams last arrived."""
    last_feedback: float | None = None
    """When transport-wide feedback last arrived."""
    last_remb: float | None = None


class Feedback(FeedbackState):
    """Collects reports into an `Estimate`."""

    def __init__(self) -> None:
        self.estimate = Estimate()
        self._fractions: dict[int, float] = {}
        self._reports_sent: deque[tuple[int, float]] = deque(maxlen=8)
        # Of the packet with transport-wide number n at n % SENT_KEPT: no object for each packet.
        self._sent_at, self._sent_size = array("d", bytes(8 * SENT_KEPT)), array("H", bytes(2 * SENT_KEPT))
        self._newest = 0
        self._arrived_last: float | None = None
        self._clock_offset = 0.0
        self._acknowledged: deque[tuple[float, int]] = deque()
        self._acknowledged_bytes = 0
        self._round_trips, self._one_way = _Lowest(), _Lowest()

    @property
    def sent(self) -> tuple[array[float], array[int]]:
        """When packets were sent, and their sizes, by transport-wide number modulo `SENT_KEPT`; see `packet_sent`."""
        return self._sent_at, self._sent_size

    def sender_report_sent(self, ntp: int, now: float) -> None:
        """Remember when the sender report with this NTP time was sent; round trips are measured from it."""
        self._reports_sent.append((ntp >> 16 & 0xFFFFFFFF, now))

    def report(self, block: ReportBlock, now: float, waited: float = 0.0) -> None:
        """A receiver report block about one of our streams, which arrived `waited` seconds ago."""
        estimate = self.estimate
        estimate.last_report = now
        self._fractions[block.ssrc] = block.fraction_lost / 256
        estimate.fraction_lost = max(self._fractions.values())
        for ntp, sent in self._reports_sent:
            if block.lsr and ntp == block.lsr:
                rtt = now - waited - sent - block.dlsr / 65536
                if rtt >= 0:
                    known = estimate.rtt
                    estimate.rtt = rtt if known is None else known + _SMOOTHING * (rtt - known)
                    estimate.lowest_rtt = self._round_trips.add(rtt, now)
                    if now - (estimate.last_feedback or -1.0) > 1.0:
                        estimate.queue_delay = rtt - estimate.lowest_rtt

    def put_off(self) -> None:
        """This process was paused: reports that it reads late tell of no round trip."""
        self._reports_sent.clear()
        self.estimate.rtt, self.estimate.queue_delay = self.estimate.lowest_rtt, 0.0

    def remb(self, bitrate: int, now: float) -> None:
        """The receiver's estimated maximum bitrate in bit/s."""
        self.estimate.remb, self.estimate.last_remb = bitrate, now

    def packet_sent(self, sequence: int, size: int, now: float) -> None:
        """A packet was sent with this transport-wide number."""
        index = sequence % SENT_KEPT
        self._sent_at[index], self._sent_size[index], self._newest = now, size, sequence

    def transport_feedback(self, feedback: TransportFeedback, now: float) -> None:
        """Arrival times by transport-wide number; unknown and already reported numbers are ignored."""
        estimate = self.estimate
        estimate.last_feedback = now
        known = size = 0
        delay = 0.0
        offset = self._unwrap(feedback)
        for sequence, arrival in feedback.received:
            index = sequence % SENT_KEPT
            sent = self._sent_at[index]
            if not sent or (self._newest - sequence) & 0xFFFF >= SENT_KEPT:
                continue
            self._sent_at[index] = 0.0
            known += 1
            size += self._sent_size[index]
            delay += arrival + offset - sent
        self._acknowledged.append((now, size))
        self._acknowledged_bytes += size
        while self._acknowledged[0][0] <= now - _RATE_WINDOW:
            self._acknowledged_bytes -= self._acknowledged.popleft()[1]
        estimate.received_bitrate = self._acknowledged_bytes * 8 / _RATE_WINDOW
        if feedback.packet_count and known:
            lost = max(0.0, 1 - len(feedback.received) / feedback.packet_count)
            estimate.transport_loss += _SMOOTHING * (lost - estimate.transport_loss)
            estimate.queue_delay = delay / known - self._one_way.add(delay / known, now)

    def _unwrap(self, feedback: TransportFeedback) -> float:
        """Seconds to add to arrival times so that they continue when the receiver's clock wraps after 12 days."""
        if feedback.received:
            arrival, last = feedback.received[0][1], self._arrived_last
            if last is not None and abs(last - arrival) > _CLOCK_PERIOD / 2:
                self._clock_offset += _CLOCK_PERIOD if arrival < last else -_CLOCK_PERIOD
            self._arrived_last = feedback.received[-1][1]
        return self._clock_offset


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
