"""Keeps a camera's stream playing: connects, reconnects, and reports when only a new stream can help."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from relay_common.causes import Cause
from relay_common.clock import Clock
from relay_common.counters import joined
from relay_common.errors import Remedy
from relay_common.protocol import Protocol, Stage
from relay_common.secrets import Secret
from relay_common.tasks import either, pause
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.ingest_keeper import IngestKeeper
from relay_worker.camera.webrtc_source import IngestError, IngestSettings
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.errors import AccessError, RtspError, RtspStage, RtspTimeoutError, SessionLostError
from relay_worker.rtsp.events import RtspMessage
from relay_worker.rtsp.source import RtspSource, SourceSettings
from relay_worker.rtsp.states import RtspState

log = logging.getLogger(__name__)

RETRY_DELAYS: Final = (0.2, 0.5, 1.0, 2.0, 2.0, 2.0, 3.0)
"""Seconds before each retry of the same URL: Google's edge answers 404 for seconds after a stream was generated."""
REFUSED_DELAYS: Final = (0.5, 1.5)
"""The same after 401 or 403: our previous connection may still count as the one client allowed per URL."""
CONTESTED_DELAY: Final = 1.0
"""Seconds between tries of a URL whose one client another worker may still be, which nobody hears (`GrantedStream`)."""
WARM_ANSWER: Final = 12.0
"""Seconds to wait for an answer once a stream has played: it is immediate then, and asking again is free."""
PROVEN: Final = 5.0
"""Seconds of forwarded video after which a session counts as stable and earlier failures are forgotten."""


OnFailed = Callable[[GrantedStream, Stage, Remedy, str], None]
OnProblem = Callable[[Stage, str, Cause], None]


