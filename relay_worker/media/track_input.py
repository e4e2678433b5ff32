"""Base of all track inputs: receives packets in order, feeds the timeline, keeps counters.

An input belongs to one source session; a reconnect creates new ones, so no state survives from the old stream.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Sequence
from typing import Final

from relay_common.counters import joined
from relay_common.worker_stats import TrackStats
from relay_worker.media.stream import Frame, Kind, Track
from relay_worker.native.states import InputState
from relay_worker.rtp import rtcp
from relay_worker.rtp.packet import RtpRun, RtpView, join_runs
from relay_worker.rtp.receiver import MAX_MISORDER_REPAIRED, RtpReceiver
from relay_worker.rtp.reorder import ReorderBuffer
from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtp.timeline import Timeline
from relay_worker.rtp.wait_clock import WaitClock

log = logging.getLogger(__name__)

REORDER: Final = {Kind.VIDEO: (MAX_MISORDER_REPAIRED, 0.25), Kind.AUDIO: (4, 0.06)}
"""Packets and seconds to wait for a missing packet where packets may be reordered: video is retransmitted."""

MAX_RATE: Final = 20_000_000
"""Sustained bit/s allowed for one track; the busiest camera of this field sends a fifth of it."""
MAX_BURST: Final = 5_000_000
"""Bytes by which a track may be ahead of MAX_RATE: two seconds."""

_SPOKEN: Final = {"MPEG4-GENERIC": "AAC", "MP4A-LATM": "AAC"}
"""What people call a codec, by its name in SDP where that is another."""


class TrackInput(InputState, abc.ABC):
    """Receives one track's packets; subclasses turn them into frames."""

    def __init__(self, track: Track, timeline: Timeline) -> None:
        self.track = track
        payload_type = track.format.payload_type if track.ordered else None
        self.receiver = RtpReceiver(track.clock_rate, payload_type, in_order=track.ordered)
        self._reorder = ReorderBuffer(*REORDER[track.kind])
        self._runs = self.receiver.receive_all if track.ordered else self._reordered
        self._timeline = timeline
        self._ssrc: int | None = None
        self.malformed_rtcp = 0
        self.over_rate = 0
        self._ahead, self._metered, self._metered_at = 0.0, 0, 0.0
        self._too_fast = False
        self.due = 0.0
        """When `end_waiting` is to be called (monotonic seconds); 0 when nothing waits."""
        timeline.add_track(track.kind, track.clock_rate)

    def admit(self, packets: int, now: float) -> bool:
        """Whether the packets of this wake are within MAX_RATE; else they are counted and have to be left out.

        Once a track was too fast it is left out for a second at least: pieces of pictures are of no use.
        """
        received = self.receiver.bytes
        drained = (now - self._metered_at) * MAX_RATE / 8
        self._ahead = max(0.0, self._ahead + received - self._metered - drained)
        self._metered, self._metered_at = received, now
        if self._ahead <= (MAX_BURST / 2 if self._too_fast else MAX_BURST):
            self._too_fast = False
            return True
        if not self.over_rate:
            log.warning(
                "the camera sends more than %d Mbit/s of %s: what is beyond is left out",
                *(MAX_RATE // 1_000_000, self.track.format.encoding),
            )
        self._too_fast = True
        self.over_rate += packets
        return False

    @abc.abstractmethod
    def receive_packets(self, packets: list[bytes], now: float, out: Callable[[Frame], None]) -> None:
        """Process the packets of one wake-up, in order; `out` receives the frames."""

    def end_waiting(self, now: float, out: Callable[[Frame], None]) -> None:
        """Send the packet that was held until `due`."""
        self.due = 0.0

    def order_parts(self) -> tuple[ReorderBuffer | None, WaitClock | None]:
        """What compiled code needs to tell that nothing is missing; nothing where packets always come in order."""
        return (None, None) if self.track.ordered else (self._reorder, self._reorder.wait_clock)

    def _reordered(self, packets: Sequence[bytes], now: float) -> list[RtpRun]:
        """Reorder packets and drop unusable ones; an empty list only releases what has waited long enough."""
        receiver, reorder = self.receiver, self._reorder
        ready: list[RtpView] = []
        for packet in packets:
            restarts = receiver.restarts
            views = receiver.receive_packet(packet, now)
            if receiver.restarts != restarts:
                reorder.restart()
            for view in views:
                ready += reorder.receive_view(view, now)
        return join_runs(ready + reorder.poll(now))

    def receive_rtcp(self, packet: bytes, now: float) -> None:
        """Take a compound RTCP packet of the source: its sender reports place the track on the timeline."""
        try:
            parsed = rtcp.parse_compound(packet)
        except rtcp.RtcpError as error:
            self.malformed_rtcp += 1
            parsed = error.packets
        for item in parsed:
            # Before the first RTP packet there is no SSRC to compare with: the timeline keeps such a report.
            if isinstance(item, rtcp.SenderReport) and self.receiver.ssrc in (None, item.ssrc):
                self._timeline.sender_report(self.track.kind, item.ntp, item.rtp, now)
                self.receiver.sender_report(item.ntp, now)
                log.debug(
                    "sender report of %s: NTP %016x is RTP %d; %d packets, %d lost, jitter %.1f ms so far",
                    *(self.track.format.encoding, item.ntp, item.rtp, self.receiver.packets, self.receiver.lost),
                    self.receiver.jitter * 1e3,
                )

    def receiver_report(self, now: float) -> ReportBlock | None:
        """The report block to send back to the source."""
        return self.receiver.receiver_report(now)

    def _another_source(self, ssrc: int) -> None:
        if self._ssrc is not None:
            self._timeline.discontinuity(self.track.kind)
        log.debug("%s comes from SSRC %08x", self.track.format.encoding, ssrc)
        self._ssrc = ssrc

    @property
    @abc.abstractmethod
    def made(self) -> tuple[int, int]:
        """Frames so far, pictures or packets of sound, and how many of them are keyframes."""

    def count(self, stats: TrackStats) -> None:
        """Add this session's totals to `stats`."""
        receiver = self.receiver
        stats.packets_in += receiver.packets
        stats.bytes_in += receiver.bytes
        stats.lost_in += receiver.lost
        stats.jitter_in = receiver.jitter
        stats.codec = _SPOKEN.get(self.track.format.encoding, self.track.format.encoding)
        for name, number in self.tolerated():
            if number:
                stats.tolerated[name] = stats.tolerated.get(name, 0) + number

    def tolerated(self) -> list[tuple[str, int]]:
        """Deviations that were corrected, by their names in docs/quirks.md."""
        receiver = self.receiver
        return [
            ("malformed_packet", receiver.malformed),
            ("unexpected_packet", receiver.unexpected),
            ("duplicate_packet", receiver.duplicates),
            ("restarted_sequence", receiver.restarts),
            ("over_rate", self.over_rate),
        ]

    @property
    def malformed(self) -> int:
        """Packets of this track whose contents could not be used."""
        return self.receiver.malformed + self.malformed_rtcp

    def counters(self) -> dict[str, int]:
        """What its parts have counted, as `part.name`."""
        return joined(receiver=self.receiver.counters(), reorder=self._reorder.counters())
