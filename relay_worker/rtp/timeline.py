"""One continuous media clock for all tracks of a source.

Each track's RTP timestamps run on the camera's clock from a random origin. The timeline maps them to seconds on the
local monotonic clock, such that a packet that arrives without delay maps to about its arrival:

- A `_SourceClock` follows the smallest transit time seen lately (`now - source time`), which cancels the camera's
  drift but not the network's jitter: late packets keep their spacing.
- A track with sender reports lives in the camera's NTP time, and all such tracks share one clock, so the skew between
  them is the camera's own. A track without them has a clock of its own, set by arrival.
- Whatever corrects a mapping is spread over time, and a track's time never runs backwards.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from relay_worker.native.states import ClockState, TrackState

MIN_STEP: Final = 0.001
"""Smallest advance in seconds between two different timestamps of a track."""
FORWARD_JUMP: Final = 2.0
"""A timestamp that runs ahead of elapsed time by more than this many seconds starts a new mapping."""
BACKWARD_JUMP: Final = 1.0
"""As does one that goes back by more than this."""
NTP_STEP: Final = 0.5
"""Change in seconds between two sender reports of a track that means the camera set its clock."""
MAX_SKEW: Final = 2.0
"""Sender reports that would move a track by more than this many seconds are ignored."""

_WINDOW: Final = 4.0  # seconds of one half of the transit window
_EARLY_LIMIT: Final = 0.1  # seconds a packet may come before its time before the clock snaps to it
_LATE_LIMIT: Final = 1.0  # seconds all packets of a window may be late before the clock snaps to them
_DRIFT_TIME: Final = 20.0  # seconds in which a late clock is corrected …
_MAX_DRIFT: Final = 500e-6  # … at most this fast
_EARLY_TIME: Final = 2.0  # the same for an early one, which adds delay until it is corrected
_MAX_EARLY: Final = 0.01
_SKEW_TIME: Final = 2.0  # seconds in which a track that was tied to the others moves over …
_MAX_SKEW_RATE: Final = 0.05  # … at most this fast
_REPORT_WEIGHT: Final = 0.25  # of a new sender report against those before it


class _SourceClock(ClockState):
    """Offset from a source time to local time: the lowest transit of the last 4 to 8 seconds, followed smoothly."""

    def __init__(self, offset: float, now: float) -> None:
        self.offset = offset
        self._previous: float | None = None
        self._current = offset
        self._window_end = now + _WINDOW
        self._adjusted = now

    def observe(self, transit: float, now: float) -> None:
        """Account for one packet's `now - source time`."""
        if now >= self._window_end:
            # A first window may hold an unlucky start; two full ones are needed to call the clock late.
            if self._previous is not None and min(self._previous, self._current) - self.offset > _LATE_LIMIT:
                self.offset = min(self._previous, self._current)
            self._previous, self._current = self._current, transit
            self._window_end = now + _WINDOW
        elif transit < self._current:
            self._current = transit
        lowest = self._current if self._previous is None or self._current < self._previous else self._previous
        error = lowest - self.offset
        elapsed, self._adjusted = now - self._adjusted, now
        if error < -_EARLY_LIMIT:
            self.offset += error
        elif error < 0:
            self.offset += max(error / _EARLY_TIME, -_MAX_EARLY) * min(elapsed, 1.0)
        else:
            self.offset += min(error / _DRIFT_TIME, _MAX_DRIFT) * min(elapsed, 1.0)


class _Track(TrackState):
    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.floor = float("-inf")  # media time that the track has reached, across rebases
        self.pending: tuple[float, int] | None = None  # sender report (NTP seconds, RTP) that came before its media
        self.forget()

    def since(self, rtp_timestamp: int) -> float:
        """Seconds by which `rtp_timestamp` is later than the latest packet's, over a wrap."""
        ticks = (rtp_timestamp - self.timestamp) & 0xFFFFFFFF
        return (ticks - 0x100000000 if ticks & 0x80000000 else ticks) / self.rate

    def forget(self) -> None:
        self.clock: _SourceClock | None = None
        self.timestamp = -1
        self.source = 0.0  # unwrapped RTP time in seconds
        self.arrival = 0.0
        self.media = 0.0
        self.skew = 0.0  # seconds still to be moved after the mapping changed
        self.ntp_offset: float | None = None  # NTP time - source time, while the track is on the shared clock


