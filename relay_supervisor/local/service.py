"""Watching without the SFU: viewers' offers to the workers of cameras, sessions, and their end.

A viewer is *open* from the worker's answer until it or the worker ends it, its link ends or is revoked, or the worker
is gone. Sessions are kept in the state database: the next supervisor adopts the workers with their viewers, and has to
be able to end these.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from relay_common.clock import Clock
from relay_common.config import LocalConfig
from relay_common.ids import slug
from relay_common.local_messages import (
    LocalAnswer,
    LocalClose,
    LocalOffer,
    LocalPatched,
    LocalRefused,
    LocalStats,
    LocalTrickle,
    LocalViewerChanged,
)
from relay_common.pauses import PauseDetector
from relay_common.protocol import FromWorker
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.fleet.slot import Slot
from relay_supervisor.local.requests import WorkerRequests, no_worker, refused_by_worker
from relay_supervisor.local.sessions import LocalViewer, WhepError, digest, owner_of, visitor_of
from relay_supervisor.local.strangers import Strangers
from relay_supervisor.local.workers import LocalWorkers
from relay_supervisor.state.store import LinkCredential, SavedLocalViewer, Store
from relay_supervisor.status.model import LocalStatus
from relay_supervisor.viewing.bounds import refusal
from relay_supervisor.viewing.decoding import Decoding, Received
from relay_supervisor.viewing.views import Audience, Visitor

LOOK: Final = 1.0
"""Seconds between two sweeps: a link's end closes its viewers within that."""
READY_WITHIN: Final = 8.0
"""Seconds that an offer waits for a camera's worker to be started."""
FORGOTTEN_AFTER: Final = 15.0
"""Seconds after which a viewer counts as ended that its worker, or a supervisor's adopted worker, does not have."""
FULL_FOR: Final = 5.0
"""Seconds after which a viewer that found a camera full may try again."""
MOST_VIEWERS: Final = 256
OUTCOMES: Final = ("opened", "connected", "refused", "closed", "ended", "expired", "revoked", "lost", "unknown")


class Answered(NamedTuple):
    """An offer's answer: SDP, and the session's names."""

    camera: str
    viewer: str
    answer: str


