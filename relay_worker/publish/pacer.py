"""The pacer: turns bursts back into an even stream, spreads keyframes, lets audio through first.

Sans-I/O: `take` what arrived, which may leave at once when the answer is yes; else `pop(now)` what may leave now and
sleep until `next_deadline()` (None: nothing is queued).
An even source passes with nothing added. Two stages, each with its own bound on delay:

- *smoothing* (`smoother.py`, per track): when frames come in clumps they are released along their media time;
- *bucket* (video): more than a small burst at once leaves at a multiple of the recent bitrate, and fast enough that
  nothing waits longer than `spread`, unless `ceiling` (what the uplink carries) forbids it. Then frames that no other
  needs are left out first, and when that is not enough everything up to the next keyframe; both are counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from relay_worker import native
from relay_worker.media.stream import PayloadRun
from relay_worker.native.states import MeterState, PacerState, PacerStatsState, in_memory
from relay_worker.publish.smoother import Smoother
from relay_worker.rtp.h264_packetize import is_disposable, starts_keyframe

PACKET_OVERHEAD: Final = 28
"""RTP header and SRTP tag, counted for every payload."""
BURST_BYTES: Final = 32 * (1200 + PACKET_OVERHEAD)
"""Burst size while there is no ceiling: about 32 full packets, 20 ms of `floor_bitrate`. Browsers send at once what
their pacing rate carries in 40 ms (libwebrtc), which at 8 Mbit/s is as much."""
LIMITED_BURST_BYTES: Final = BURST_BYTES // 2
"""The same under a ceiling."""
QUANTUM_BYTES: Final = BURST_BYTES // 4
"""Amount a timer waits for: some packets, so that a keyframe costs few wake-ups."""
MIN_WAIT: Final = 0.005
PROBE_RESERVE: Final = 12 * (1200 + PACKET_OVERHEAD)
"""Amount that probes leave in the bucket, so that the next picture need not wait for them."""
MAX_DEBT: Final = 0.3
"""Seconds for which retransmissions may delay new media under a ceiling."""
MIN_QUEUE_TIME: Final = 0.2
AUDIO_THRESHOLD: Final = 0.100
"""Arrival spread in seconds below which sound leaves as it comes. A 64 ms AAC frame becomes three Opus packets at once:
every viewer's jitter buffer takes that, and evening it out would cost a timer, and a wake, for each packet."""
MAX_AUDIO_QUEUED: Final = 100
MAX_PLAIN: Final = 0xFFFF
"""Bytes of the longest payload that compiled code is asked about."""


@dataclass
class PacerSettings:
    """Bounds and rates; bitrates in bit/s, times in seconds."""

    factor: float = 2.5
    """Keyframes are sent at this multiple of the recent bitrate …"""
    floor_bitrate: float = 16e6
    """… but no slower than this: any uplink worth publishing over takes a 40 KB keyframe in 20 ms."""
    spread: float = 0.1
    """Longest wait in the bucket while there is no ceiling."""
    max_delay: float = 0.6
    """Longest wait for smoothing."""
    max_queue_bytes: int = 2 * 1024 * 1024
    thin_after: float = 0.1
    """Bucket delay under a ceiling above which frames that no other frame needs are dropped."""
    max_queue_time: float = 0.75
    """Bucket delay above which everything up to the next keyframe is dropped."""


class Release(NamedTuple):
    """Payloads of one frame that may be sent now (part of it, when the frame is being spread)."""

    kind: str
    payloads: PayloadRun
    media_time: float
    step: float
    """Seconds of media from one payload to the next; 0 for video."""
    came: float
    """When they were pushed."""


class _Held(NamedTuple):
    release: float
    payloads: PayloadRun
    media_time: float
    step: float
    size: int
    came: float

    def with_payloads(self, payloads: PayloadRun, size: int) -> _Held:
        """The same with other payloads. (`_replace` leaves a tuple on CPython's free list each time, up to 2000.)"""
        return _Held(self.release, payloads, self.media_time, self.step, size, self.came)


