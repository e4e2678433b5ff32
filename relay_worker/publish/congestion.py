"""Estimates the uplink's capacity: a bitrate ceiling from receiver reports, REMB and transport-wide feedback.

Pure: `update` takes the measurements since the last report, `ceiling` is the result (None: the uplink is not the
limit). The signals are those of draft-ietf-rmcat-gcc-02 (loss and growing delay), computed for one report a second,
which is all that Cloudflare sends: a queue shows as a round trip above its minimum, and the rate that arrives meanwhile
is the uplink's capacity.

A receiver's own estimate (REMB) is weak evidence: a browser without send times estimates a tenth of what arrives at the
same moment. It lowers the threshold for queueing delay, and the ceiling once the uplink was found overused, and has no
effect by itself. A ceiling is probed again as soon as nothing suffers under it: the room media leaves below it is
filled with retransmissions (`probing`), and when those arrive the ceiling rises, unless the queue grows
meanwhile: it is longer by then than a report, up to a second old, can show.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

QUEUE_LIMIT: Final = 0.1
"""Seconds of queueing above which, for two reports, the uplink counts as overused."""
LOSS_LIMIT: Final = 0.1
"""The same for loss, averaged over a few reports: less is repaired by retransmission and is not caused by the
sender.
"""
LOSS_ALARM: Final = 0.25
"""Loss in a single report that suffices."""
LOWEST: Final = 100_000.0
"""Lowest ceiling in bit/s: an occasional keyframe."""
REMB_LIFETIME: Final = 5.0
"""Seconds for which a REMB is valid."""
DOUBTED_QUEUE: Final = 0.5 * QUEUE_LIMIT
"""The limit for queueing while a REMB says that the uplink carries less than the camera needs."""
UNLIMITED_AFTER: Final = 5
"""Reports in a row without strain and with nothing held back after which the ceiling is lifted."""
JUST_NOW: Final = 1.0
"""Seconds after a pause of this process within which it is noticed."""

_LOSS_WEIGHT: Final = 0.5
_STEP: Final = 1.08
_STEPS: Final = (1.2, 1.4, 1.6)  # beyond what the uplink last carried: it is a better one now
_NEAR: Final = 1.1
_GROWTH: Final = 0.2 * QUEUE_LIMIT  # of the queue from one report to the next, from which no ceiling rises
_TRIED: Final = 0.75  # share of the ceiling that must have been used for it to rise
_FLOOR: Final = 0.7  # of a ceiling; what arrives may be little because little was sent
_FUTILE: Final = 4  # decreases in a row that change nothing: the queue or the loss is not ours


class PathSample(NamedTuple):
    """Measurements of the network path since the last sample."""

    delivered: float
    """Video, probes included, that arrived, bit/s with headers."""
    loss: float
    """Share lost before repair, 0..1."""
    queue_delay: float
    """Queueing delay in seconds."""
    limited: bool
    """Whether the ceiling held anything back."""


class CongestionController:
    """One uplink. `decreases` counts how often the ceiling was lowered."""

    def __init__(self) -> None:
        self.decreases = 0
        self.capacity: float | None = None
        """Bit/s that arrived when the uplink was last overused."""
        self._own: float | None = None
        self._remb = 0.0
        self._remb_until = 0.0
        self._strained = self._unlimited = self._raises = self._futile = 0
        self._settle_until = 0.0
        self._decreased_at = -math.inf
        self._accepted_delay = self._accepted_loss = 0.0
        self._before = (0.0, 0.0)  # queue delay and loss at the last decrease
        self._queue = 0.0  # at the last report
        self._loss = 0.0

    @property
    def loss(self) -> float:
        """Share lost before repair, averaged over a few reports."""
        return self._loss

    @property
    def ceiling(self) -> float | None:
        """Bit/s of video that may be sent; None when the uplink is not the limit."""
        return self._own

    @property
    def probing(self) -> bool:
        """Whether to fill the room below the ceiling to find out if the uplink carries more: nothing suffers under
        it.
        """
        return self._own is not None and not self._strained

    def remb(self, bitrate: float, needed: float, now: float) -> None:
        """Note the receiver's own estimate; it matters when it approaches what is `needed`."""
        self._remb = max(LOWEST, bitrate)
        self._remb_until = now + REMB_LIFETIME if bitrate < 1.5 * needed else 0.0

    def put_off(self, now: float) -> None:
        """This process was paused until `now`: a ceiling of the last second comes from reports that it read late."""
        self._strained = 0
        if now - self._decreased_at < JUST_NOW:
            self._own = self.capacity = None

    def update(self, sample: PathSample, now: float) -> None:
        """Process a report."""
        # Loss or delay that was accepted as not caused by us may go away again.
        self._accepted_delay = min(self._accepted_delay, max(0.0, sample.queue_delay))
        self._accepted_loss = min(self._accepted_loss, sample.loss)
        self._loss += _LOSS_WEIGHT * (sample.loss - self._loss)
        queue, before = sample.queue_delay - self._accepted_delay, self._queue
        self._queue = queue
        loss, loss_now = self._loss - self._accepted_loss, sample.loss - self._accepted_loss
        if self._own is not None and QUEUE_LIMIT < queue < 0.9 * before and loss <= LOSS_LIMIT:
            return  # it drains
        queue_limit = DOUBTED_QUEUE if now < self._remb_until else QUEUE_LIMIT
        if queue > queue_limit or loss > LOSS_LIMIT or loss_now > LOSS_ALARM:
            self._strained, self._unlimited = self._strained + 1, 0
            if (loss_now > LOSS_ALARM or self._strained > 1) and now >= self._settle_until:
                self._decrease(sample, queue, max(loss, loss_now), now)
        else:
            self._strained = self._futile = 0
            if self._own is not None:
                self._increase(sample, growing=queue > before + _GROWTH)

    def _decrease(self, sample: PathSample, queue: float, loss: float, now: float) -> None:
        queue_before, loss_before = self._before
        if self._futile and (queue > 0.8 * queue_before if queue > QUEUE_LIMIT else loss > 0.8 * loss_before):
            self._futile += 1
        else:
            self._futile = 1
        self._before = (queue, loss)
        if self._futile > _FUTILE:
            # A longer route, or radio loss: sending less does not help.
            if queue > QUEUE_LIMIT:
                self._accepted_delay = sample.queue_delay
            if loss > LOSS_LIMIT:
                self._accepted_loss = sample.loss
            self._futile = 0
            return
        self.decreases += 1
        self._decreased_at = now
        # The more has queued, the more room is left for it to drain: within about two seconds.
        room = 1.0 - min(0.5, max(0.15, queue / 2)) if queue > QUEUE_LIMIT else 0.95
        self.capacity = max(sample.delivered, _FLOOR * (self._own or 0.0))
        self._own = max(LOWEST, self.capacity * room)
        if now < self._remb_until:
            self._own = max(LOWEST, _FLOOR * self.capacity, min(self._own, self._remb))
        self._raises = 0
        # The next report is about what is in flight now, before the decrease took effect.
        self._settle_until = now + 1.0 + min(1.0, max(0.0, queue))

    def _increase(self, sample: PathSample, *, growing: bool) -> None:
        assert self._own is not None
        if not sample.limited:
            self._unlimited += 1
            if self._unlimited >= UNLIMITED_AFTER:
                self._own = self.capacity = None
            return
        self._unlimited = 0
        capacity = self.capacity or 0.0
        if self._own < 0.9 * capacity:
            self._own = 0.9 * capacity
        elif sample.delivered >= _TRIED * self._own and not growing:
            if self._own < _NEAR * capacity:
                self._own *= _STEP
            else:
                self._own *= _STEPS[min(self._raises, len(_STEPS) - 1)]
                self._raises += 1

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"decreases": self.decreases}
