"""Passes workers' offers to one sink and tracks which session of it each camera is published in.

A publication is one session of the sink with a camera's tracks. A camera has at most two: the one that viewers are sent
to (`live`), and one that is being set up (`pending`) and takes its place when the worker reports that packets were
sent. The answer to a superseded attempt is dropped and its session closed.

When to publish again is decided by the worker alone (`relay_worker/publish/keeper.py`). The broker tries each offer
once and reports the failure, with the pause that the sink requested or that a refused account calls for.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from relay_common.clock import Clock
from relay_common.cloudflare import LocalTrack, RemoteTrack, SimulcastChoice
from relay_common.errors import Remedy
from relay_common.ids import slug
from relay_common.pauses import PauseDetector
from relay_common.protocol import PublishAnswer, PublishFailed, PublishRequest
from relay_common.rendition_messages import RID_OF
from relay_common.tasks import Tasks
from relay_supervisor.sinks.sink import Opened, Sink, SinkError, SinkSessionGone

log = logging.getLogger(__name__)
sdp_log = logging.getLogger("relay.sdp")

KINDS: Final = ("video", "audio")
_AT_ONCE: Final = 16
"""Most set-ups at the same time; a cold start of a hundred cameras queues behind them."""
_WRONG_ACCOUNT_PAUSE: Final = 60.0
_REFUSED_ONCE_PAUSE: Final = 1.5
"""Seconds after the first refusal of the secret (401, 403): it is believed when it is refused twice."""
_MOST_CLOSINGS: Final = 256
HANDOVER: Final = 5.0
"""Seconds for which a replaced publication stays open, so that viewers move while both exist."""


class Publication(msgspec.Struct, kw_only=True):
    """Where a camera is published. Plain data, as the store keeps it.

    `id` is the only part that leaves the supervisor; session and track names stay here.
    """

    id: str
    camera: str
    session: str
    tracks: list[LocalTrack]
    attempt: int
    created_at: float
    """Unix seconds."""
    live: bool = False
    """Whether packets of every track have been sent."""
    sink: str = ""
    """The sink's name."""
    rids: list[str] = []
    """The layers of its video, best first; empty: one encoding."""

    @property
    def has_small(self) -> bool:
        """Whether viewers can have a smaller picture of it."""
        return set(RID_OF.values()) <= set(self.rids)

    def remote(self, kind: str, quality: str = "full") -> RemoteTrack | None:
        """The locator of the track of `kind`, of its layer `quality` where there are two; None when there is none."""
        for track in self.tracks:
            if track.kind == kind:
                layer = _layer(quality) if kind == "video" and self.has_small else None
                return RemoteTrack(session=self.session, name=track.name, kind=kind, simulcast=layer)
        return None


def _layer(quality: str) -> SimulcastChoice:
    # The SFU steps down to the small one for a line that is too narrow, and to what there is where one is not sent.
    return SimulcastChoice(
        preferred_rid=RID_OF[quality], priority_ordering="asciibetical", rid_not_available="asciibetical"
    )


class Change(enum.Enum):
    """Change of a camera's publication."""

    LIVE = "live"
    """Viewers may pull it."""
    GONE = "gone"
    """The sink has lost it: tell the worker to republish."""
    RETIRED = "retired"
    """It was ended on purpose."""


Listener = Callable[[Change, Publication, str], None]
"""Called with the change, the publication and a reason in words."""


class _Camera:
    __slots__ = ("attempt", "error", "live", "pending", "refused")

    def __init__(self) -> None:
        self.attempt = 0
        self.refused = False
        """Whether the sink refused our credentials at the last attempt."""
        self.error: SinkError | None = None
        """The failure of the last attempt; None after one that succeeded."""
        self.live: Publication | None = None
        self.pending: Publication | None = None