class Timeline:
    """Maps RTP timestamps of several tracks to seconds on one media clock (the local monotonic clock's scale).

    Per track, the result never runs backwards and equal timestamps map to equal times. Tracks are any hashable.
    """

    def __init__(self) -> None:
        self._tracks: dict[Hashable, _Track] = {}
        self._shared: _SourceClock | None = None
        self._floor = float("-inf")
        self.jumps = 0
        """Timestamp discontinuities bridged."""
        self.clock_steps = 0
        """How often the camera's wall clock was set."""
        self.disbelieved = 0
        """Implausible sender reports."""

    def add_track(self, track: Hashable, clock_rate: int) -> None:
        """Declare a track with its RTP clock rate in Hz; replaces an earlier one of that name and keeps its floor."""
        added = _Track(clock_rate)
        if (earlier := self._tracks.get(track)) is not None:
            added.floor = earlier.floor
        self._tracks[track] = added

    def state(self, track: Hashable) -> object:
        """What is remembered of a track, until it is added again."""
        return self._tracks[track]

    def rebase(self, not_before: float = float("-inf")) -> None:
        """The source is a new one (reconnect, or filler ended): forget its clocks, keep the media clock.

        No track will be mapped to a time before `not_before`, or before what any track has reached.
        """
        self._floor = max(not_before, self._floor, *(track.floor for track in self._tracks.values()))
        self._shared = None
        for track in self._tracks.values():
            track.forget()
            track.pending = None

    def discontinuity(self, track: Hashable) -> None:
        """This track's timestamps restart (SSRC change); its next packet is placed by elapsed time."""
        self._tracks[track].ntp_offset = None
        self._tracks[track].clock = None

    def filled(self, track: Hashable, media_time: float) -> None:
        """Something was sent in this track's place at `media_time`: what comes next follows it, by elapsed time.

        After a stall all that was held back comes at once, and by its own clock it would belong before the filler.
        """
        if (state := self._tracks.get(track)) is not None:
            state.floor = max(state.floor, media_time)
            self.discontinuity(track)

    def lateness(self, track: Hashable) -> float:
        """Seconds by which the track's latest frame came after its place on the media clock; 0 before the first."""
        state = self._tracks[track]
        return state.arrival - state.media if state.timestamp >= 0 else 0.0

    def map(self, track: Hashable, rtp_timestamp: int, now: float) -> float:
        """Media time in seconds of `rtp_timestamp`, seen at `now` (monotonic seconds)."""
        state = self._tracks[track]
        if rtp_timestamp == state.timestamp:
            return state.media
        clock = state.clock
        if clock is None:
            return self._start(state, rtp_timestamp, now)
        step, elapsed = state.since(rtp_timestamp), now - state.arrival
        if step > elapsed + FORWARD_JUMP or step < -BACKWARD_JUMP:
            self.jumps += 1
            return self._start(state, rtp_timestamp, now)
        state.timestamp, state.arrival = rtp_timestamp, now
        state.source += step
        source = state.source if state.ntp_offset is None else state.source + state.ntp_offset
        clock.observe(now - source, now)
        if state.skew:
            self._reduce_skew(state, elapsed)
        media = source + clock.offset + state.skew
        state.media = state.floor = media if media > state.floor + MIN_STEP else state.floor + MIN_STEP
        return state.media

    def _start(self, state: _Track, rtp_timestamp: int, now: float) -> float:
        """Start a mapping at `now`: at arrival, or after the last packet by the elapsed time."""
        first = state.timestamp < 0
        media = max(now, self._floor) if first else state.media + max(MIN_STEP, now - state.arrival)
        state.timestamp, state.arrival, state.source = rtp_timestamp, now, 0.0
        state.ntp_offset, state.skew = None, 0.0
        state.clock = _SourceClock(media, now)
        if state.pending is not None:
            ntp, rtp = state.pending
            state.pending = None
            self._tie(state, ntp, rtp, first=first)
            assert state.clock is not None
            media = state.source + (state.ntp_offset or 0.0) + state.clock.offset + state.skew
        state.media = state.floor = max(media, state.floor + MIN_STEP)
        return state.media

    @staticmethod
    def _reduce_skew(state: _Track, elapsed: float) -> None:
        limit = _MAX_SKEW_RATE * elapsed
        state.skew -= max(-limit, min(limit, state.skew * min(1.0, elapsed / _SKEW_TIME)))
        if abs(state.skew) < 1e-6:
            state.skew = 0.0

    def sender_report(self, track: Hashable, ntp: int, rtp: int, now: float) -> None:
        """The source states at `now` that `rtp` (timestamp of that track) was sampled at `ntp` (64-bit NTP time)."""
        if not ntp:
            self.disbelieved += 1
            return
        state = self._tracks[track]
        seconds = ntp / 4294967296.0
        step = state.since(rtp)
        # A source that begins anew may report its new timestamps before a packet has any: then the next packet jumps
        # and is placed by this report. Where none does, the source's reports are like that, and the next one counts.
        elsewhere = step > now - state.arrival + FORWARD_JUMP or step < -BACKWARD_JUMP
        if state.clock is None or (elsewhere and state.pending is None):
            state.pending = (seconds, rtp)
        else:
            state.pending = None
            self._tie(state, seconds, rtp, first=False)

    def _tie(self, state: _Track, ntp: float, rtp: int, *, first: bool) -> None:
        """Put a running track onto the shared clock by a sender report, without moving its media time now.

        A track that has sent nothing before (`first`) takes its place at once.
        """
        offset = ntp - state.source - state.since(rtp)
        assert state.clock is not None
        if state.ntp_offset is not None:
            change = (offset - state.ntp_offset) * _REPORT_WEIGHT
            if abs(offset - state.ntp_offset) <= NTP_STEP:
                state.ntp_offset += change
                state.skew -= change
                return
            self.clock_steps += 1
            self._untie()
        mapped = state.clock.offset + state.skew  # media time = source time + mapped
        if self._shared is None:
            self._shared = _SourceClock(mapped - offset, state.arrival)
        skew = mapped - offset - self._shared.offset
        if abs(skew) > MAX_SKEW:
            self.disbelieved += 1
            return
        state.ntp_offset, state.clock, state.skew = offset, self._shared, 0.0 if first else skew

    def _untie(self) -> None:
        """Give every track a clock of its own that continues as the shared one would have."""
        self._shared = None
        for state in self._tracks.values():
            if state.ntp_offset is not None and state.clock is not None:
                state.clock = _SourceClock(state.ntp_offset + state.clock.offset + state.skew, state.arrival)
                state.ntp_offset, state.skew = None, 0.0

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"clock_steps": self.clock_steps, "disbelieved": self.disbelieved, "jumps": self.jumps}