class LocalViewing:
    """All viewers that workers answer. Listens to workers as the director's `WorkerListener`.

    `link_valid` tells whether a link may still be used; `credential` is a digest of the operator's token; `on_asked` is
    called with the cameras that somebody wants to watch; `tell` publishes an event about a camera; `decoding` takes
    what pages report.
    """

    def __init__(
        self,
        config: LocalConfig,
        *,
        registry: Registry,
        director: Director,
        store: Store,
        clock: Clock,
        on_asked: Callable[[Collection[str]], None],
        tell: Callable[[str, str, str], object],
        link_valid: Callable[[LinkCredential], bool],
        credential: str = "",
        decoding: Decoding | None = None,
        new_name: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._registry, self._store = registry, store
        self._clock, self._on_asked, self._tell, self._link_valid = clock, on_asked, tell, link_valid
        self._credential, self._new_name = credential, new_name
        self._decoding = decoding or Decoding()
        self._fleet = director.fleet
        self._workers = LocalWorkers(config, registry, director, store)
        self._requests = WorkerRequests(director.fleet.send)
        self._viewers: dict[str, LocalViewer] = {}
        self._opening: list[tuple[str, Visitor]] = []
        self._strangers, self._pauses = Strangers(), PauseDetector(LOOK)
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        director.listen(self)

    def __len__(self) -> int:
        return len(self._viewers)

    def __contains__(self, viewer: str) -> bool:
        return viewer in self._viewers

    @property
    def on(self) -> bool:
        """Whether viewers are answered at all."""
        return self._workers.on

    def allows(self, origin: str) -> bool:
        """Whether pages of that origin may play from here."""
        return self.on and origin in self._workers.config.allowed_origins

    def watched(self) -> set[str]:
        """Cameras with a viewer, or with one that is being answered."""
        return {viewer.camera for viewer in self._viewers.values()} | {camera for camera, _ in self._opening}

    def having_small(self) -> Counter[str]:
        """How many viewers have the small picture of each camera; not those that asked for it and get the full one."""
        return Counter(one.camera for one in self._viewers.values() if self._workers.quality(one) == "small")

    def load(self) -> None:
        """Read from the store which ports were dealt, and which viewers the workers of an earlier supervisor have."""
        self._workers.load()
        for saved in self._store.local_viewers():
            viewer = LocalViewer(saved, visitor_of(saved.owner), self._clock.now())
            self._viewers[viewer.name] = viewer

    def configure(self, config: LocalConfig) -> None:
        """Follow a reloaded configuration; viewers stay where their camera's port and addresses do."""
        if config != self._workers.config:
            self._workers.configure(config)

    # --- workers ---------------------------------------------------------------------------------------------------

    def worker_ready(self, camera: Camera) -> None:
        """A worker, new or adopted, is ready: tell it where to answer viewers."""
        self._workers.tell(camera.id)

    def worker_message(self, camera: Camera, message: FromWorker) -> None:
        """Handle what a worker says about viewers."""
        match message:
            case LocalAnswer() as answer:
                if not self._requests.answered(camera.id, answer) and answer.viewer not in self._viewers:
                    self._fleet.send(camera.id, LocalClose(viewer=answer.viewer, reason="nobody waits for it any more"))
            case LocalRefused() | LocalPatched():
                self._requests.answered(camera.id, message)
            case LocalViewerChanged(viewer=name, state=state):
                found = self._viewers.get(name)
                if found is None or found.camera != camera.id:
                    return
                if state == "ended":
                    self._forget(found, "ended")
                else:
                    self.outcomes["connected"] += 1
            case _:
                pass

    # --- what viewers ask ------------------------------------------------------------------------------------------

    async def open(
        self,
        camera: str,
        offer: str,
        *,
        audience: Audience,
        visitor: Visitor,
        link: LinkCredential | None = None,
        quality: str = "",
    ) -> Answered:
        """Have the worker of `camera` (an id, or a name in lower case with hyphens) answer an SDP offer.

        `link` is the link that the visitor came with, `quality` which of the camera's pictures it wants (`small`).
        Raises WhepError.
        """
        found = self._find(camera, audience)
        present = [viewer.visitor for viewer in self._viewers.values()] + [one for _, one in self._opening]
        if (full := refusal(visitor, present, MOST_VIEWERS)) is not None:
            self.outcomes["refused"] += 1
            raise full
        if not visitor.operator and self._guests(found.id) >= self._workers.most_guests:
            self.outcomes["refused"] += 1
            raise WhepError(
                *("too_many_viewers", 503, "As many guests as may watch this camera do"),
                hint="Try again when one has left",
                retry_after=FULL_FOR,
            )
        opening = found.id, visitor
        self._opening.append(opening)
        try:
            self._on_asked({found.id})
            return await self._open(found, offer, audience, visitor, link, quality)
        except WhepError:
            self.outcomes["refused"] += 1
            raise
        finally:
            self._opening.remove(opening)

    def _guests(self, camera: str) -> int:
        """Viewers of a camera that are not the operator's, those that are being answered included."""
        present = [(viewer.camera, viewer.visitor) for viewer in self._viewers.values()] + self._opening
        return sum(watched == camera and not visitor.operator for watched, visitor in present)

    async def _open(
        self,
        camera: Camera,
        offer: str,
        audience: Audience,
        visitor: Visitor,
        link: LinkCredential | None,
        quality: str,
    ) -> Answered:
        slot = await self._ready(camera.id)
        name, ends_at = self._new_name(), audience.until or 0.0
        answered = False
        try:
            answer = await self._requests.ask(
                camera.id,
                lambda number: LocalOffer(request=number, viewer=name, offer=offer, ends_at=ends_at, quality=quality),
            )
            if isinstance(answer, LocalRefused):
                raise refused_by_worker(answer)
            if not isinstance(answer, LocalAnswer):
                raise no_worker()
            answered = True
        finally:
            if not answered:  # a worker that answers late, or to nobody, is to keep no connection
                self._fleet.send(camera.id, LocalClose(viewer=name, reason="it was not answered"))
        saved = SavedLocalViewer(
            viewer=name,
            camera=camera.id,
            instance=slot.instance,
            owner=owner_of(visitor),
            credential=self._credential if visitor.operator else "",
            link=link,
            ends_at=ends_at,
            quality=answer.quality or quality,
        )
        self._viewers[name] = LocalViewer(saved, visitor, self._clock.now())
        self._store.save_local_viewer(saved)
        self.outcomes["opened"] += 1
        return Answered(camera.id, name, self._workers.without_others(answer.answer))

    async def trickle(self, viewer: str, fragment: str, match: str, *, visitor: Visitor) -> LocalPatched:
        """Pass further candidates on, with the request's If-Match; raises WhepError."""
        found = self._owned(viewer, visitor)
        answer = await self._requests.ask(
            found.camera, lambda number: LocalTrickle(request=number, viewer=found.name, fragment=fragment, match=match)
        )
        if not isinstance(answer, LocalPatched):
            raise no_worker()
        return msgspec.structs.replace(answer, fragment=self._workers.without_others(answer.fragment))

    def received(self, viewer: str, received: Sequence[Received], *, visitor: Visitor) -> dict[str, str]:
        """Record what a page that plays from here receives of its camera; returns what is wrong with it alone.

        Raises WhepError.
        """
        found = self._owned(viewer, visitor)
        known = [entry for entry in received if entry.camera == found.camera]
        return self._decoding.reports(found.name, known, self._clock.now())

    def quality(self, viewer: str, *, visitor: Visitor) -> str:
        """Which picture a viewer gets, `full` or `small`; raises WhepError."""
        return self._workers.quality(self._owned(viewer, visitor))

    def close(self, viewer: str, *, visitor: Visitor) -> None:
        """End a viewer; raises WhepError when it is not known, or another's."""
        self._end(self._owned(viewer, visitor), "closed", "the viewer has left")

    def _find(self, camera: str, audience: Audience) -> Camera:
        found = self._registry.get(camera) or next((one for one in self._registry if slug(one.name) == camera), None)
        if not audience.sees(found.id if found is not None else camera):
            # The same message whether or not the camera exists.
            raise WhepError("not_allowed", 403, "Your link does not show that camera", hint="Ask for another link")
        if not self.on:
            raise WhepError("local_off", 404, "Watching without Cloudflare is switched off", hint="Set [local] listen")
        if found is None:
            raise WhepError(
                "unknown_camera", 404, "There is no camera with that id", hint="GET /api/cameras lists them"
            )
        if self._registry.why_not(found):
            raise WhepError("disabled", 409, "The camera is switched off at the relay", hint="Enable it")
        return found

    async def _ready(self, camera: str) -> Slot:
        """The slot of a camera whose worker answers viewers, once it does; raises WhepError."""
        deadline = self._clock.now() + READY_WITHIN
        while True:
            if (slot := self._workers.slot(camera)) is not None:
                break
            if self._clock.now() >= deadline:
                raise no_worker()
            await self._clock.sleep(0.05)
        if problem := self._workers.problem(camera):
            raise WhepError("local_unavailable", 503, "This camera cannot be watched here", hint=problem)
        return slot

    def _owned(self, viewer: str, visitor: Visitor) -> LocalViewer:
        found = self._viewers.get(viewer)
        if found is None or found.saved.owner != owner_of(visitor):
            raise WhepError("session_gone", 404, "There is no such session", hint="Make another")
        return found

    def of_link(self, link: str) -> int:
        """How many viewers came by that link."""
        return sum(viewer.visitor.link == link for viewer in self._viewers.values())

    def end_link(self, link: str) -> None:
        """End the viewers that came by that link, which was revoked."""
        for viewer in [viewer for viewer in self._viewers.values() if viewer.visitor.link == link]:
            self._end(viewer, "revoked", "its link was revoked")

    # --- the end of sessions ---------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Sweep every second; runs until cancelled."""
        while True:
            now = self._clock.now()
            if away := self._pauses.observe(now):
                for viewer in self._viewers.values():  # what their workers said meanwhile is not read yet
                    viewer.made_at += away
            self.sweep(now)
            await self._clock.sleep(LOOK)

    def sweep(self, now: float) -> None:
        """End what may not be watched any longer or is not known, forget what is gone, and deal ports that are free."""
        wall = self._clock.wall()
        for viewer in list(self._viewers.values()):
            saved = viewer.saved
            if saved.ends_at and wall >= saved.ends_at:
                self._end(viewer, "expired", "its link has expired")
            elif (saved.link is not None and not self._link_valid(saved.link)) or self._outdated(saved):
                self._end(viewer, "revoked", "its link or token is no longer valid")
            elif self._lost(viewer, now):
                self._forget(viewer, "lost")
        for camera, name in self._strangers.look(self._workers.reported(), set(map(digest, self._viewers)), now):
            reason = "it is not known by whose credential it watches"
            if self._fleet.send(camera, LocalClose(viewer="", reason=reason, digest=name)):
                self.outcomes["unknown"] += 1
                self._tell("viewer", f"a local viewer was ended: {reason}", camera)
        self._workers.deal_again()

    def _outdated(self, saved: SavedLocalViewer) -> bool:
        return bool(saved.owner == "operator" and saved.credential != self._credential)

    def _lost(self, viewer: LocalViewer, now: float) -> bool:
        """Whether its worker is gone, or does not have it."""
        slot = self._fleet.slot(viewer.camera)
        settled = now - viewer.made_at > FORGOTTEN_AFTER
        if slot is None or slot.instance != viewer.instance:
            return settled or slot is not None
        report = self._workers.report(viewer.camera)
        if not settled or report is None or slot.stats_at - viewer.made_at < FORGOTTEN_AFTER:
            return False
        return digest(viewer.name) not in {one.name for one in report.viewers}

    def _end(self, viewer: LocalViewer, outcome: str, reason: str) -> None:
        slot = self._fleet.slot(viewer.camera)
        sent = self._fleet.send(viewer.camera, LocalClose(viewer=viewer.name, reason=reason))
        if not sent and slot is not None and slot.instance == viewer.instance:
            return  # its worker cannot be told just now: at the next sweep
        if outcome in ("expired", "revoked"):
            self._tell("viewer", f"a local viewer was ended: {reason}", viewer.camera)
        self._forget(viewer, outcome)

    def _forget(self, viewer: LocalViewer, outcome: str) -> None:
        if self._viewers.pop(viewer.name, None) is not None:
            self.outcomes[outcome] += 1
            self._decoding.forget(viewer.name)
            self._store.forget_local_viewer(viewer.name)

    # --- status ----------------------------------------------------------------------------------------------------

    def status(self, camera: str) -> LocalStatus:
        """What there is to say of a camera's local viewers."""
        report, slot = self._workers.report(camera) or LocalStats(), self._workers.slot(camera)
        problem = self._workers.problem(camera)
        return LocalStatus(
            on=self.on and not problem,
            publication=digest(slot.instance) if self.on and slot is not None else "",
            port=report.port,
            problem=problem,
            viewers=sum(viewer.camera == camera for viewer in self._viewers.values()),
            bytes_sent=report.bytes_sent,
            packets_sent=report.packets_sent,
            retransmitted=report.retransmitted,
            lost=report.lost,
            held_bytes=report.held_bytes,
            refused=report.refused,
        )

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return dict(self.outcomes) | {
            "unanswered": self._requests.unanswered,
            "without_port": len(self._workers.without),
        }