class Broker:
    """Publications of all cameras at `sink`."""

    def __init__(
        self,
        sink: Sink,
        clock: Clock,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(9),
    ) -> None:
        self.sink, self._clock = sink, clock
        self._new_id = new_id
        self._listeners: list[Listener] = []
        self._cameras: dict[str, _Camera] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._closing = Tasks(log, "a publication could not be closed")
        self._handovers = Tasks(log, "a publication could not be handed over")
        self.superseded = 0
        self.unclosed = 0
        """Publications whose tracks could not be closed; the SFU collects them after 30 s without packets."""

    def listen(self, listener: Listener) -> None:
        """Call `listener` on every change."""
        self._listeners.append(listener)

    def _tell(self, change: Change, publication: Publication, reason: str) -> None:
        for listener in self._listeners:
            listener(change, publication, reason)

    # --- set-up ---------------------------------------------------------------------------------------------------

    async def publish(self, camera: str, name: str, request: PublishRequest) -> PublishAnswer | PublishFailed | None:
        """Have the sink answer a worker's offer in a new session; the result is what to send to the worker.

        `camera` is its id, `name` its display name (part of the track names). None means that a newer request of the
        camera has superseded this one and that nothing is to be sent.
        """
        sdp_log.debug("offer of the worker:\n%s", request.offer, extra={"camera": name})
        entry = self._entry(camera)
        entry.attempt += 1
        attempt = entry.attempt
        tracks = [LocalTrack(mid=t.mid, kind=t.kind, name=f"{slug(name)}-{camera}-{t.kind}") for t in request.tracks]
        if problem := _unusable(tracks):
            return PublishFailed(request=request.request, reason=problem, retry_after=_WRONG_ACCOUNT_PAUSE)
        made: list[Publication] = []

        def note(session: str) -> bool:
            made.append(self._name(camera, session, tracks, attempt))
            return attempt == entry.attempt

        opened: Opened | None = None
        try:
            async with self._slots:
                if attempt == entry.attempt:
                    opened = await self.sink.open(camera, name, request.offer, tracks, note)
        except SinkError as error:
            for publication in made:
                self._close_later(publication)
            return self._failed(name, entry, request, error) if attempt == entry.attempt else None
        if opened is None or attempt != entry.attempt:
            self.superseded += 1
            for publication in made:
                self._close_later(publication)
            return None
        (publication,) = made
        entry.refused, entry.error = False, None
        sdp_log.debug("answer of the sink:\n%s", opened.answer, extra={"camera": name})
        self._replace_pending(entry, publication)
        return PublishAnswer(
            request=request.request,
            publication=publication.id,
            answer=opened.answer,
            ice_servers=list(opened.ice_servers),
        )

    def _name(self, camera: str, session: str, tracks: list[LocalTrack], attempt: int) -> Publication:
        return Publication(
            id=self._new_id(),
            camera=camera,
            session=session,
            tracks=tracks,
            attempt=attempt,
            created_at=self._clock.wall(),
            sink=self.sink.name,
        )

    # --- lifetime -------------------------------------------------------------------------------------------------

    def mark_live(self, camera: str, publication: str, rids: Sequence[str] = ()) -> bool:
        """The worker reports packets sent on every track: send viewers there; False when the publication is unknown.

        `rids` are the layers of its video. The publication that was live before is closed after `HANDOVER` seconds.
        """
        entry = self._entry(camera)
        found = entry.pending
        if found is None or found.id != publication:
            known = entry.live
            if known is None or known.id != publication:
                return False
            if rids and known.rids != list(rids):  # a hello came first, which does not name them
                known.rids = list(rids)
                self._tell(Change.LIVE, known, "")  # the store keeps them for the next supervisor
            return True
        found.rids = list(rids)
        previous, entry.live, entry.pending = entry.live, found, None
        found.live = True
        if previous is not None:
            self._handovers.spawn(self._hand_over(previous))
        self._tell(Change.LIVE, found, "")
        return True

    def locate(self, camera: str) -> Publication | None:
        """Where viewers find `camera` now; None while it has no live publication."""
        entry = self._cameras.get(camera)
        return entry.live if entry is not None else None

    def refusal(self, camera: str) -> SinkError | None:
        """The failure of the latest attempt to publish `camera`; None after one that succeeded."""
        entry = self._cameras.get(camera)
        return entry.error if entry is not None else None

    def find(self, camera: str, publication: str) -> Publication | None:
        """The camera's live or pending publication with that id."""
        entry = self._cameras.get(camera)
        candidates = (entry.live, entry.pending) if entry is not None else ()
        return next((p for p in candidates if p is not None and p.id == publication), None)

    def lost(self, camera: str, publication: str, reason: str) -> bool:
        """The worker reports that the transport of `publication` is gone; viewers are no longer sent there."""
        found = self._drop(camera, publication)
        if found is not None:
            self._close_later(found)
            self._tell(Change.RETIRED, found, reason)
        return found is not None

    async def retire(self, camera: str, publication: str = "", *, within: float = 3.0) -> None:
        """End `publication` (empty: all of the camera's) and close its tracks, in at most `within` seconds.

        Best effort: the SFU collects by itself what could not be closed.
        """
        entry = self._cameras.get(camera)
        if entry is None:
            return
        entry.attempt += not publication  # an answer still under way is obsolete
        ids = [p.id for p in (entry.live, entry.pending) if p is not None and publication in ("", p.id)]
        ended = [found for name in ids if (found := self._drop(camera, name)) is not None]
        for found in ended:
            self._tell(Change.RETIRED, found, "stopped")
        if ended:
            await asyncio.wait([self._close_later(found) for found in ended], timeout=within)

    def forget(self, camera: str) -> None:
        """Forget a camera that is no longer configured; `retire` it first."""
        entry = self._cameras.pop(camera, None)
        if entry is not None:
            entry.attempt += 1

    async def aclose(self, *, within: float = 3.0) -> None:
        """Wait at most `within` seconds for closings under way, then abandon them."""
        await self._handovers.aclose()
        await self._closing.aclose(within=within)

    # --- verification ---------------------------------------------------------------------------------------------

    async def verify(self, camera: str) -> bool:
        """Ask the sink whether it still knows the live publication; False, and `GONE` to the listener, when not.

        A positive answer proves little (`active` is no proof of packets); only a definite 404 or 410 counts.
        """
        publication = self.locate(camera)
        if publication is None:
            return True
        try:
            await self.sink.alive(publication.session)
        except SinkSessionGone as error:
            if self._drop(camera, publication.id) is not None:
                self._tell(Change.GONE, publication, error.message)
            return False
        except SinkError as error:
            log.debug("cannot verify: %s", error.message, extra={"camera": camera})
        return True

    async def watch(self, interval: float = 60.0) -> None:
        """Verify every live publication once per `interval` seconds, evenly spread; runs until cancelled."""
        while True:
            cameras = [name for name, entry in self._cameras.items() if entry.live is not None]
            pause = interval / max(1, len(cameras))
            for camera in cameras:
                await self.verify(camera)
                await self._clock.sleep(pause)
            if not cameras:
                await self._clock.sleep(pause)

    # --- the store ------------------------------------------------------------------------------------------------

    def cameras(self) -> list[str]:
        """Cameras that are published, or being published."""
        return list(self._cameras)

    def snapshot(self) -> list[Publication]:
        """All publications, as plain data for the store (it holds session ids: keep it private)."""
        return [p for e in self._cameras.values() for p in (e.live, e.pending) if p is not None]

    def restore(self, publications: list[Publication]) -> None:
        """Restore the publications of a previous run, whose workers may still be sending.

        Call `mark_live` when a worker's hello names one, and `retire` for those that none names.
        """
        for publication in publications:
            entry = self._entry(publication.camera)
            entry.attempt = max(entry.attempt, publication.attempt)
            if publication.live:
                entry.live = publication
            else:
                entry.pending = publication

    # --- internals ------------------------------------------------------------------------------------------------

    def _entry(self, camera: str) -> _Camera:
        entry = self._cameras.get(camera)
        if entry is None:
            entry = self._cameras[camera] = _Camera()
        return entry

    def _replace_pending(self, entry: _Camera, publication: Publication) -> None:
        if entry.pending is not None:
            self._close_later(entry.pending)
        entry.pending = publication

    def _drop(self, camera: str, publication: str) -> Publication | None:
        found = self.find(camera, publication)
        if found is not None:
            entry = self._cameras[camera]
            if entry.live is found:
                entry.live = None
            else:
                entry.pending = None
        return found

    def _close_later(self, publication: Publication) -> asyncio.Task[None]:
        return self._closing.spawn(self._close(publication))

    async def _hand_over(self, replaced: Publication) -> None:
        pauses = PauseDetector(HANDOVER)
        pauses.observe(self._clock.now())
        await self._clock.sleep(HANDOVER)
        while pauses.observe(self._clock.now()):  # while it was paused, this process could tell no viewer
            await self._clock.sleep(HANDOVER)
        self._close_later(replaced)

    async def _close(self, publication: Publication) -> None:
        if len(self._closing) > _MOST_CLOSINGS:
            self.unclosed += 1
            return
        try:
            await self.sink.close(publication.session, publication.tracks)
        except SinkError as error:
            self.unclosed += 1
            log.debug("tracks stay open: %s", error.message, extra={"camera": publication.camera})

    def _failed(self, name: str, entry: _Camera, request: PublishRequest, error: SinkError) -> PublishFailed:
        least, before = error.retry_after, entry.refused
        entry.refused, entry.error = error.unauthorized, error
        if error.remedy is Remedy.FATAL:
            least = max(least, _REFUSED_ONCE_PAUSE if entry.refused and not before else _WRONG_ACCOUNT_PAUSE)
        where = f" at {self.sink.name}" if self.sink.name else ""
        log.info("cannot publish%s: %s", where, error, extra={"camera": name, "retry_in": round(least, 2)})
        return PublishFailed(request=request.request, reason=str(error), retry_after=least)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"superseded": self.superseded, "unclosed": self.unclosed}


def _unusable(tracks: list[LocalTrack]) -> str:
    kinds = [track.kind for track in tracks]
    if not tracks or len(set(kinds)) != len(kinds) or not set(kinds) <= set(KINDS):
        return f"an offer holds one video and at most one audio track, not {kinds}"
    if len({track.mid for track in tracks}) != len(tracks) or not all(track.mid for track in tracks):
        return "every track of an offer needs its own mid"
    return ""
