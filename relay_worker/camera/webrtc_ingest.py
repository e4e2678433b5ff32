"""Receives a WebRTC camera: assigns packets to tracks and generates RTCP feedback. No I/O and no clock.

About once a second it reports how the packets arrive (RR) and allows the camera a high rate (REMB). Missing packets are
requested at once (NACK), a keyframe at most once a second (FIR and PLI together: Nest cameras answer a PLI with an IDR
that lacks its parameter sets; `nest-sdm.md` 2).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from relay_common.counters import joined
from relay_worker.camera.ingest_answer import IngestAnswer
from relay_worker.camera.nack import NackTracker
from relay_worker.media.stream import Batch, Kind, Track
from relay_worker.rtp import rtcp
from relay_worker.rtp.packet import HEADER, RtpError, parse_rtp
from relay_worker.rtp.rtcp import ReportBlock

BITRATE: Final = 4_000_000
"""Bits per second that REMB allows: without it the first keyframe comes at 375 kbit/s."""
REPORT_INTERVAL: Final = 1.0
KEYFRAME_INTERVAL: Final = 1.0
"""Shortest interval in seconds between requests for a keyframe."""
MAX_SSRCS: Final = 16
"""Streams distinguished in one session; further ones are ignored."""
MAX_STREAMS: Final = 8
"""Pairs of SSRC and payload type that are told apart without a look at their packets; others are looked at."""
CNAME: Final = "relay"

_RTX: Final = struct.Struct("!BBHII")
_OSN: Final = 2
"""Octets of the original sequence number that a retransmission begins with."""


class Ingest:
    """One session's packets. `report` gives a track's report block, None when there is none.

    Give every packet to `receive`, then send what `feedback` returns; both as often as packets come, and `feedback`
    about once a second besides.
    """

    def __init__(self, answer: IngestAnswer, ssrc: int, report: Callable[[Track, float], ReportBlock | None]) -> None:
        self._answer, self._ssrc, self._report = answer, ssrc, report
        self._tracks: dict[int, Track] = dict(answer.ssrcs)
        self._repair_ssrcs: set[int] = set()
        self._video_ssrc = next((s for s, track in answer.ssrcs.items() if track.kind is Kind.VIDEO), 0)
        self.nack = NackTracker()
        self.streams: dict[tuple[int, int], Kind] = {}
        """SSRC and payload type of packets that need no look at before they are received, `MAX_STREAMS` at most."""
        self.ignored: Counter[str] = Counter()
        """Packets that belong to no track, by reason: malformed, probe, payload type, ssrc, rtx, rtcp."""
        self.reported_at = self._keyframe_at = float("-inf")
        """When the last report was sent."""
        self._keyframe_wanted_at: float | None = None
        self._fir_number = 0
        self.keyframe_requests = 0
        """FIRs sent."""

    # --- in --------------------------------------------------------------------------------------------------------

    def receive_packet(self, packet: bytes, now: float) -> Batch | None:
        """Process a decrypted RTP packet; returns what it brings for a track, or None."""
        try:
            _, second, sequence, _, ssrc = HEADER.unpack_from(packet)
        except struct.error:
            self.ignored["malformed"] += 1
            return None
        if ssrc in self._repair_ssrcs:
            return self._repaired(packet, now)
        track = self._tracks.get(ssrc)
        if track is None:
            if second & 0x7F in self._answer.rtx and len(self._repair_ssrcs) < MAX_SSRCS:
                self._repair_ssrcs.add(ssrc)
                return self._repaired(packet, now)
            track = self._bind(packet, ssrc, second & 0x7F)
            if track is None:
                return None
        if self._answer.payload_types.get(second & 0x7F) is not track:
            self.ignored["payload type"] += 1
            return None
        if track.kind is Kind.VIDEO and self._answer.nack and ssrc == self._video_ssrc:
            self.nack.received(sequence, now)
        stream = ssrc, second & 0x7F
        is_current = track.kind is Kind.AUDIO or ssrc == self._video_ssrc
        if is_current and stream not in self.streams and len(self.streams) < MAX_STREAMS:
            self.streams[stream] = track.kind
        return Batch(track, [packet], [])

    def _bind(self, packet: bytes, ssrc: int, payload_type: int) -> Track | None:
        """Classify an SSRC by the payload type of its first packet with content."""
        track = self._answer.payload_types.get(payload_type)
        if track is None:
            self.ignored["payload type"] += 1
            return None
        try:
            empty = not parse_rtp(packet).payload
        except RtpError:
            self.ignored["malformed"] += 1
            return None
        if empty or len(self._tracks) >= MAX_SSRCS:
            self.ignored["probe" if empty else "ssrc"] += 1
            return None
        self._tracks[ssrc] = track
        if track.kind is Kind.VIDEO:
            self._video_ssrc, self.nack = ssrc, NackTracker()
            self.streams = {stream: kind for stream, kind in self.streams.items() if kind is not Kind.VIDEO}
            self.reported_at = float("-inf")  # allow this stream its bitrate at once
        return track

    def _repaired(self, packet: bytes, now: float) -> Batch | None:
        """The original packet inside a retransmission (RFC 4588 §4), when that packet is missing.

        That one may be empty: a probe among the video is lost as others are, and is a hole in the sequence until then.
        """
        try:
            view = parse_rtp(packet)
        except RtpError:
            self.ignored["malformed"] += 1
            return None
        payload_type = self._answer.rtx.get(view.payload_type)
        if payload_type is None or len(view.payload) < _OSN:
            self.ignored["probe"] += 1
            return None
        sequence = int.from_bytes(view.payload[:_OSN], "big")
        if sequence not in self.nack:
            self.ignored["rtx" if len(view.payload) > _OSN else "probe"] += 1
            return None
        self.nack.received(sequence, now)
        header = _RTX.pack(0x80, view.marker << 7 | payload_type, sequence, view.timestamp, self._video_ssrc)
        return Batch(self._answer.payload_types[payload_type], [header + view.payload[_OSN:]], [])

    def follows(self, highest: int) -> bool:
        """Whether video behind the packet of this (extended) number can be received without a look at its numbers."""
        return not self._answer.nack or (self.nack.highest == highest & 0xFFFF and not self.nack)

    def received(self, highest: int) -> None:
        """Video was received without a look at it, in order and without loss, up to the packet of this number."""
        if self._answer.nack:
            self.nack.highest = highest & 0xFFFF

    def rests(self, now: float) -> bool:
        """Whether `feedback` has nothing to send."""
        return self._keyframe_wanted_at is None and now - self.reported_at < REPORT_INTERVAL and not self.nack

    def receive_rtcp(self, packet: bytes) -> list[Batch]:
        """Process a decrypted compound RTCP packet; each sender report is passed to its track."""
        batches: list[Batch] = []
        position = 0
        while position + 8 <= len(packet):
            first, kind, words = struct.unpack_from("!BBH", packet, position)
            end = position + 4 + 4 * words
            if first >> 6 != 2 or end > len(packet):
                self.ignored["rtcp"] += 1
                break
            track = self._tracks.get(int.from_bytes(packet[position + 4 : position + 8], "big"))
            if kind == rtcp.SR and track is not None:
                batches.append(Batch(track, [], [packet[position:end]]))
            position = end
        return batches

    # --- out -------------------------------------------------------------------------------------------------------

    def request_keyframe(self, now: float) -> None:
        """Request a keyframe; requests made while one is pending are merged."""
        if self._keyframe_wanted_at is None:
            self._keyframe_wanted_at = now

    def keyframe_came(self, at: float) -> None:
        """A keyframe arrived at `at`: earlier requests are satisfied."""
        if self._keyframe_wanted_at is not None and self._keyframe_wanted_at <= at:
            self._keyframe_wanted_at = None

    def may_request(self, now: float) -> bool:
        """Whether a keyframe may be requested now."""
        return bool(self._video_ssrc) and now - self._keyframe_at >= KEYFRAME_INTERVAL

    def feedback(self, now: float) -> bytes:
        """The compound RTCP packet to send now (RFC 3550 §6.1: a report leads); empty when there is nothing to send."""
        parts: list[bytes] = []
        report = now - self.reported_at >= REPORT_INTERVAL
        if self.nack and (missing := self.nack.due(now)):
            parts.append(rtcp.pack_nack(self._ssrc, self._video_ssrc, missing))
        if self._keyframe_wanted_at is not None and self.may_request(now):
            self._keyframe_at, self._keyframe_wanted_at = now, None
            self._fir_number += 1
            self.keyframe_requests += 1
            parts.append(rtcp.pack_fir(self._ssrc, self._video_ssrc, self._fir_number))
            parts.append(rtcp.pack_pli(self._ssrc, self._video_ssrc))
        if report:
            self.reported_at = now
            parts.append(rtcp.pack_remb(self._ssrc, BITRATE, [self._video_ssrc] if self._video_ssrc else []))
        if not parts:
            return b""
        blocks = [self._report(track, now) for track in self._answer.tracks] if report else []
        head = rtcp.pack_receiver_report(self._ssrc, [block for block in blocks if block is not None])
        return b"".join((head, rtcp.pack_sdes(self._ssrc, CNAME), *parts))

    def counters(self) -> dict[str, int]:
        """Counters of this session, as `part.name`."""
        here = {"keyframe_requests": self.keyframe_requests, **self.ignored}
        return joined(ingest=here, nack=self.nack.counters())
