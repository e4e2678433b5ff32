"""Derives what the pacer may send from what the SFU reports: one publication's uplink."""

from __future__ import annotations

from typing import Final

from relay_worker.native.states import UplinkState
from relay_worker.publish.congestion import QUEUE_LIMIT, CongestionController, PathSample
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.retransmission import RESEND_RATE
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.share import ShareMeter, UplinkShare

RESEND_SHARE: Final = 0.4
"""UplinkShare of a ceiling available to retransmissions."""
FAR: Final = 0.06
"""Round trip in seconds above which repairing a lost repair comes too late: browsers call 150 ms a freeze. Below, there
is time for a second request, but not for a third.
"""
LOSSY: Final = 0.02
"""Loss from which the last packet of a picture is sent twice on such a path. Its loss is noticed one picture later than
that of the others, which is too late on top of the round trip.
"""


class Uplink(UplinkState):
    """Limits pacer and sender to what the uplink carries."""

    def __init__(self, pacer: Pacer, sender: MediaSender, video: OutgoingTrack) -> None:
        self._pacer, self._sender, self._video = pacer, sender, video
        self._congestion = CongestionController()
        self._judged = 0.0  # when the last report came that was used
        self._resent = 0
        self._share = ShareMeter()
        self.probing = False
        """Whether `probe` is to be called whenever media arrives."""

    def heard(self, now: float) -> None:
        """The sender has processed an RTCP packet that arrived at `now` (monotonic seconds)."""
        pacer, video, estimate = self._pacer, self._video, self._sender.estimate
        resent, self._resent = self._resent, video.stats.retransmitted_bytes
        pacer.charge(self._resent - resent)
        if estimate.remb is not None and estimate.last_remb == now:
            self._congestion.remb(estimate.remb, pacer.needed, now)
        if video.reported is not None and video.reported[0] == now != self._judged:
            self._judged = now
            loss = max(video.stats.fraction_lost, estimate.repair_share, estimate.transport_loss)
            if estimate.delivered_bitrate is not None:
                sample = PathSample(estimate.delivered_bitrate, loss, estimate.queue_delay, pacer.limited)
                self._congestion.update(sample, now)
            pacer.limited = False
            self._share.add(
                now,
                offered=pacer.stats.offered_bytes,
                acknowledged=video.stats.acknowledged_bytes,
                thinned=pacer.stats.thinned_frames,
            )
        ceiling = pacer.ceiling = self._congestion.ceiling
        self.probing = self._congestion.probing
        pacer.network_delay = estimate.queue_delay
        # Copies cost about as large a share of the rate as is lost. Where a queue or a ceiling shows a lack of room
        # they would do harm.
        roomy = ceiling is None and estimate.queue_delay <= QUEUE_LIMIT
        repair = self._sender.repair
        far = (estimate.lowest_rtt or 0.0) > FAR
        repair.repairs_twice, repair.repeats_twice = roomy and far, roomy and not far
        repair.tails_twice = repair.repairs_twice and self._congestion.loss >= LOSSY
        repair.rate = RESEND_RATE if ceiling is None else min(RESEND_RATE, RESEND_SHARE * ceiling / 8)

    def put_off(self, now: float) -> None:
        """This process was paused until `now`: reports that it reads late tell nothing of the path."""
        self._congestion.put_off(now)
        self._pacer.ceiling, self.probing = self._congestion.ceiling, self._congestion.probing

    def probe(self, now: float) -> None:
        """Fill the room below the ceiling with retransmissions: capacity that is never tried is never found."""
        if spare := self._pacer.spare(now):
            self._pacer.charge(self._sender.repair.probe(self._video, spare, now))

    def share(self, now: float) -> UplinkShare | None:
        """How much of the camera's video the uplink carries; None while it carries all, or that is not measured."""
        return self._share.measured(now) if self._pacer.ceiling is not None else None

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self._congestion.counters()
