"""Sessions of a WebRTC camera: offers made, the active session, and the one that will replace it.

A stream that is granted while another plays is connected in parallel and takes over at its first keyframe (make before
break): battery doorbells cannot be extended and get a new stream every few minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay_common.clock import Clock
from relay_common.counters import joined
from relay_common.protocol import Stage
from relay_common.spoken import spoken
from relay_common.tasks import Tasks
from relay_worker.camera.datagram_feed import IngestSink
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.webrtc_source import IngestError, IngestSettings, IngestState, WebRtcSource

log = logging.getLogger(__name__)

MAX_OFFERS: Final = 2
"""Offers that may wait for an answer; older ones are dropped."""
CLOSE_WITHIN: Final = 5.0
"""Seconds allowed for sessions to end when everything is closed."""
OFFER_LIFE: Final = 90.0
"""Seconds for which an offer can be answered: Generate may be queued, then takes 30 s at most."""


@dataclass
class _Session:
    stream: GrantedStream
    source: WebRtcSource


class IngestKeeper:
    """Plays WebRTC streams into `sink`. A stream that fails is reported once through `on_failed` and not retried."""

    def __init__(
        self,
        sink: IngestSink,
        clock: Clock,
        settings: IngestSettings,
        on_failed: Callable[[GrantedStream, IngestError], None],
    ) -> None:
        self._sink, self._clock, self._settings, self._on_failed = sink, clock, settings, on_failed
        self._offers: dict[int, tuple[WebRtcSource, float]] = {}
        self._shown: _Session | None = None
        self._next: _Session | None = None
        self._tasks = Tasks(log, "a WebRTC session's task failed")
        self.on_handover: Callable[[], None] = lambda: None
        """Called when a session has taken over from a playing one."""
        self.handovers = 0
        """Sessions that took over from a playing one."""

    @property
    def stream(self) -> GrantedStream | None:
        """The newest stream that has not failed."""
        session = self._next or self._shown
        return session.stream if session is not None else None

    @property
    def state(self) -> str:
        """The state of the active session, or else of the one being connected; "idle" without either."""
        session = self._shown or self._next
        return session.source.state.value if session is not None else "idle"

    @property
    def playing(self) -> bool:
        """Whether a session feeds the sink."""
        return self._shown is not None and self._shown.source.state is IngestState.PLAYING

    async def offer(self, request: int) -> str:
        """Make an offer, to be answered by a later stream with `offer == request`. Raises IngestError."""
        source = WebRtcSource(self._sink, self._clock, self._settings)
        self._offers[request] = source, self._clock.now()
        while len(self._offers) > MAX_OFFERS:
            self._withdraw(next(iter(self._offers)))
        try:
            return await source.offer()
        except OSError as error:
            raise IngestError(Stage.OFFER, f"no UDP socket could be opened: {spoken(error)}") from None

    def play(self, stream: GrantedStream) -> None:
        """Play a stream; it replaces the current one at its first keyframe."""
        source, _ = self._offers.pop(stream.offer, (None, 0.0))
        if source is None or source.state is not IngestState.OFFERED:
            error = IngestError(Stage.OFFER, "the offer that this stream answers is gone")
            self._on_failed(stream, error)
            return
        if self._next is not None:
            self._close(self._next)
        if not self.playing and self._shown is not None:
            self._close(self._shown)
            self._shown = None
        session = self._next = _Session(stream, source)
        source.on_playing = lambda: self._took_over(session)
        source.on_ended = lambda error: self._failed(session, error)
        self._tasks.spawn(self._connect(session, handover=self._shown is not None))

    async def _connect(self, session: _Session, *, handover: bool) -> None:
        try:
            await session.source.connect(session.stream.answer, handover=handover)
        except IngestError as error:
            if session in (self._next, self._shown):  # otherwise it was closed deliberately
                self._failed(session, error)
        except Exception:
            # An internal error must not leave the stream connecting forever: ask for another.
            log.exception("connecting to the camera failed")
            if session in (self._next, self._shown):
                self._failed(session, IngestError(Stage.ICE, "internal error; see the log"))

    def _took_over(self, session: _Session) -> None:
        before, self._shown = self._shown, session
        if self._next is session:
            self._next = None
        if before is not None:
            self.handovers += 1
            log.info("a new session took over at its keyframe")
            self._close(before)
            self.on_handover()

    def _failed(self, session: _Session, error: IngestError) -> None:
        if self._next is session:
            self._next = None
        if self._shown is session:
            self._shown = None
        self._close(session)
        self._on_failed(session.stream, error)

    def request_keyframe(self) -> None:
        """A viewer needs a keyframe."""
        if self._shown is not None:
            self._shown.source.request_keyframe()

    def check(self, now: float) -> None:
        """Check liveness; called about once a second."""
        for session in (self._shown, self._next):
            if session is not None:
                session.source.check(now)
        if self._offers:
            for request in [request for request, (_, at) in self._offers.items() if now - at > OFFER_LIFE]:
                self._withdraw(request)

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of the camera's."""
        for session in (self._shown, self._next):
            if session is not None:
                session.source.put_off(seconds, now)

    def fail(self, reason: str) -> None:
        """The active session delivers nothing usable: only a new stream helps."""
        if self._shown is not None:
            self._failed(self._shown, IngestError(Stage.STREAMING, reason))

    def drop(self) -> None:
        """Stop playing; offers stay."""
        for session in (self._shown, self._next):
            if session is not None:
                self._close(session)
        self._shown = self._next = None

    async def close(self) -> None:
        """End everything and wait for it."""
        self.drop()
        for request in list(self._offers):
            self._withdraw(request)
        await self._tasks.aclose(within=CLOSE_WITHIN)

    def _withdraw(self, request: int) -> None:
        source, _ = self._offers.pop(request)
        self._tasks.spawn(source.close())

    def _close(self, session: _Session) -> None:
        self._tasks.spawn(session.source.close())

    def counters(self) -> dict[str, int]:
        """Counters of the active session, as `part.name`."""
        shown = self._shown.source.counters() if self._shown is not None else {}
        return shown | joined(ingest={"handovers": self.handovers})
