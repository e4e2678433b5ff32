"""Plays a WebRTC camera to one client, in real time and without I/O: keyframes on demand, pacing, probes, faults."""

from __future__ import annotations

import math
import random
import time
import zlib
from collections import deque
from typing import Final

from relay_common.simulation.camera.camera import Camera
from relay_common.simulation.camera.faults import FaultKind
from relay_common.simulation.camera.player import SLACK, noise
from relay_common.simulation.camera.webrtc_track import OutgoingTrack, Output, Packet

_QUEUE_LIMIT: Final = 4096
"""Most packets held back by pacing, a burst or a stall; further ones are dropped and counted."""
_PROBE_PADDING: Final = 200
_HEADER: Final = 12
_NEVER: Final = float("inf")


class MediaClock:
    """Maps loop time to media position (seconds since the epoch), with a camera clock that may drift."""

    def __init__(self, now: float, position: float) -> None:
        self._since, self._position, self._speed = now, position, 1.0

    def position(self, now: float) -> float:
        """The media position at `now`."""
        return self._position + (now - self._since) * self._speed

    def due(self, position: float) -> float:
        """When `position` is reached."""
        return self._since + (position - self._position) / self._speed

    def set_speed(self, speed: float, now: float) -> None:
        """Run at `speed` from `now` on."""
        if speed != self._speed:
            self._since, self._position, self._speed = now, self.position(now), speed