class SourceKeeper:
    """Plays one `GrantedStream` at a time into the pipeline, over RTSP itself, over WebRTC through `ingests`.

    Trying the same RTSP URL again costs no command at Google, so that is done first, a few times; when it does not
    help, `on_failed` is called once with the remedy, and nothing more happens until the next `play`. `on_problem`
    hears of every failure.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Clock,
        settings: SourceSettings,
        on_failed: OnFailed,
        on_problem: OnProblem = lambda stage, reason, cause: None,
        ingest: IngestSettings | None = None,
    ) -> None:
        self._pipeline, self._clock, self._settings = pipeline, clock, settings
        self._on_failed, self._on_problem = on_failed, on_problem
        self.ingests = IngestKeeper(pipeline, clock, ingest or IngestSettings(), self._ingest_failed)
        self.stream: GrantedStream | None = None
        self._source: RtspSource | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()  # for the current task
        self._stalled: RtspError | None = None
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._began = 0.0
        self.stalls = 0
        self._next_try = 0.0
        self._tolerated: Counter[str] = Counter()  # by sessions that have ended

    @property
    def state(self) -> str:
        """The state of the session with the camera, or "idle" while there is none."""
        if self._over_webrtc:
            return self.ingests.state
        session = self._source.session if self._source is not None else None
        return session.state.value if session is not None else "connecting" if self._source is not None else "idle"

    @property
    def dialogue(self) -> list[RtspMessage]:
        """The last RTSP messages with the camera, credentials and all."""
        session = self._source.session if self._source is not None else None
        return list(session.dialogue.recorded) if session is not None else []

    @property
    def playing(self) -> bool:
        """Whether a session is up and delivering."""
        if self._over_webrtc:
            return self.ingests.playing
        session = self._source.session if self._source is not None else None
        return session is not None and session.state is RtspState.PLAYING

    @property
    def next_try(self) -> float:
        """When it connects again by itself (monotonic): after its pause, or when a session that delivers nothing is
        ended; 0 while nothing is planned.
        """
        if self._over_webrtc or self._next_try or self._source is None or not self.playing or self._stalled:
            return 0.0 if self._over_webrtc else self._next_try
        return self._last_video() + self._settings.session.media_timeout

    def play(self, stream: GrantedStream) -> None:
        """Play `stream` from now on instead of the previous one; nothing where it is the one that is played.

        A supervisor that is slow to answer a hello gets another, and gives the stream for each.
        """
        if self.stream is not None and stream.same_as(self.stream):
            return
        previous = self._task
        self._stop_source()
        self.stream = stream
        if stream.protocol is Protocol.WEB_RTC:
            self.ingests.play(stream)
            return
        self.ingests.drop()
        self._stopped = asyncio.Event()
        self._task = asyncio.create_task(self._keep(stream, previous, self._stopped))

    def extended(self, generation: int, url: Secret, expires_at: float) -> None:
        """The stream was extended: `url` is for the next connection, the current one is left alone."""
        if self.stream is not None and self.stream.generation == generation:
            self.stream.url, self.stream.expires_at = url, expires_at

    def drop(self) -> None:
        """Stop playing; the stream is gone."""
        self.stream = None
        self._stop_source()
        self.ingests.drop()

    async def close(self) -> None:
        """Stop playing with TEARDOWN, and wait for it."""
        task = self._task
        self.drop()
        await self.ingests.close()
        if task is not None:
            await asyncio.wait([task])

    def hold(self) -> None:
        """Connect to the camera no more until `allow`: it may be another worker's by now. What plays goes on."""
        self._allowed.clear()
        if self._source is not None and not self.playing and self._stalled is None:
            self._stalled = SessionLostError(RtspStage.CONNECT, "no supervisor says whose the camera is")
            self._source.stop()

    def allow(self) -> None:
        """The camera is this worker's own: connect at once where that was put off."""
        self._allowed.set()

    def request_keyframe(self) -> None:
        """A viewer needs a keyframe; RTSP has no way to ask the camera for one."""
        self.ingests.request_keyframe()

    def check(self, now: float) -> None:
        """Check liveness, about once a second: end a session that no longer delivers video."""
        self.ingests.check(now)
        if self._source is not None:
            self._source.look()
        if self._source is None or not self.playing or self._stalled is not None:
            return
        timeout = self._settings.session.media_timeout
        if now - self._last_video() > timeout:
            self._stalled = RtspTimeoutError(RtspStage.STREAMING, f"no video for {timeout:.0f} s")
            self.stalls += 1
            self._source.stop()

    def _last_video(self) -> float:
        """When video last arrived, or the session began, later by pauses of this process."""
        return max(self._pipeline.last_media.get(Kind.VIDEO, self._began), self._began)

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of the camera's, whose packets are unread."""
        self.ingests.put_off(seconds, now)
        self._began = min(now, self._last_video() + seconds)

    def renew(self, reason: str) -> None:
        """The session delivers nothing usable: start another, of the same stream where that is possible (RTSP)."""
        if self._over_webrtc:
            self.ingests.fail(reason)
        elif self._source is not None and self.playing and self._stalled is None:
            self._stalled = RtspTimeoutError(RtspStage.STREAMING, reason)
            self._source.stop()

    @property
    def _over_webrtc(self) -> bool:
        return self.stream is not None and self.stream.protocol is Protocol.WEB_RTC

    def _ingest_failed(self, stream: GrantedStream, error: IngestError) -> None:
        if self.stream is stream:
            # The session it should have replaced may play until its own end.
            self.stream = self.ingests.stream
        self._on_problem(error.stage, error.message, error.cause)
        self._on_failed(stream, error.stage, error.remedy, str(error))

    def _stop_source(self) -> None:
        self._stopped.set()
        if self._source is not None:
            self._source.stop()

    async def _keep(self, stream: GrantedStream, previous: asyncio.Task[None] | None, stopped: asyncio.Event) -> None:
        if previous is not None:
            # One client per URL, one source per pipeline: the old session ends before the new one begins.
            await asyncio.wait([previous])
        failures, settings, contested = 0, self._settings, stream.contested
        while self.stream is stream:
            if not self._allowed.is_set():
                failures = 0
                await either(self._allowed, stopped)
                continue
            began = self._began = self._clock.now()
            error = await self._play(stream, settings)
            if self.stream is not stream or error is None:
                return
            if self._pipeline.last_media.get(Kind.VIDEO, 0.0) > began:
                timeout = min(WARM_ANSWER, self._settings.session.read_timeout)
                settings = replace(self._settings, session=replace(self._settings.session, read_timeout=timeout))
                contested = False  # it was the one client itself
            if self._proven(began):
                failures = 0
            self._on_problem(Stage(error.stage.value), error.message, error.cause)
            delays = RETRY_DELAYS if error.remedy is Remedy.RETRY else REFUSED_DELAYS
            if isinstance(error, AccessError) and contested:
                # Google may refuse a second client. Tried for the last time when there can be no first one any more.
                if began < stream.contested_until:
                    await self._rest(min(CONTESTED_DELAY, stream.contested_until - self._clock.now()), stopped)
                    continue
                failures = len(delays)
            if error.remedy is Remedy.PARK or failures >= len(delays):
                remedy = error.escalation if error.remedy is Remedy.RETRY else error.remedy
                self.stream = None
                self._on_failed(stream, Stage(error.stage.value), remedy, str(error))
                return
            # Supervisors say at WARNING what is wrong, once, also where it is wrong with twenty cameras.
            log.debug("source: %s; trying again in %.1f s", error.message, delays[failures])
            await self._rest(delays[failures], stopped)
            failures += 1

    async def _rest(self, delay: float, stopped: asyncio.Event) -> None:
        delay = max(0.0, delay)
        self._next_try = self._clock.now() + delay
        await pause(self._clock, delay, stopped)
        self._next_try = 0.0

    def _proven(self, began: float) -> bool:
        """Whether the session started at `began` delivered pictures for a while: an answer to PLAY alone proves
        nothing.
        """
        since = self._pipeline.playing_since
        return since >= began and self._pipeline.last_frame.get(Kind.VIDEO, 0.0) - since > PROVEN

    async def _play(self, stream: GrantedStream, settings: SourceSettings) -> RtspError | None:
        """Run one session; returns the error it ended with, or None when it was stopped deliberately."""
        self._stalled = None
        self._source = source = RtspSource(stream.url, self._pipeline, self._clock, settings)
        try:
            await source.run()
        except RtspError as error:
            return error
        except Exception:
            # An internal error must not leave the camera black: start another session with fresh state.
            log.exception("receiving from the camera failed")
            return SessionLostError(RtspStage.STREAMING, "a packet could not be handled; see the log")
        finally:
            self._source = None
            self._tolerated.update(source.tolerated())
        return self._stalled

    def tolerated(self) -> dict[str, int]:
        """Deviations of RTSP servers tolerated over all sessions, by their names in docs/quirks.md."""
        counted = {name: number for name, number in self._tolerated.items() if number}
        if self._source is not None:
            for name, number in self._source.tolerated().items():
                if number:
                    counted[name] = counted.get(name, 0) + number
        return counted

    def counters(self) -> dict[str, int]:
        """Counters of the current source, as `part.name`."""
        rtsp = self._source.counters() if self._source is not None else {}
        return rtsp | self.ingests.counters() | joined(source={"stalls": self.stalls})
