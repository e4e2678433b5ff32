"""A simulated camera: its habits, its media, its faults and its counters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

from relay_common.simulation.camera.faults import Fault, FaultKind, FaultSet
from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import (
    DEFAULT_PAYLOAD,
    ParameterSets,
    RtpTrack,
    audio_track,
    opus_track,
    video_track,
)
from relay_common.simulation.camera.player import PlaybackCounters
from relay_common.simulation.camera.rtsp_wire import Credentials
from relay_common.simulation.camera.webrtc_habits import WebRtcCounters, WebRtcHabits
from relay_common.simulation.camera.webrtc_media import LiveVideo, live_specs, live_video


@dataclass(frozen=True)
class CameraSettings:
    """A camera's fixed habits.

    `payload` is the largest RTP payload in bytes; `describe_delay` how long the first DESCRIBE of a stream takes, or
    the first packet of a WebRTC session, in seconds; `session_timeout` the timeout in seconds that the Session header
    announces and the server enforces; `interleaved` who chooses channel ids; `second_client` what happens to a second
    client of one URL; `needs_range` whether PLAY without a Range header starts no media; `redirect` a URL to which
    DESCRIBE redirects; `report_interval` seconds between sender reports; `phase` the camera's position in its loop at
    the epoch, in seconds (None: where the burnt-in clock is right); `webrtc` its behaviour when its device's protocol
    is WebRTC.
    """

    name: str
    video: VideoSpec
    audio: AudioSpec | None = field(default_factory=AudioSpec)
    payload: int = DEFAULT_PAYLOAD
    parameter_sets: ParameterSets = "in_band"
    describe_delay: float = 0.0
    session_timeout: float = 60.0
    interleaved: Literal["client", "server"] = "client"
    second_client: Literal["refuse", "replace"] = "refuse"
    needs_range: bool = True
    credentials: Credentials | None = None
    redirect: str | None = None
    report_interval: float = 5.0
    phase: float | None = None
    webrtc: WebRtcHabits = field(default_factory=WebRtcHabits)


@dataclass
class CameraCounters:
    """Lifetime counters of a camera's RTSP side, and of what it sent by either protocol."""

    describes: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    opened: int = 0
    cut: dict[str, int] = field(default_factory=dict)
    keepalives: int = 0
    receiver_reports: int = 0
    playback: PlaybackCounters = field(default_factory=PlaybackCounters)


class CameraSession(Protocol):
    """A playing client, as its camera sees it."""

    def reset(self) -> None:
        """Reset the TCP connection."""
        ...

    def cut(self, reason: str) -> None:
        """Close the session from the server's side."""
        ...

    def jump(self, seconds: float, track: str) -> None:
        """Move RTP timestamps."""
        ...


