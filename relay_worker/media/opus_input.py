"""Opus as it came: packets follow each other by what they hold (RFC 7587 §4.1), and timestamps correct that slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay_common.counters import joined
from relay_common.worker_stats import TrackStats
from relay_worker.media.sound_clock import OpusLevel, SoundClock
from relay_worker.media.stream import AUDIO_CLOCK_RATE, Frame, Kind, Track
from relay_worker.media.track_input import TrackInput
from relay_worker.rtp.opus import frame_ticks, join_frames, packet_ticks, split_frames
from relay_worker.rtp.timeline import Timeline

CHECK_INTERVAL: Final = 0.1
"""Seconds between comparisons of the clocks while packets simply follow each other."""
MAX_ERROR: Final = AUDIO_CLOCK_RATE
"""Ticks by which sound may lag behind its timestamps before it is placed anew."""
MAX_LEAD: Final = AUDIO_CLOCK_RATE // 5
"""Ticks by which a pause may bring sound before its time on the timeline."""
MAX_GAP: Final = 2 * AUDIO_CLOCK_RATE
"""Ticks of a pause (discontinuous transmission, loss) that is kept to the tick; a longer one is placed anew."""


class OpusInput(TrackInput):
    """One Opus track. One packet is sent for each received, apart from corrections of one frame."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        super().__init__(track, timeline)
        self.frames = 0
        self.unusable = 0
        """Packets whose duration cannot be determined."""
        self.clock = SoundClock()
        self._level = OpusLevel()
        self._position: int | None = None  # media time in ticks at which the sound so far ends
        self._expected = 0  # the camera's timestamp for that
        self._timestamp = -1
        self._before = b""
        self._check_at = 0.0

    def receive_packets(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        for run in self._runs(packets, now):
            lost, timestamp = run.lost, run.timestamp
            for payload, _ in run.payloads:
                ticks = packet_ticks(payload)
                if not ticks:
                    self.unusable += bool(payload)
                    continue
                if run.ssrc != self._ssrc:
                    self._another_source(run.ssrc)
                    self._timestamp, self._check_at = -1, 0.0
                position = self._position
                if timestamp == self._expected and not lost and now < self._check_at and position is not None:
                    # Nearly always: it follows the previous one, and the clocks were compared recently.
                    self._before, self._timestamp = payload, timestamp
                    self._expected, self._position = (timestamp + ticks) & 0xFFFFFFFF, position + ticks
                    self.frames += 1
                    out(Frame(Kind.AUDIO, [(payload, False)], position / AUDIO_CLOCK_RATE))
                    continue
                self._check_at = now + CHECK_INTERVAL
                for packet, position in self._place(payload, ticks, timestamp, lost, now):
                    self.frames += 1
                    out(Frame(Kind.AUDIO, [(packet, False)], position / AUDIO_CLOCK_RATE))
                lost = 0

    def _place(self, packet: bytes, ticks: int, timestamp: int, lost: int, now: float) -> list[tuple[bytes, int]]:
        """The packet, and one more or none where sound is corrected, with their media times in ticks."""
        target = round(self._timeline.map(Kind.AUDIO, timestamp, now) * AUDIO_CLOCK_RATE)
        frozen = timestamp == self._timestamp and not lost
        position, correction = self._position, 0
        ahead = (timestamp - self._expected + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if position is None or self._timestamp < 0 or not -MAX_GAP <= ahead <= MAX_GAP:
            position = target if position is None or target > position + ticks else position
            self._expected = timestamp
        elif not frozen:
            frame = frame_ticks(packet)
            if target - position > MAX_ERROR:
                position = target  # filler was sent in its place
            elif ahead >= frame:
                pause = ahead // frame * frame
                self._expected += pause
                # After a stall all that was held back comes at once, and the timeline has put it together.
                position = position + pause if position + pause < target + MAX_LEAD else max(position, target)
            correction = self.clock.correction(
                (target - position) / AUDIO_CLOCK_RATE,
                frame / AUDIO_CLOCK_RATE,
                now,
                lambda: self._level.is_quiet(packet),
            )
        if self.clock.due_since is not None:
            self._check_at = now  # silence is listened for, packet by packet
        before, self._before, self._timestamp = self._before, packet, timestamp
        self._expected = (self._expected + ticks) & 0xFFFFFFFF
        sent: list[tuple[bytes, int]] = []
        if correction:
            self._level.forget()
            packet, position = self._corrected(packet, before, position, correction, sent)
        if packet:
            sent.append((packet, position))
            position += packet_ticks(packet)
        self._position = position
        return sent

    @staticmethod
    def _corrected(
        packet: bytes, before: bytes, position: int, frames: int, sent: list[tuple[bytes, int]]
    ) -> tuple[bytes, int]:
        """The packet and its place with so many frames inserted before it (into `sent`), or taken from it."""
        if frames > 1:
            return packet, position + frames * frame_ticks(packet)
        if frames == 1:
            # The last frame once more: in silence nobody hears it, and a gap would be concealed.
            parts = split_frames(before)
            if parts:
                again = join_frames(before[0], parts[-1:])
                sent.append((again, position))
                return packet, position + packet_ticks(again)
            return packet, position + frame_ticks(packet)
        parts = split_frames(packet)[:frames]
        return join_frames(packet[0], parts) if parts else b"", position

    @property
    def made(self) -> tuple[int, int]:
        return self.frames, 0

    def count(self, stats: TrackStats) -> None:
        super().count(stats)
        stats.frames += self.frames

    def tolerated(self) -> list[tuple[str, int]]:
        return [
            *super().tolerated(),
            ("sound_frame_inserted", self.clock.inserted),
            ("sound_frame_removed", self.clock.removed),
            ("sound_moved", self.clock.moved),
        ]

    def counters(self) -> dict[str, int]:
        """Counters of its parts, as `part.name`."""
        return super().counters() | joined(opus={"unusable": self.unusable}, clock=self.clock.counters())

    @property
    def malformed(self) -> int:
        return super().malformed + self.unusable
