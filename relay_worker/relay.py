"""One camera's relay: source, pipeline, publication and filler, put together and watched.

This is what a worker process runs, and what `relay-worker debug` runs without a supervisor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from relay_common.causes import Cause
from relay_common.clock import Clock, LoopClock, loop_call_at
from relay_common.counters import joined
from relay_common.errors import RelayError, Remedy
from relay_common.protocol import SinkTarget, Stage, WorkerState
from relay_common.secrets import Secret
from relay_common.worker_stats import SinkStats, WorkerStats, uplink_share
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.source_keeper import SourceKeeper
from relay_worker.camera.webrtc_source import IngestSettings
from relay_worker.capture import Capture, Captures
from relay_worker.local.viewers import LocalViewers
from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import Kind, Output
from relay_worker.meter import Meter
from relay_worker.pipeline import Pipeline
from relay_worker.publish.gap_filler import GapFiller
from relay_worker.publish.keeper import PublicationKeeper
from relay_worker.publish.keyframe_requests import KeyframeRequestMonitor, VideoTotals
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.publications import Publications
from relay_worker.publish.signaling import SupervisorSignaling
from relay_worker.remedies import PictureRemedies, PictureRemedy, next_try
from relay_worker.rtsp.session import SessionSettings
from relay_worker.rtsp.source import SourceSettings
from relay_worker.small_pictures import CameraRendition
from relay_worker.snapshot import Snapshots
from relay_worker.watchdog import Rebuild, SinkWatchdogs

log = logging.getLogger(__name__)

SOUND_TIMEOUT: Final = 10.0
"""Seconds without sound before it is reported; a new session would interrupt the video."""
MOST_CAPTURES: Final = 4
"""Captures of one camera at the same time."""
LIVE_TIMEOUT: Final = 3.0
"""Seconds without a live video frame after which a camera no longer counts as live."""

_WEDGED: Final = dict.fromkeys(Rebuild, Cause.CAMERA_BROKEN) | {Rebuild.PUBLICATION: Cause.SFU_LOST}
B_FRAMES: Final = (
    "the camera sends B-frames, which browsers do not show live: choose a profile without them in the camera's settings"
)


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """How to relay one camera; times in seconds."""

    name: str
    audio: bool = True
    ca_file: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    media_timeout: float = 10.0
    publisher: PublisherSettings = field(default_factory=PublisherSettings)
    sinks: Sequence[SinkTarget] = (SinkTarget(),)
    """Where to publish from the start; see `Publications.configure`."""
    ingest: IngestSettings = field(default_factory=IngestSettings)

    def source(self) -> SourceSettings:
        """The settings of the RTSP source."""
        return SourceSettings(
            connect_timeout=self.connect_timeout,
            ca_file=self.ca_file or None,
            session=SessionSettings(self.read_timeout, self.media_timeout, audio=self.audio),
        )


class RelayListener(Protocol):
    """Receives notifications; must not block or raise."""

    def state_changed(self, state: WorkerState, stage: Stage, reason: str) -> None: ...
    def source_failed(self, generation: int, stage: Stage, remedy: Remedy, reason: str) -> None: ...
    def published(self, publication: str, sink: str = "", rids: Sequence[str] = ()) -> None: ...
    def unpublished(self, publication: str, reason: str, sink: str = "") -> None: ...


class CameraRelay:
    """Relays one camera: after `play`, the stream is published at the SFU until `close`."""

    def __init__(
        self,
        settings: RelaySettings,
        signaling: SupervisorSignaling,
        listener: RelayListener,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock = clock or LoopClock()
        self._listener = listener
        self.pipeline = Pipeline(audio=settings.audio, on_tracks=self._tracks_known, call_at=loop_call_at)
        self.source = SourceKeeper(
            self.pipeline,
            clock,
            settings.source(),
            on_failed=self._source_failed,
            on_problem=self._problem,
            ingest=settings.ingest,
        )
        self.source.ingests.on_handover = self._handed_over
        self.publications = Publications(
            settings.name,
            self.pipeline,
            signaling,
            clock,
            settings.publisher,
            on_live=self._published,
            on_lost=self._unpublished,
            on_problem=self._problem,
            on_keyframe_request=self.request_keyframe,
            on_small_request=lambda: self.rendition.request_keyframe(),
            on_connected=lambda: self.rendition.check_outputs(),
        )
        self.publications.configure(settings.sinks)
        self.local = LocalViewers(self.pipeline, clock, self.request_keyframe, audio=settings.audio)
        self.rendition = CameraRendition(self.pipeline, self.publications, self.local, clock, self.request_keyframe)
        self._filler = GapFiller(settings.name, self.pipeline, clock.now, loop_call_at)
        self._watchdogs = SinkWatchdogs()
        self._requests, self._remedies = KeyframeRequestMonitor(), PictureRemedies()
        self._meter = Meter()
        self._reported = WorkerState.STARTING
        self._was_live = False
        self._closing = False
        self._publishing = True
        self._stage, self._reason = Stage.NONE, ""
        self.cause = Cause.NONE
        """The cause of the latest failure; NONE while live."""
        self.keyframe_requests = 0
        self._snapshots = Snapshots(self.pipeline)
        self._captures = Captures()

    # --- what to do ------------------------------------------------------------------------------------------------

    def play(self, stream: GrantedStream) -> None:
        """Relay `stream` instead of the previous one."""
        self.source.play(stream)
        self._update()

    def publish_to(self, output: Output) -> None:
        """Send to `output` instead of the SFU (a file, or nowhere); call it before `play`."""
        self._publishing = False
        self.pipeline.attach(output, self._clock.now())

    def extended(self, generation: int, url: Secret, expires_at: float) -> None:
        """The stream's lease was extended."""
        self.source.extended(generation, url, expires_at)

    def stream_lost(self, generation: int, reason: str) -> None:
        """The stream's lease is lost: hold the publication and wait."""
        if self.generation in (0, generation):
            self._problem(Stage.NONE, reason, Cause.NONE)
            self.source.drop()
            self._update()

    def republish(self, publication: str, reason: str) -> None:
        """Its sink no longer knows `publication`: create another."""
        self.publications.republish(publication, reason)

    def request_keyframe(self) -> None:
        """A viewer needs a keyframe: ask the camera where possible."""
        self.keyframe_requests += 1
        self.source.request_keyframe()

    def recover_video(self, reason: str) -> None:
        """Nobody decodes the picture: try the next remedy, unless one was tried in the last minute."""
        remedy = self._remedies.next(self._clock.now())
        if remedy is None:
            return
        log.info("%s; trying: %s", reason or "nobody decodes the picture", remedy.value)
        if remedy is PictureRemedy.PARAMETER_SETS:
            self.pipeline.repeat_parameter_sets()
        else:
            self.pipeline.rebuild(Kind.VIDEO)
        self.request_keyframe()

    async def make_offer(self, request: int) -> str:
        """Make an SDP offer for the camera; a stream whose `offer` is `request` answers it."""
        return await self.source.ingests.offer(request)

    async def snapshot(self, within: float) -> bytes:
        """A JPEG of the next live keyframe; raises RelayError when none comes in `within` seconds."""
        self.request_keyframe()
        return await self._snapshots.take(within)

    def start_capture(self) -> Capture:
        """Start a capture of packets from the camera and to the SFU; RelayError while as many as may run do."""
        if len(self._captures.running) >= MOST_CAPTURES:
            raise RelayError("packets of this camera are being captured already", hint="Wait for that to end")
        capture = Capture(self._clock.wall() - self._clock.now())
        self._captures.running.append(capture)
        self._capture_packets()
        return capture

    def finish_capture(self, capture: Capture) -> None:
        """End a capture, and give it the dialogue with the camera."""
        self._captures.running.remove(capture)
        self._capture_packets()
        capture.dialogue = self.source.dialogue

    def _capture_packets(self) -> None:
        # Also called by the tick, because a new publication has a new publisher.
        captures = self._captures if self._captures.running else None
        self.pipeline.capture = captures.received if captures else None
        if (publisher := self.keeper.publisher) is not None:
            publisher.capture = captures.sent if captures else None

    def tick(self, now: float) -> WorkerState:
        """Check liveness at both ends; called about once a second by the loop that moves media. Returns the state."""
        self.source.check(now)
        self.publications.check(now)
        self.local.check(now)
        self.rendition.check(now)
        self._filler.check(now, watched=self.local.watched)
        for kind in self.pipeline.inputs.copy():
            self._watch(kind, now)
        self._capture_packets()
        self._requests.observe(self._sent(state := self._update()), now)
        return state

    def put_off(self, seconds: float, now: float, *, given_up: bool = False) -> None:
        """This process was paused until `now`: that is nobody's silence, as what came meanwhile is unread. `given_up`:
        so long that camera and sinks have ended their connections. A viewer may have been suspended, too.
        """
        for part in (self.local,) if given_up else (self.source, self.publications, self.local):
            part.put_off(seconds, now)
        self.rendition.put_off(now)

    def _watch(self, kind: Kind, now: float) -> None:
        for keeper, verdict in self._watchdogs.observe(kind, self.pipeline, self.publications, now):
            log.warning("%s stalled: %s; rebuilding the %s", verdict.stage.value, verdict.reason, verdict.rebuild.value)
            self._problem(verdict.stage, verdict.reason, _WEDGED[verdict.rebuild])
            if verdict.rebuild is Rebuild.INPUT:
                self.pipeline.rebuild(kind)
            elif verdict.rebuild is Rebuild.SOURCE:
                self.source.renew(verdict.reason)
            else:
                keeper.republish(verdict.reason)

    def _sent(self, state: WorkerState) -> VideoTotals | None:
        """How much of the camera's video was sent and how often keyframes were requested; None while it is not live."""
        if state is not WorkerState.LIVE or not (publication := self.publication):
            return None
        _, requests, cut = self.keeper.totals(Kind.VIDEO)
        return VideoTotals(publication, requests, self.pipeline.totals(Kind.VIDEO)[2], cut)

    async def close(self) -> None:
        """End source and publication."""
        self._closing = True
        self._update()
        self._filler.close()
        self.local.close()
        self.rendition.made.close()
        await self.source.close()
        await self.publications.close()

    # --- status ----------------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Generation of the stream being played; 0 when there is none."""
        return self.source.stream.generation if self.source.stream is not None else 0

    @property
    def expires_at(self) -> float:
        """When the stream's lease ends (Unix seconds); 0 when there is none."""
        return self.source.stream.expires_at if self.source.stream is not None else 0.0

    @property
    def keeper(self) -> PublicationKeeper:
        """The keeper of the publication whose figures are the camera's own."""
        return self.publications.first

    @property
    def publication(self) -> str:
        """The current publication at the SFU; empty when there is none."""
        keeper = self.keeper
        return keeper.publication if not keeper.sink.name else ""

    @property
    def state(self) -> WorkerState:
        """The camera's overall state."""
        if self._closing:
            return WorkerState.STOPPING
        if self.source.stream is None:
            return WorkerState.WAITING if self._was_live or self._reason else WorkerState.STARTING
        last = self.pipeline.last_frame.get(Kind.VIDEO, 0.0)
        if (
            (self.publications.live or not (self._publishing and self.publications.keepers))
            and not self.pipeline.filling
            and self._clock.now() - last < LIVE_TIMEOUT
        ):
            return WorkerState.LIVE
        return WorkerState.RECONNECTING if self._was_live else WorkerState.CONNECTING

    def stats(self, now: float) -> WorkerStats:
        """Current counters and rates; the caller fills in the identity."""
        keeper, sent = self.keeper, self.publications.sent()
        stats = self._meter.measure(self.pipeline, sent.get(keeper.sink.name) or keeper.sent(), now)
        stats.state, stats.stage, stats.reason = self.state, self._stage, self._reason
        stats.code = self.cause.value if self.cause is not Cause.NONE else ""
        if stats.state is WorkerState.LIVE and not stats.reason and (share := uplink_share(stats.video)):
            stats.stage, stats.reason, stats.code = Stage.SENDING, share, Cause.UPLINK_SHORT.value
        if stats.state is WorkerState.LIVE and not stats.reason:
            self.publications.note_problem(stats)
        if stats.video.b_frames and not stats.reason:
            stats.stage, stats.reason, stats.code = Stage.DECODE, B_FRAMES, Cause.B_FRAMES.value
        silent = self._silent_for(now)
        if stats.state is WorkerState.LIVE and not stats.reason and silent > SOUND_TIMEOUT:
            stats.stage, stats.code = Stage.STREAMING, Cause.SOUND_MISSING.value
            stats.reason = f"no sound has come from the camera for {silent:.0f} s: the picture goes on with silence"
        source, publishing, published = self.source.next_try, self.publications.next_try, self.publications.live
        if (at := next_try(stats, source, publishing, published=published)) > now:
            stats.retry_at = self._clock.wall() + at - now
        stats.video.tolerated |= self.source.tolerated()
        stats.requests_in_vain = self._requests.ineffective_for(now)
        stats.source, stats.source_sessions = self.source.state, self.pipeline.sessions
        sinks = stats.sinks = self.publications.stats(sent, now)
        shown = next((sink for sink in sinks if sink.name == keeper.sink.name), SinkStats())
        stats.delay_p50, stats.delay_p99 = shown.delay_p50, shown.delay_p99
        publisher = keeper.publisher
        stats.webrtc = publisher.state.value if publisher is not None else "new"
        stats.publication, stats.generation, stats.expires_at = self.publication, self.generation, self.expires_at
        stats.local, stats.rendition, stats.counters = self.local.stats(now), self.rendition.stats(now), self.counters()
        return stats

    def _silent_for(self, now: float) -> float:
        """Seconds since sound last arrived on a track the camera has announced; 0 without one."""
        if Kind.AUDIO not in self.pipeline.inputs:
            return 0.0
        return now - self.pipeline.last_media.get(Kind.AUDIO, now)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _tracks_known(self) -> None:
        if not self._publishing:
            return
        video = self.pipeline.inputs.get(Kind.VIDEO)
        sps = video.passthrough.sps if isinstance(video, VideoInput) else None
        self.publications.start(audio=Kind.AUDIO in self.pipeline.inputs, profile_idc=sps.profile_idc if sps else None)

    def _source_failed(self, stream: GrantedStream, stage: Stage, remedy: Remedy, reason: str) -> None:
        self._listener.source_failed(stream.generation, stage, remedy, reason)
        self._update()

    def _handed_over(self) -> None:
        """Another stream took over without a gap: its lease must learn that it is live."""
        self._reported = WorkerState.CONNECTING

    def _problem(self, stage: Stage, reason: str, cause: Cause) -> None:
        self._stage, self._reason, self.cause = stage, reason, cause
        self._update()

    def _published(self, sink: str, publication: str) -> None:
        self._listener.published(publication, sink, self.rendition.published(sink))
        self._update()

    def _unpublished(self, sink: str, publication: str, reason: str) -> None:
        self._listener.unpublished(publication, reason, sink)
        # Else it never connected, and that has been reported with its stage; or a plain one follows in the same moment.
        if reason not in (self._reason, self.keeper.layers.why_plain):
            self._problem(Stage.SENDING, reason, Cause.SFU_LOST)

    def _update(self) -> WorkerState:
        state = self.state
        if state is WorkerState.LIVE:
            self._was_live = True
            self._stage, self._reason, self.cause = Stage.NONE, "", Cause.NONE
        if state is not self._reported:
            self._reported = state
            self._listener.state_changed(state, self._stage, self._reason)
        return state

    def counters(self) -> dict[str, int]:
        """Counters of all parts as `part.name`, zeros left out; those of a session or publication restart with it."""
        publisher = self.keeper.publisher
        return {
            **joined(
                relay={"keyframe_requests": self.keyframe_requests, "publications": self.keeper.published},
                filler=self._filler.counters(),
                watchdog=self._watchdogs.counters(),
                requests=self._requests.counters(),
                mending=self._remedies.counters(),
                publication=publisher.counters() if publisher is not None else {},
                local=self.local.counters(),
                rendition=self.rendition.made.counters(),
            ),
            **self.pipeline.counters(),
            **self.source.counters(),
        }