@in_memory
@dataclass
class PacerStats(PacerStatsState):
    """Totals."""

    offered_bytes: int = 0
    """Video that came in, with `PACKET_OVERHEAD`, whether it was sent or not."""
    dropped_packets: int = 0
    """Video packets of dropped frames."""
    thinned_frames: int = 0
    """Frames dropped because they would have arrived too late, for the ceiling or a bound of the queue."""
    dropped_audio: int = 0
    overflows: int = 0
    """How often the video queue hit a bound."""


class Pacer(PacerState):
    """See the module's description. Payload runs must be pushed in media order, each track for itself.

    `wants_keyframe` is true from a drop until the next keyframe comes.
    """

    def __init__(self, settings: PacerSettings | None = None) -> None:
        self._settings = settings = settings or PacerSettings()
        self._floor_bitrate = settings.floor_bitrate
        self.stats = PacerStats()
        self.ceiling: float | None = None
        """Bit/s that video, retransmissions included, may not exceed; None when the uplink is not the limit."""
        self.network_delay = 0.0
        """Seconds that packets already queue in the network; they count against `max_queue_time`."""
        self.limited = False
        """Whether the ceiling has held anything back since this was last set to False."""
        self.wants_keyframe = False
        self._video_line = Smoother(max_delay=settings.max_delay)
        self._audio_line = Smoother(threshold=AUDIO_THRESHOLD, max_delay=settings.max_delay)
        self._audio: deque[_Held] = deque()
        self._held: deque[_Held] = deque()  # video waiting for its release time
        self._ready: deque[_Held] = deque()  # video waiting for the bucket
        self._held_bytes = self._ready_bytes = 0
        self._frame_media, self._frame_release = -1.0, 0.0  # of the newest video frame
        self._sending: float | None = None  # media time of the frame that is partly sent
        self._skipping = False  # the rest of the newest frame is to be dropped
        self._cut = False  # slices of it have been: it can no longer begin
        self._tokens, self._tokens_at = float(BURST_BYTES), 0.0
        self._rate = 0.0
        self._bitrate = _RateMeter()
        self._compiled = native.compiled()

    @property
    def smoothing(self) -> bool:
        """Whether video is currently delayed to even out bursts."""
        return self._video_line.active

    @property
    def needed(self) -> float:
        """Bit/s that the camera sends, over the last one to two seconds."""
        return self._bitrate.latest

    @property
    def queued_bytes(self) -> int:
        """Queued video bytes."""
        return self._held_bytes + self._ready_bytes

    def spare(self, now: float) -> int:
        """Bytes that may bypass the pacer at `now` without delaying any picture; 0 without a ceiling."""
        if self.ceiling is None or self._ready:
            return 0
        self._tokens = min(LIMITED_BURST_BYTES, self._tokens + (now - self._tokens_at) * self.ceiling / 8)
        self._tokens_at = now
        return max(0, int(self._tokens - PROBE_RESERVE))

    def charge(self, size: int) -> None:
        """Count bytes that bypassed the pacer (retransmissions, probes) against the ceiling."""
        if self.ceiling is not None:
            self._tokens = max(self._tokens - size, -MAX_DEBT * self.ceiling / 8)

    def take_audio(self, payloads: PayloadRun, media_time: float, step: float, now: float) -> bool:
        """Accept Opus packets, `step` seconds of media apart: True when they may be sent now, else they are queued."""
        release = self._audio_line.release(media_time, now)
        if release <= now and not self._audio:
            return True
        self._audio.append(_Held(release, payloads, media_time, step, 0, now))
        if len(self._audio) > MAX_AUDIO_QUEUED:
            self._audio.popleft()
            self.stats.dropped_audio += 1
        return False

    def take_video(self, payloads: PayloadRun, media_time: float, now: float) -> bool:
        """Take payloads of one access unit, or a part of it; the first part sets the frame's release time.

        True when they may leave now, as they do from an even source; else they are queued, or left out.
        """
        if not payloads:
            return False
        size = -1 if self._compiled is None else self._compiled.measure(payloads, MAX_PLAIN)
        if size < 0:
            size = sum(len(payload) for payload, _ in payloads)
        size += PACKET_OVERHEAD * len(payloads)
        self._bitrate.add(size, now)
        self.stats.offered_bytes += size
        if media_time != self._frame_media:
            self._frame_media, self._frame_release = media_time, self._video_line.release(media_time, now)
            self._cut = False
            self._skipping = (self.ceiling is not None or self.wants_keyframe) and not self._admit(payloads)
            self.stats.thinned_frames += self._skipping
        elif self._skipping and self.wants_keyframe and not self._cut and _has_keyframe(payloads):
            # An access unit delimiter arrived on its own, before the parameter sets.
            self.wants_keyframe = self._skipping = False
            self.stats.thinned_frames -= 1
        if self._frame_release <= now and not (self._held or self._ready or self._skipping):
            rate, burst = self._floor_bitrate, BURST_BYTES
            if self.ceiling is not None:
                rate, burst = min(self.ceiling, rate), LIMITED_BURST_BYTES
            tokens = min(burst, self._tokens + (now - self._tokens_at) * rate / 8)
            if tokens >= size:
                self._tokens, self._tokens_at, self._sending = tokens - size, now, media_time
                return True
        self._queue(payloads, media_time, size, now)
        return False

    def wake_parts(self) -> dict[str, Any]:
        """Its fields of `native.OutputParts`: what `take_video` reads and writes."""
        return {
            "pacer": self,
            "line": self._video_line,
            "meter": self._bitrate,
            "pacer_stats": self.stats,
        }

    def sound_parts(self) -> dict[str, Any]:
        """The same for `take_audio`; None is what that does without."""
        return {"pacer": self, "line": self._audio_line, "meter": None, "pacer_stats": None}

    def take_past(self, payloads: PayloadRun, media_time: float, now: float) -> None:
        """Queue video that came earlier and all leaves now: how unevenly it comes says nothing of the source."""
        self._frame_media, self._frame_release, self._skipping, self._cut = media_time, now, False, False
        self._queue(payloads, media_time, sum(len(payload) + PACKET_OVERHEAD for payload, _ in payloads), now)

    def _queue(self, payloads: PayloadRun, media_time: float, size: int, now: float) -> None:
        if self._skipping:
            self.stats.dropped_packets += len(payloads)
            return
        run = _Held(max(now, self._frame_release), payloads, media_time, 0.0, size, now)
        if run.release <= now and not self._held:
            self._make_ready(run)
        else:
            self._held.append(run)
            self._held_bytes += size
        if self.queued_bytes > self._settings.max_queue_bytes:
            self._drop_to_keyframe()

    def _admit(self, payloads: PayloadRun) -> bool:
        """Whether the frame that begins with these payloads is sent at all."""
        if self.wants_keyframe:
            self.wants_keyframe = not _has_keyframe(payloads)
            self.limited |= self.wants_keyframe
            return not self.wants_keyframe
        if self.ceiling is None:
            return True
        wait = 8 * self._ready_bytes / max(self.ceiling, 1000.0)
        if wait <= self._settings.thin_after:
            return True
        self.limited = True
        if is_disposable(payloads):
            return False
        if wait <= self._longest_wait or _has_keyframe(payloads):
            return True
        self.stats.overflows += 1
        self.wants_keyframe = True
        return False

    @property
    def _longest_wait(self) -> float:
        return max(MIN_QUEUE_TIME, self._settings.max_queue_time - self.network_delay)

    def pop(self, now: float) -> list[Release]:
        """Payloads to send now, audio first."""
        releases = []
        while self._audio and self._audio[0].release <= now:
            run = self._audio.popleft()
            releases.append(Release("audio", run.payloads, run.media_time, run.step, run.came))
        while self._held and self._held[0].release <= now:
            run = self._held.popleft()
            self._held_bytes -= run.size
            self._make_ready(run)
        if self._ready:
            self._drain(releases, now)
        return releases

    def next_deadline(self) -> float | None:
        """When `pop` will next have something."""
        deadlines = [queue[0].release for queue in (self._audio, self._held) if queue]
        if self._ready:
            deadlines.append(self._ready[0].release if not self._rate else self._tokens_at + self._refill_time())
        return min(deadlines, default=None)

    def _refill_time(self) -> float:
        missing = min(QUANTUM_BYTES, self._ready_bytes) - self._tokens
        return max(MIN_WAIT, missing / self._rate)

    def _make_ready(self, run: _Held) -> None:
        self._ready.append(run)
        self._ready_bytes += run.size

    def _drain(self, releases: list[Release], now: float) -> None:
        """Take from the ready queue what the bucket covers; the last packet may leave it in debt."""
        settings = self._settings
        # The rate never falls while something waits, so a packet's wait is bounded by what it was when it came.
        rate = max(self._rate, settings.factor * self._bitrate.value(now) / 8, settings.floor_bitrate / 8)
        rate = max(rate, self._ready_bytes / settings.spread)
        if self.ceiling is not None:
            rate = min(rate, max(self.ceiling, 1000.0) / 8)
            waiting = next((run for run in self._ready if run.media_time != self._sending), None)
            if waiting is not None and now - waiting.release > 1.5 * self._longest_wait:
                self._drop_to_keyframe()
        burst = BURST_BYTES if self.ceiling is None else LIMITED_BURST_BYTES
        self._tokens = min(burst, self._tokens + (now - self._tokens_at) * rate)
        self._tokens_at, self._rate = now, rate
        while self._ready and self._tokens > 0:
            run = self._ready.popleft()
            self._ready_bytes -= run.size
            if run.size > self._tokens:
                run = self._split(run)
            self._tokens -= run.size
            self._sending = run.media_time
            releases.append(Release("video", run.payloads, run.media_time, 0.0, run.came))
        if not self._ready:
            self._rate = 0.0

    def _split(self, run: _Held) -> _Held:
        """The part of `run` that the bucket covers; the rest goes back to the head of the queue."""
        count = size = 0
        for payload, _ in run.payloads:
            if size >= self._tokens:
                break
            count += 1
            size += len(payload) + PACKET_OVERHEAD
        if count < len(run.payloads):
            rest = run.with_payloads(run.payloads[count:], run.size - size)
            self._ready.appendleft(rest)
            self._ready_bytes += rest.size
        return run.with_payloads(run.payloads[:count], size)

    def _drop_to_keyframe(self) -> None:
        """Drop queued video up to the newest keyframe; what follows that one too, when it alone is behind.

        A frame that has begun to leave is finished, so that the viewer's decoder is not fed half a picture; but not one
        that is larger than the queue may be.
        """
        queued = [*self._ready, *self._held]
        begun = [run for run in queued if run.media_time == self._sending]
        rest = queued[len(begun) :]
        # By pictures: what precedes a first slice may have come by itself, and a later slice looks like a first one.
        keyframes = [run.media_time for run in rest if _has_keyframe(run.payloads)]
        newest = keyframes[-1] if keyframes else None
        start, end = next((i for i, run in enumerate(rest) if run.media_time == newest), len(rest)), len(rest)
        if start == 0:
            end = next((i for i, run in enumerate(rest) if run.media_time != rest[0].media_time), len(rest))
        kept, dropped = rest[start:end], rest[:start] + rest[end:]
        if sum(run.size for run in begun + kept) > self._settings.max_queue_bytes:
            begun, kept, dropped, self._cut = [], [], queued, True
        if not dropped:
            return
        self.stats.overflows += 1
        self.stats.dropped_packets += sum(len(run.payloads) for run in dropped)
        self.stats.thinned_frames += len({run.media_time for run in dropped})
        self.limited = self.ceiling is not None
        self.wants_keyframe = not kept or end < len(rest)
        self._skipping = self.wants_keyframe and (self._cut or self._frame_media != self._sending)
        # Whatever survives passes through `pop` again, where due frames become ready.
        self._ready, self._held = deque(), deque(begun + kept)
        self._ready_bytes, self._held_bytes = 0, sum(run.size for run in self._held)


def _has_keyframe(payloads: PayloadRun) -> bool:
    # An access unit delimiter or SEI may precede the parameter sets.
    return any(starts_keyframe(payload) for payload, _ in payloads)


class _RateMeter(MeterState):
    """Bits per second over the last one to two seconds."""

    def __init__(self) -> None:
        self._start = self.latest = 0.0
        self._bytes = self._before = 0

    def add(self, size: int, now: float) -> None:
        if now - self._start >= 1.0:
            self._before = self._bytes if now - self._start < 2.0 else 0
            self.latest = 8.0 * self._before
            self._start, self._bytes = now, 0
        self._bytes += size

    def value(self, now: float) -> float:
        elapsed = now - self._start
        if elapsed >= 2.0:
            return 0.0
        return 8.0 * (self._bytes + self._before * max(0.0, 1.0 - elapsed))
