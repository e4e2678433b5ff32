"""Replays packetised clips on an RTSP connection in real time, looped, with continuous RTP time.

Timestamps and sender reports follow one camera clock: the media position advances with the wall clock (so that the
burnt-in clock is right), multiplied by the camera's drift.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from relay_common.simulation.camera.faults import FaultKind, FaultSet
from relay_common.simulation.camera.packetizer import RTP_HEADER, RtpTrack

SLACK: Final = 0.001
"""Units due within this many seconds are sent in the same wake-up."""

_HELD_LIMIT: Final = 10_000
"""Most writes that a burst or a stall holds back; further ones are dropped and counted."""

_NTP_EPOCH: Final = 2_208_988_800
_INTERLEAVED_RTP: Final = struct.Struct("!cBHBBHII")
_CNAME: Final = b"simulated-camera"

Sent = tuple[float, str, int, int, int, int, bool, int]
"""(monotonic seconds, track kind, SSRC, sequence number, timestamp, size of the RTP packet, marker, CRC-32 of the
payload).
"""


@dataclass
class PlaybackCounters:
    """Counters of a camera's output over all its sessions, by track kind."""

    packets: dict[str, int] = field(default_factory=lambda: {"video": 0, "audio": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"video": 0, "audio": 0})
    frames: dict[str, int] = field(default_factory=lambda: {"video": 0, "audio": 0})
    keyframes: int = 0
    dropped: int = 0
    sender_reports: int = 0
    recording: bool = False
    sent: deque[Sent] = field(default_factory=deque)
    """While `recording`: the packets, each with the time it was written, up to the deque's bound."""


class Output(Protocol):
    """A player's output: an RTSP connection."""

    def write(self, data: bytes) -> None:
        """Queue bytes; a connection that does not drain is cut by the owner."""
        ...


