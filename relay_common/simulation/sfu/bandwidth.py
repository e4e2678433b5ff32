"""How much a viewer's line carries: estimated from its feedback (transport-cc or REMB), tried out by probing.

A small congestion control of its own, after the ideas of draft-ietf-rmcat-gcc: a queue that grows, or loss, means that
less fits than was sent; what arrived without either is proved. No I/O and no clock; rates are in bit/s.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW: Final = 0.4
"""Seconds over which the rate of arrival is measured."""
_QUEUE: Final = 0.1
"""Seconds of delay beyond the smallest that mean that the line is full."""
_LOSS: Final = 0.15
_BACK_OFF: Final = 0.85
_BASE_KEPT: Final = 10.0
"""Seconds after which the smallest delay is forgotten: clocks drift, and paths change."""
_IN_FLIGHT: Final = 4096
_STEP: Final = 0.4
_PROBE_LIMIT: Final = 6.0
_FIRST_PAUSE: Final = 3.0
_LONGEST_PAUSE: Final = 8.0
_SLOWEST_PROBE: Final = 200_000.0


class Estimate:
    """The estimate for one viewer: None until its line was full, or until it reported one itself."""

    def __init__(self) -> None:
        self.available: float | None = None
        self.congested_at = float("-inf")
        self.congestions = 0
        self.loss = self.queue = 0.0
        self._sent: dict[int, tuple[float, int]] = {}
        self._arrived: deque[tuple[float, int]] = deque()
        self._first = float("inf")
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._smallest = [float("inf"), float("inf")]
        self._smallest_since = float("-inf")

    def sent(self, number: int, size: int, now: float) -> None:
        """A packet of `size` bytes left with this transport-wide sequence number (16 bits)."""
        self._sent[number] = now, size
        while len(self._sent) > _IN_FLIGHT:
            del self._sent[next(iter(self._sent))]

    @property
    def rate(self) -> float:
        """Bits a second that arrived of late."""
        if not self._arrived:
            return 0.0
        span = min(WINDOW, max(WINDOW / 4, self._arrived[-1][0] - self._first))
        return 8 * sum(size for _, size in self._arrived) / span

    def feedback(self, packets: list[tuple[int, float | None]], now: float) -> None:
        """Transport-wide feedback: (sequence number, arrival by the viewer's clock, or None if it was not received)."""
        before = self.queue
        delays = []
        for number, arrival in packets:
            if (left := self._sent.pop(number, None)) is None:
                continue
            self._outcomes.append((now, arrival is not None))
            if arrival is not None:
                self._first = min(self._first, arrival)
                self._arrived.append((arrival, left[1]))
                delays.append(arrival - left[0])
        if delays:
            self._note(min(delays), now)
            self.queue = sum(delays) / len(delays) - min(self._smallest)
        while self._arrived and self._arrived[0][0] < self._arrived[-1][0] - WINDOW:
            self._arrived.popleft()
        while self._outcomes and self._outcomes[0][0] < now - 1:
            self._outcomes.popleft()
        lost = sum(not received for _, received in self._outcomes)
        self.loss = lost / len(self._outcomes) if len(self._outcomes) >= 20 else 0.0
        if (self.queue > _QUEUE and self.queue >= 0.95 * before) or self.loss > _LOSS:
            self._fill(_BACK_OFF * self.rate, now)
        elif self.available is not None and self.queue < _QUEUE / 2:
            self.available = max(self.available, self.rate)

    def report(self, bitrate: float, now: float) -> None:
        """The viewer's own estimate (REMB)."""
        if self.available is not None and bitrate < 0.9 * self.available:
            self._fill(bitrate, now)
        self.available = bitrate

    def _fill(self, fits: float, now: float) -> None:
        self.congestions += now - self.congested_at > 1
        self.congested_at = now
        self.available = fits if self.available is None else min(self.available, fits)

    def _note(self, delay: float, now: float) -> None:
        if now - self._smallest_since > _BASE_KEPT:
            self._smallest, self._smallest_since = [self._smallest[1], float("inf")], now
        self._smallest[1] = min(self._smallest[1], delay)


class Prober:
    """Finds out whether a line carries more than is sent: in steps that double, until the first sign of a queue."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self.rate = 0.0
        """What to send now, media included; 0 while nothing is tried out."""
        self.attempts = 0
        self._target = 0.0
        self._began = self._stepped = 0.0
        self._pause, self._next = _FIRST_PAUSE, float("-inf")

    def want(self, target: float, now: float) -> None:
        """Try out whether `target` fits, if it is time to; 0 gives up."""
        if target <= 0:
            self.rate = 0.0
            self._pause = _FIRST_PAUSE
            return
        self._target = target
        due = max(self._next, self._estimate.congested_at + _FIRST_PAUSE)
        if not self.rate and now >= due:
            self.attempts += 1
            self._began = self._stepped = now
            self.rate = min(target, max(_SLOWEST_PROBE, 2 * self._estimate.rate))

    def poll(self, now: float) -> float:
        """Advance; the rate to send at, 0 for nothing beside the media."""
        if not self.rate:
            return 0.0
        available = self._estimate.available or 0.0
        if self._estimate.congested_at > self._began or now - self._began > _PROBE_LIMIT:
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
            self._next, self.rate = now + self._pause, 0.0
        elif available >= self._target:
            self._next, self.rate = now + _FIRST_PAUSE, 0.0
        elif now - self._stepped >= _STEP:
            self._stepped = now
            self.rate = min(1.1 * self._target, 2 * self.rate)
        return self.rate