class WebRtcPlayer:
    """Plays to one client; call `step` at the time it last returned. Video starts with an IDR, wanted from the start.

    The live video of `camera` must be prepared. `now` is loop time, `position` the media position at that time. Without
    `audio_track` the session is mute.
    """

    def __init__(
        self,
        output: Output,
        camera: Camera,
        video_track: OutgoingTrack,
        audio_track: OutgoingTrack | None,
        *,
        now: float,
        position: float,
        wall: float,
        rng: random.Random,
    ) -> None:
        self._output, self._camera, self._rng = output, camera, rng
        self._faults, self._counters = camera.faults, camera.counters.playback
        self._clock = MediaClock(now, position)
        self._wall_offset = wall - now
        self._video, self._video_track = camera.live_video(now), video_track
        self._audio, self._audio_track = camera.opus(), audio_track
        self._kinds = {track.agreed.ssrc: track.agreed.kind for track in (video_track, audio_track) if track}
        self._picture = math.ceil(position * self._video.fps)
        self._sound = math.ceil(position / self._sound_seconds)
        self._loop = 0
        self._started = False
        self._wanted: bool | None = True
        self._paced: deque[Packet] = deque()
        self._pace = camera.habits.first_keyframe_rate
        self._next_paced = 0.0
        self._first_left: int | None = None
        self._held: deque[Packet] = deque()
        self._flush_at = 0.0
        self._late: Packet | None = None
        self._next_probe = now + camera.habits.probe_interval
        self.closed = False

    # -- the client's requests ----------------------------------------------------------------------------------

    def request_keyframe(self, *, parameter_sets: bool) -> None:
        """Send an IDR as soon as possible; one with parameter sets satisfies both kinds of request."""
        self._wanted = parameter_sets or bool(self._wanted)

    def set_bitrate(self, bitrate: int) -> None:
        """Apply the client's estimate in bit/s (REMB): the first IDR is sent at this pace, if it is faster."""
        if bitrate > self._pace:
            self._pace, self._next_paced = bitrate, 0.0

    def repeat(self, ssrc: int, sequence: int) -> bool:
        """Answer a NACK; False if the packet is no longer kept or retransmission was not negotiated."""
        for track in (self._video_track, self._audio_track):
            if track is not None and track.agreed.ssrc == ssrc:
                packet = track.again(sequence)
                if packet is not None:
                    self._transmit(packet)
                    return True
        return False

    def jump(self, seconds: float, track: str) -> None:
        """Move the RTP timestamps of `track` ("both": all) by `seconds`."""
        for outgoing in (self._video_track, self._audio_track):
            if outgoing is not None and track in (outgoing.agreed.kind, "both"):
                outgoing.jump(seconds)

    # -- time ---------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float | None:
        """Send what is due at `now` (loop time); returns when to call again, or None when closed."""
        if self.closed:
            return None
        drift = self._faults.get(FaultKind.DRIFT, now) if self._faults else None
        self._clock.set_speed(1.0 + drift["ppm"] / 1e6 if drift else 1.0, now)
        while not self.closed:
            picture = self._clock.due(self._picture / self._video.fps)
            sound = self._clock.due(self._sound * self._sound_seconds) if self._audio_track else _NEVER
            if min(picture, sound) > now + SLACK:
                return min(picture, sound, self._send_paced(now), self._flush(now))
            if sound <= picture:
                self._play_sound(now)
                self._sound += 1
            else:
                self._play_picture(now)
                self._picture += 1
        return None

    @property
    def _sound_seconds(self) -> float:
        return self._audio.seconds / len(self._audio.units) if self._audio else 1.0

    # -- media --------------------------------------------------------------------------------------------------

    def _play_picture(self, now: float) -> None:
        if self._silenced("video", now):
            # Pictures after a pause must not reference pictures that were never sent.
            self._wanted, self._started = True, False
            return
        parameter_sets = self._choose_loop(now)
        if not self._started:
            return
        unit = self._video.unit(self._picture, self._loop, parameter_sets=parameter_sets)
        track, position = self._video_track, self._picture / self._video.fps
        timestamp = track.timestamp(position)
        packets = [track.packet(timestamp, payload, marker=second > 127) for second, payload in unit.packets]
        self._counters.frames["video"] += 1
        self._counters.keyframes += unit.keyframe
        self._video_out(packets, now)
        self._probe(timestamp, now)
        self._report(track, position, now)

    def _choose_loop(self, now: float) -> bool:
        """Switch to a loop with an IDR here if one is wanted; returns whether an IDR here has parameter sets."""
        loop = self._video.loop_with_idr(self._picture)
        if loop is None or (self._wanted is None and loop != self._loop):
            return True
        video = self._camera.live_video(now)
        parameter_sets = self._wanted is not False or video is not self._video or self._camera.habits.sets_after_pli
        self._video, self._loop, self._wanted, self._started = video, loop, None, True
        return parameter_sets and not self._faults.get(FaultKind.NO_PARAMETER_SETS, now)

    def _play_sound(self, now: float) -> None:
        if self._audio is None or self._audio_track is None or self._silenced("audio", now):
            return
        unit = self._audio.units[self._sound % len(self._audio.units)]
        position = self._sound * self._sound_seconds
        timestamp = self._audio_track.timestamp(position)
        packets = [self._audio_track.packet(timestamp, payload) for _, payload in unit.packets]
        self._counters.frames["audio"] += 1
        for packet in packets:
            self._send(packet, now)
        self._report(self._audio_track, position, now)

    def _silenced(self, kind: str, now: float) -> bool:
        if not self._faults:
            return False
        silence, stall = self._faults.get(FaultKind.SILENCE, now), self._faults.get(FaultKind.STALL, now)
        return bool((silence and silence.concerns(kind)) or (stall and not stall["backlog"]))

    def _probe(self, timestamp: int, now: float) -> None:
        """Send a packet without payload after a picture, with padding every other time."""
        interval = self._camera.habits.probe_interval
        if not interval or now < self._next_probe or self._paced:
            return
        self._next_probe = now + interval
        self._camera.webrtc.probes += 1
        padding = _PROBE_PADDING if self._camera.webrtc.probes % 2 else 0
        self._send(self._video_track.packet(timestamp, b"", padding=padding), now)

    def _report(self, track: OutgoingTrack, position: float, now: float) -> None:
        if now < track.next_report:
            return
        track.next_report = now + self._camera.habits.report_interval
        if self._faults and self._faults.get(FaultKind.NO_SENDER_REPORTS, now):
            return
        self._counters.sender_reports += 1
        wall = self._clock.due(position) + self._wall_offset
        self._output.send_rtcp(track.report(position, wall))

    # -- pacing and faults --------------------------------------------------------------------------------------

    def _video_out(self, packets: list[Packet], now: float) -> None:
        if self._first_left is None:
            self._first_left, self._next_paced = len(packets) if self._pace else 0, now
        if self._first_left:
            self._bounded(self._paced, packets)
            self._send_paced(now)
        else:
            for packet in packets:
                self._send(packet, now)

    def _send_paced(self, now: float) -> float:
        """Send what the first IDR's pace allows, and the rest with its last packet; returns when to call again."""
        self._next_paced = max(self._next_paced, now - 0.1)
        while self._paced and (not self._first_left or self._next_paced <= now + SLACK):
            packet = self._paced.popleft()
            self._send(packet, now)
            self._next_paced += 8 * (len(packet.payload) + _HEADER) / self._pace
            self._first_left = max(0, (self._first_left or 0) - 1)
        return self._next_paced if self._paced else _NEVER

    def _send(self, packet: Packet, now: float) -> None:
        if self._faults:
            if self._faults.get(FaultKind.GARBAGE, now):
                self._garbage(now)
            if self._faults.get(FaultKind.BURST, now) or self._faults.get(FaultKind.STALL, now):
                self._bounded(self._held, [packet])
                return
        self._release()
        self._transmit_with_faults(packet, now)

    def _garbage(self, now: float) -> None:
        fault = self._faults.get(FaultKind.GARBAGE, now)
        assert fault is not None
        self._output.send_noise(noise(self._rng, fault["bytes"]))
        if fault.seconds is None:
            self._faults.clear(FaultKind.GARBAGE)

    def _bounded(self, queue: deque[Packet], packets: list[Packet]) -> None:
        for packet in packets:
            if len(queue) < _QUEUE_LIMIT:
                queue.append(packet)
            else:
                self._counters.dropped += 1

    def _flush(self, now: float) -> float:
        """Release what a burst or a stall no longer holds back; returns when to check again."""
        if not self._faults:
            self._release()
            return _NEVER
        if self._faults.get(FaultKind.STALL, now):
            return _NEVER
        burst = self._faults.get(FaultKind.BURST, now)
        if burst is None:
            self._release()
            return _NEVER
        if now >= self._flush_at:
            self._flush_at = now + burst["period"]
            self._release()
        return self._flush_at

    def _release(self) -> None:
        while self._held:
            self._transmit(self._held.popleft())

    def _transmit_with_faults(self, packet: Packet, now: float) -> None:
        if not self._faults and self._late is None:
            self._transmit(packet)
            return
        loss, reorder = self._faults.get(FaultKind.LOSS, now), self._faults.get(FaultKind.REORDER, now)
        if loss and self._rng.random() < loss["rate"]:
            self._counters.dropped += 1
            return
        if reorder and self._late is None and self._rng.random() < reorder["rate"]:
            self._late = packet
            self._camera.webrtc.reordered += 1
            return
        late, self._late = self._late, None
        self._transmit(packet)
        if late is not None:
            self._transmit(late)

    def _transmit(self, packet: Packet) -> None:
        """Send and count; retransmissions with their own SSRC are counted by the caller."""
        kind = self._kinds.get(packet.ssrc)
        if kind is not None:
            self._counters.packets[kind] += 1
            self._counters.bytes[kind] += len(packet.payload)
            if self._counters.recording:
                self._counters.sent.append(
                    (
                        time.monotonic(),
                        kind,
                        packet.ssrc,
                        packet.sequence,
                        packet.timestamp,
                        len(packet.payload) + _HEADER,
                        packet.second_byte > 127,
                        zlib.crc32(packet.payload),
                    )
                )
        self._output.send_rtp(packet)