class TrackPlayback:
    """The position of one track: which unit is next, and its RTP numbers."""

    def __init__(self, track: RtpTrack, channel: int, rtcp_channel: int, rng: random.Random, position: float) -> None:
        self.track = track
        self.channel, self.rtcp_channel = channel, rtcp_channel
        self.ssrc = rng.getrandbits(32)
        self.sequence = rng.getrandbits(16)
        self.offset = rng.getrandbits(32)
        self.packets = self.octets = 0
        self.next_report = 0.0
        self._first_loop = int(position // track.seconds)
        self.index = self._index_at(position)

    def _index_at(self, position: float) -> int:
        loop, within = divmod(position, self.track.seconds)
        index = int(loop) * len(self.track.units) + bisect_left(self.track.units, within, key=lambda unit: unit.time)
        while self.track.kind == "video" and not self.track.units[index % len(self.track.units)].keyframe:
            index += 1
        return index

    @property
    def position(self) -> float:
        """Media position, in seconds, at which the next unit is sent."""
        loop, index = divmod(self.index, len(self.track.units))
        return loop * self.track.seconds + self.track.units[index].time

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next unit."""
        loop, index = divmod(self.index, len(self.track.units))
        ticks = (loop - self._first_loop) * self.track.ticks + self.track.units[index].timestamp
        return (self.offset + ticks) & 0xFFFFFFFF

    def timestamp_at(self, position: float) -> int:
        """RTP timestamp that belongs to a media position, for sender reports."""
        elapsed = position - self._first_loop * self.track.seconds
        return (self.offset + round(elapsed * self.track.clock_rate)) & 0xFFFFFFFF


class Player:
    """Plays a camera's tracks to one client, with the camera's faults."""

    def __init__(
        self,
        output: Output,
        tracks: Iterable[TrackPlayback],
        faults: FaultSet,
        counters: PlaybackCounters,
        *,
        phase: float,
        now: float,
        wall: float,
        rng: random.Random,
        report_interval: float = 5.0,
        next_video: Callable[[float], RtpTrack | None] = lambda now: None,
    ) -> None:
        self._output, self._tracks, self._faults, self._counters = output, list(tracks), faults, counters
        self._rng, self._report_interval, self._next_video = rng, report_interval, next_video
        self._wall_offset = wall - now
        self._anchor = (now, wall - phase, 1.0)
        self._held: list[bytes] = []
        self._flush_at = 0.0
        self.closed = False

    def jump(self, seconds: float, track: str) -> None:
        """Move the RTP timestamps of `track` ("both": all) by `seconds`."""
        for playback in self._tracks:
            if track in (playback.track.kind, "both"):
                playback.offset += round(seconds * playback.track.clock_rate)

    def step(self, now: float) -> float | None:
        """Write what is due at `now` (loop time); returns when to call again, or None when closed."""
        if self.closed:
            return None
        self._set_speed(now)
        deadline = self._flush(now)
        while not self.closed:
            playback = min(self._tracks, key=lambda candidate: candidate.position)
            due = self._due(playback.position)
            if due > now + SLACK:
                return min(due, deadline)
            self._play(playback, now)
            playback.index += 1
        return None

    def _set_speed(self, now: float) -> None:
        drift = self._faults.get(FaultKind.DRIFT, now) if self._faults else None
        speed = 1.0 + drift["ppm"] / 1e6 if drift else 1.0
        if speed != self._anchor[2]:
            self._anchor = (now, self._position(now), speed)

    def _position(self, now: float) -> float:
        since, position, speed = self._anchor
        return position + (now - since) * speed

    def _due(self, position: float) -> float:
        since, anchored, speed = self._anchor
        return since + (position - anchored) / speed

    def _play(self, playback: TrackPlayback, now: float) -> None:
        kind = playback.track.kind
        units = playback.track.units
        if kind == "video" and units[playback.index % len(units)].keyframe:
            replacement = self._next_video(now)
            if replacement is not None:
                playback.track = replacement
                units = replacement.units
        silence = self._faults.get(FaultKind.SILENCE, now) if self._faults else None
        if silence and silence.concerns(kind):
            return
        unit = units[playback.index % len(units)]
        self._counters.frames[kind] += 1
        self._counters.keyframes += kind == "video" and unit.keyframe
        packets = self._packets(playback, now)
        garbage = self._faults.get(FaultKind.GARBAGE, now) if self._faults else None
        if garbage:
            packets.insert(0, noise(self._rng, garbage["bytes"]))
            if garbage.seconds is None:
                self._faults.clear(FaultKind.GARBAGE)
        if self._faults and self._faults.get(FaultKind.DRIBBLE, now):
            for packet in packets:
                self._write(packet, now)
        else:
            self._write(b"".join(packets), now)
        if now >= playback.next_report:
            self._report(playback, now)

    def _packets(self, playback: TrackPlayback, now: float) -> list[bytes]:
        """The next unit's packets in interleaved frames (RFC 2326 section 10.12)."""
        loss = self._faults.get(FaultKind.LOSS, now) if self._faults else None
        kind, timestamp = playback.track.kind, playback.timestamp
        out: list[bytes] = []
        unit = playback.track.units[playback.index % len(playback.track.units)]
        octets = 0
        for marker_and_type, payload in unit.packets:
            sequence = playback.sequence = (playback.sequence + 1) & 0xFFFF
            if loss and self._rng.random() < loss["rate"]:
                self._counters.dropped += 1
                continue
            size = RTP_HEADER + len(payload)
            header = (b"$", playback.channel, size, 0x80, marker_and_type, sequence, timestamp, playback.ssrc)
            out.append(_INTERLEAVED_RTP.pack(*header) + payload)
            octets += len(payload)
            if self._counters.recording:
                marker, crc = marker_and_type > 127, zlib.crc32(payload)
                entry = (time.monotonic(), kind, playback.ssrc, sequence, timestamp, size, marker, crc)
                self._counters.sent.append(entry)
        playback.packets += len(out)
        playback.octets += octets
        self._counters.packets[kind] += len(out)
        self._counters.bytes[kind] += octets
        return out

    def _report(self, playback: TrackPlayback, now: float) -> None:
        playback.next_report = now + self._report_interval
        if self._faults and self._faults.get(FaultKind.NO_SENDER_REPORTS, now):
            return
        self._counters.sender_reports += 1
        report = sender_report(
            playback.ssrc,
            now + self._wall_offset,
            playback.timestamp_at(self._position(now)),
            playback.packets,
            playback.octets,
        )
        self._write(struct.pack("!cBH", b"$", playback.rtcp_channel, len(report)) + report, now)

    def _write(self, data: bytes, now: float) -> None:
        if self._faults:
            stall = self._faults.get(FaultKind.STALL, now)
            if stall and not stall["backlog"]:
                return
            if stall or self._faults.get(FaultKind.BURST, now):
                if len(self._held) < _HELD_LIMIT:
                    self._held.append(data)
                else:
                    self._counters.dropped += 1
                return
        if self._held:
            self._release()
        if data:
            self._output.write(data)

    def _flush(self, now: float) -> float:
        """Release what a burst has held for its period; returns when to check again."""
        if not self._faults or self._faults.get(FaultKind.STALL, now):
            return float("inf")
        burst = self._faults.get(FaultKind.BURST, now)
        if burst is None:
            self._release()
            return float("inf")
        if now >= self._flush_at - SLACK:  # the pump wakes us that early, and would keep doing so
            self._flush_at = now + burst["period"]
            self._release()
        return self._flush_at

    def _release(self) -> None:
        held, self._held = self._held, []
        if held:
            self._output.write(b"".join(held))


def sender_report(ssrc: int, wall: float, rtp_timestamp: int, packets: int, octets: int) -> bytes:
    """An RTCP compound of SR and SDES CNAME (RFC 3550 sections 6.4.1 and 6.5)."""
    seconds, fraction = divmod(wall + _NTP_EPOCH, 1.0)
    report = struct.pack(
        "!BBHIIIIII",
        0x80,
        200,
        6,
        ssrc,
        int(seconds) & 0xFFFFFFFF,
        int(fraction * (1 << 32)),
        rtp_timestamp,
        packets & 0xFFFFFFFF,
        octets & 0xFFFFFFFF,
    )
    chunk = struct.pack("!IBB", ssrc, 1, len(_CNAME)) + _CNAME
    chunk += bytes(4 - len(chunk) % 4)
    return report + struct.pack("!BBH", 0x81, 202, len(chunk) // 4) + chunk


def noise(rng: random.Random, size: int) -> bytes:
    """Random bytes that do not start like an interleaved frame."""
    return bytes([rng.choice(b"RTX\x00\xff")]) + rng.randbytes(max(0, size - 1))