class Camera:
    """One camera; sessions come and go, faults and counters persist."""

    def __init__(self, settings: CameraSettings, seed: int = 0) -> None:
        self.settings = settings
        self.faults = FaultSet()
        self.counters = CameraCounters()
        self.sessions: set[CameraSession] = set()
        self.rng = random.Random(f"{seed}/{settings.name}")
        self.habits = settings.webrtc
        self.webrtc = WebRtcCounters()
        self._built: dict[tuple[VideoSpec, ParameterSets], RtpTrack] = {}
        self._live: dict[VideoSpec, LiveVideo] = {}

    @property
    def name(self) -> str:
        """The camera's name, as burnt into its picture."""
        return self.settings.name

    def prepare(self) -> None:
        """Encode and packetise its media; takes seconds unless the clips are cached."""
        self._build(self.settings.video, self.settings.parameter_sets)
        if self.settings.audio:
            self._sound(self.settings.audio)

    def prepare_live(self) -> None:
        """The same for its WebRTC side."""
        self._build_live(self.settings.video)
        self.opus()

    @property
    def live_specs(self) -> tuple[VideoSpec, ...]:
        """The clips that `prepare_live` needs."""
        return live_specs(self.settings.video, self.habits.idle_gop)

    async def inflict(self, fault: Fault, now: float) -> None:
        """Switch a fault on. Media that it needs is encoded first, in a thread; `now` is loop time."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if fault.kind in (FaultKind.PARAMETERS, FaultKind.NO_PARAMETER_SETS, FaultKind.B_FRAMES):
            preview = FaultSet()
            for kind in FaultKind:
                if (active := self.faults.get(kind, now)) is not None:
                    preview.add(active, now)
            preview.add(fault, now)
            shown = self._shown(preview, now)
            if self._built or not self._live:
                await asyncio.to_thread(self._build, *shown)
            if self._live:
                await asyncio.to_thread(self._build_live, shown[0])
        now += loop.time() - started
        if fault.kind is FaultKind.RESET:
            for session in list(self.sessions):
                session.reset()
        elif fault.kind is FaultKind.TIMESTAMP_JUMP:
            for session in list(self.sessions):
                session.jump(fault["by"], fault["track"])
        else:
            self.faults.add(fault, now)

    def tracks(self, now: float) -> Iterator[RtpTrack]:
        """Tracks that a DESCRIBE at `now` offers, video first."""
        video = self.video(now)
        if (other := self.faults.get(FaultKind.CODEC, now)) is not None:
            video = replace(video, sdp=tuple(line.replace(" H264/", f" {other['name']}/") for line in video.sdp))
        yield video
        if self.settings.audio and not self.faults.get(FaultKind.NO_AUDIO, now):
            yield self._sound(self.settings.audio)

    def video(self, now: float) -> RtpTrack:
        """The video shown at `now`: the plain one until a changed one has been encoded."""
        changed = self._built.get(self._shown(self.faults, now))
        return changed or self._build(self.settings.video, self.settings.parameter_sets)

    def live_video(self, now: float) -> LiveVideo:
        """The video that a WebRTC client gets at `now`: the plain one until a changed one has been encoded."""
        changed = self._live.get(self._shown(self.faults, now)[0])
        return changed or self._build_live(self.settings.video)

    def _sound(self, spec: AudioSpec) -> RtpTrack:
        """The audio track that its RTSP side sends."""
        return opus_track(spec) if spec.codec == "opus" else audio_track(spec, self.settings.payload)

    def opus(self) -> RtpTrack | None:
        """The audio track that a WebRTC client gets."""
        return opus_track(self.settings.audio) if self.settings.audio else None

    def _build_live(self, spec: VideoSpec) -> LiveVideo:
        video = self._live.get(spec)
        if video is None:
            video = self._live[spec] = live_video(spec, self.habits.idle_gop, self.settings.payload)
        return video

    def _build(self, spec: VideoSpec, parameter_sets: ParameterSets) -> RtpTrack:
        track = self._built.get((spec, parameter_sets))
        if track is None:
            track = self._built[spec, parameter_sets] = video_track(spec, self.settings.payload, parameter_sets)
        return track

    def _shown(self, faults: FaultSet, now: float) -> tuple[VideoSpec, ParameterSets]:
        spec, parameter_sets = self.settings.video, self.settings.parameter_sets
        if not faults:
            return spec, parameter_sets
        if (fault := faults.get(FaultKind.PARAMETERS, now)) is not None:
            spec = replace(spec, width=fault["width"], height=fault["height"])
        if (fault := faults.get(FaultKind.B_FRAMES, now)) is not None:
            spec = replace(spec, b_frames=fault["count"])
        if (fault := faults.get(FaultKind.NO_PARAMETER_SETS, now)) is not None:
            parameter_sets = "out_of_band" if fault["sprop"] else "absent"
        return spec, parameter_sets

    def report(self, now: float) -> dict[str, Any]:
        """The camera's state and counters as JSON-ready values."""
        counters = self.counters
        return {
            "name": self.name,
            "faults": self.faults.names(now),
            "describes": counters.describes,
            "refused": {str(status): count for status, count in counters.refused.items()},
            "sessions_opened": counters.opened,
            "sessions_open": len(self.sessions),
            "sessions_cut": dict(counters.cut),
            "keepalives": counters.keepalives,
            "receiver_reports": counters.receiver_reports,
            "packets": dict(counters.playback.packets),
            "bytes": dict(counters.playback.bytes),
            "frames": dict(counters.playback.frames),
            "keyframes": counters.playback.keyframes,
            "dropped": counters.playback.dropped,
            "sender_reports": counters.playback.sender_reports,
            "webrtc": asdict(self.webrtc),
        }
