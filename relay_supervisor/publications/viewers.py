"""Viewers: one SFU session per page, pulling the cameras it asks for.

The page gets an offer and learns which mid is which camera; sessions, track names and the application's secret stay
here. A view is *offered* until the page's answer came, then *open*; it ends when the page closes it, when no answer
comes, when the page falls silent, or when the SFU lost the session.

When a camera is published anew its mids are re-pointed in place (`tracks/update`), and where the SFU does not allow
the camera is pulled anew. Whatever is added to a view comes as another offer on the same session; after a few of them
the page is told to open a fresh view.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.cloudflare import Pull, RemoteTrack, SfuClient, SfuError
from relay_supervisor.publications.broker import KINDS, Broker, Publication
from relay_supervisor.publications.concealment import conceal
from relay_supervisor.publications.views import (
    ALL_CAMERAS,
    Audience,
    Unavailable,
    ViewAnswer,
    ViewError,
    ViewTrack,
    may_come,
    name_of,
    sfu_failure,
    view_gone,
    why_missing,
)

log = logging.getLogger(__name__)

CAMERAS_PER_VIEW: Final = 32
"""Two tracks each make the 64 that one call to the SFU takes."""
MAX_VIEWS: Final = 128
ANSWER_WITHIN: Final = 15.0
"""Seconds a page has for its answer."""
IDLE_AFTER: Final = 180.0
"""Seconds after the page's last request until its view is ended; background tabs wake once a minute."""
_MOST_OFFERS: Final = 8
"""Offers on one session: each may add media sections, of which a session takes only so many."""
_PULL_ATTEMPTS: Final = 4
_LONGEST_SDP: Final = 512 * 1024

OUTCOMES: Final = (
    *("opened", "answered", "refused", "repointed", "reopened"),
    *("closed", "unanswered", "idle", "expired", "lost"),
)


class _View:
    def __init__(
        self, name: str, session: str, cameras: list[str], audio: bool, audience: Audience, now: float
    ) -> None:
        self.name, self.session, self.cameras, self.audio, self.audience = name, session, cameras, audio, audience
        self.lock = asyncio.Lock()
        self.tracks: dict[str, ViewTrack] = {}
        self.offers = 0
        self.offered_at: float | None = None
        """When an offer was handed out that is not answered yet."""
        self.touched_at = now
        self.closed = False

    def has(self, camera: str) -> bool:
        return any(track.camera == camera for track in self.tracks.values())


class Viewers:
    """All views of this supervisor.

    `ice_servers` goes to the page as it is; `new_id` makes unguessable names; `on_asked` is told of what a page wants.
    """

    def __init__(
        self,
        client: SfuClient,
        broker: Broker,
        clock: Clock,
        *,
        rng: random.Random,
        ice_servers: Sequence[dict[str, Any]] = (),
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(18),
        bound: int = MAX_VIEWS,
        on_asked: Callable[[list[str]], None] = lambda cameras: None,
    ) -> None:
        self._client, self._broker, self._clock, self._rng = client, broker, clock, rng
        self._ice_servers = list(ice_servers)
        self._new_id, self._bound, self._on_asked = new_id, bound, on_asked
        self._views: dict[str, _View] = {}
        self._opening: list[list[str]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))

    def __len__(self) -> int:
        return len(self._views)

    def watched(self) -> set[str]:
        """Cameras that somebody has a view of, or is getting one of."""
        wanted = [view.cameras for view in self._views.values()] + self._opening
        return {camera for cameras in wanted for camera in cameras}

    # --- what the page asks ---------------------------------------------------------------------------------------

    # `audience` is who asks: a camera that it may not see is refused, and so is a view that was made for others.

    async def open(self, cameras: Sequence[str], audio: bool = True, *, audience: Audience = ALL_CAMERAS) -> ViewAnswer:
        """Make a view of `cameras` (at most 32 ids), with their sound when `audio`.

        The answer's action is `answer` when at least one camera can be had, else `none` with an empty view name.
        """
        wanted = _checked(cameras, audience)
        self._on_asked(wanted)
        if len(self._views) + len(self._opening) >= self._bound:
            self.outcomes["refused"] += 1
            raise ViewError(
                "too_many_views",
                503,
                f"{self._bound} views are open, which is the most this relay serves",
                hint="Close other pages, or wait until idle ones expire",
            )
        self._opening.append(wanted)
        try:
            return await self._open(wanted, audio, audience)
        except SfuError as error:
            raise sfu_failure(error) from error
        finally:
            self._opening.remove(wanted)

    async def answer(self, view: str, sdp: str, *, audience: Audience = ALL_CAMERAS) -> None:
        """Hand the page's answer to the SFU."""
        if not sdp.startswith("v=0") or len(sdp) > _LONGEST_SDP:
            raise ViewError("bad_sdp", 400, "The answer is not an SDP", hint='Send {"sdp": localDescription.sdp}')
        found = self._get(view, audience)
        async with found.lock:
            if found.closed:
                raise view_gone("it was closed")
            if found.offered_at is None:
                raise ViewError("no_offer", 409, "This view waits for no answer", hint="Open a fresh view")
            try:
                await self._client.renegotiate(found.session, sdp)
            except SfuError as error:
                self._end(found, "lost")
                raise view_gone(f"the SFU did not take the answer ({name_of(error)})") from error
            found.offered_at = None
            self.outcomes["answered"] += 1

    async def update(
        self,
        view: str,
        cameras: Sequence[str] | None = None,
        stale: Sequence[str] = (),
        *,
        audience: Audience = ALL_CAMERAS,
    ) -> ViewAnswer:
        """Bring the view up to date with the publications; also what keeps a quiet page's view alive.

        `cameras` replaces what the view holds; those in `stale` are pulled anew. The answer says what the page has
        to do; while an offer is unanswered nothing changes.
        """
        found = self._get(view, audience)
        async with found.lock:
            if found.closed:
                raise view_gone("it was closed")
            if cameras is not None:
                found.cameras = _checked(cameras, found.audience)
            self._on_asked(found.cameras)
            if found.offered_at is not None:
                return self._describe(found, "none", self._missing(found))
            try:
                await self._drop(found, self._unfit(found) | set(stale))
                await self._repoint(found)
                return await self._add(found)
            except SfuError as error:
                log.info("a view has to be opened anew: %s", error.message)
                return self._reopen(found)

    async def close(self, view: str, *, audience: Audience = ALL_CAMERAS) -> None:
        """End a view; one that is not known counts as ended."""
        found = self._views.get(view)
        if found is not None and audience.covers(found.audience):
            self._end(found, "closed")

    # --- expiry ---------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End views whose answer or page is overdue, or whose time is over; `now` is the clock's monotonic time."""
        wall = self._clock.wall()
        for view in list(self._views.values()):
            if view.offered_at is not None and now - view.offered_at >= ANSWER_WITHIN:
                self._end(view, "unanswered")
            elif now - view.touched_at >= IDLE_AFTER:
                self._end(view, "idle")
            elif view.audience.until is not None and wall >= view.audience.until:
                self._end(view, "expired")

    async def watch(self) -> None:
        """Sweep every few seconds; runs until cancelled."""
        while True:
            self.sweep(self._clock.now())
            await self._clock.sleep(5.0)

    async def aclose(self, *, within: float = 2.0) -> None:
        """End all views and wait at most `within` seconds for the SFU to be told."""
        for view in list(self._views.values()):
            self._end(view, "closed")
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=within)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # --- opening --------------------------------------------------------------------------------------------------

    async def _open(self, cameras: list[str], audio: bool, audience: Audience) -> ViewAnswer:
        backoff = Backoff(0.25, 2.0, rng=self._rng)
        while True:
            located, missing = self._locate(cameras)
            if not located:
                return ViewAnswer(view="", action="none", tracks=[], unavailable=missing, ice_servers=self._ice_servers)
            # A session whose first pull failed does not serve a second one reliably: take a new one each time.
            session = await self._client.new_session("view")
            view = _View(self._new_id(), session, cameras, audio, audience, self._clock.now())
            asked, pull = await self._pull(view, located)
            if pull.offer is not None:
                self._views[view.name] = view
                self.outcomes["opened"] += 1
                return self._offer(view, asked, pull, missing)
            self._client.forget(session)
            if backoff.failures + 1 >= _PULL_ATTEMPTS or not may_come(pull):
                missing += [Unavailable(camera=p.camera, reason=why_missing(pull, p)) for p in located]
                return ViewAnswer(view="", action="none", tracks=[], unavailable=missing, ice_servers=self._ice_servers)
            await self._clock.sleep(backoff.next_delay())

    def _locate(self, cameras: Sequence[str]) -> tuple[list[Publication], list[Unavailable]]:
        located, missing = [], []
        for camera in cameras:
            publication = self._broker.locate(camera)
            if publication is None:
                missing.append(Unavailable(camera=camera, reason="The camera is not live"))
            else:
                located.append(publication)
        return located, missing

    async def _pull(self, view: _View, publications: Sequence[Publication]) -> tuple[dict[str, Publication], Pull]:
        tracks = [
            track
            for publication in publications
            for kind in KINDS
            if kind in _kinds(view, publication) and (track := publication.remote(kind)) is not None
        ]
        return {p.session: p for p in publications}, await self._client.pull(view.session, tracks)

    def _offer(self, view: _View, asked: dict[str, Publication], pull: Pull, missing: list[Unavailable]) -> ViewAnswer:
        for result in pull.tracks:
            publication = asked[result.track.session]
            if result.error is None:
                view.tracks[result.mid] = ViewTrack(
                    mid=result.mid, camera=publication.camera, kind=result.track.kind, publication=publication.id
                )
        missing = missing + [
            Unavailable(camera=p.camera, reason=why_missing(pull, p)) for p in asked.values() if not view.has(p.camera)
        ]
        if pull.offer is None:
            return self._describe(view, "none", missing)
        view.offers += 1
        view.offered_at = self._clock.now()
        offer = conceal(pull.offer, {track.mid: track.camera for track in view.tracks.values()})
        return self._describe(view, "answer", missing, offer)

    # --- following publications -----------------------------------------------------------------------------------

    def _unfit(self, view: _View) -> set[str]:
        """Cameras in the view that are not wanted any more, or whose publication has other kinds of tracks now."""
        unfit = set()
        for camera in {track.camera for track in view.tracks.values()}:
            tracks = [track for track in view.tracks.values() if track.camera == camera]
            publication = self._broker.locate(camera)
            if camera not in view.cameras or (publication is not None and _has_other_kinds(view, tracks, publication)):
                unfit.add(camera)
        return unfit

    async def _repoint(self, view: _View) -> None:
        """Point mids at the present publications; cameras for which the SFU refuses that are dropped."""
        moves: list[tuple[ViewTrack, Publication, RemoteTrack]] = []
        for track in view.tracks.values():
            publication = self._broker.locate(track.camera)
            if publication is None or publication.id == track.publication:
                continue
            remote = publication.remote(track.kind)
            if remote is not None:
                moves.append((track, publication, remote))
        if not moves:
            return
        results = await self._client.update(view.session, [(track.mid, remote) for track, _, remote in moves])
        refused = set()
        for (track, publication, _), result in zip(moves, results, strict=True):
            if result.error is None:
                view.tracks[track.mid] = msgspec.structs.replace(track, publication=publication.id)
            else:
                log.info("a track cannot be re-pointed: %s", result.error.message, extra={"camera": track.camera})
                refused.add(track.camera)
        self.outcomes["repointed"] += not refused
        await self._drop(view, refused)

    async def _drop(self, view: _View, cameras: set[str]) -> None:
        """Stop pulling `cameras`; those that are still wanted are added again as new tracks."""
        mids = [mid for mid, track in view.tracks.items() if track.camera in cameras]
        for mid in mids:
            del view.tracks[mid]
        if mids:
            await self._client.close(view.session, mids)

    async def _add(self, view: _View) -> ViewAnswer:
        """Pull the cameras that are wanted, live, and not in the view yet."""
        absent = [camera for camera in view.cameras if not view.has(camera)]
        located, missing = self._locate(absent)
        if not located:
            return self._describe(view, "none", missing)
        if view.offers >= _MOST_OFFERS:
            # What plays goes on until the page has the fresh view and closes this one.
            self.outcomes["reopened"] += 1
            return self._describe(view, "reopen", [])
        asked, pull = await self._pull(view, located)
        return self._offer(view, asked, pull, missing)

    def _missing(self, view: _View) -> list[Unavailable]:
        return self._locate([camera for camera in view.cameras if not view.has(camera)])[1]

    def _reopen(self, view: _View) -> ViewAnswer:
        self.outcomes["reopened"] += 1
        answer = self._describe(view, "reopen", [])
        self._end(view, "lost")
        return answer

    # --- parts ----------------------------------------------------------------------------------------------------

    def _get(self, name: str, audience: Audience) -> _View:
        view = self._views.get(name)
        if view is None or not audience.covers(view.audience):
            raise view_gone("it is not known: it expired, was closed, or the relay was restarted")
        view.touched_at = self._clock.now()
        return view

    def _describe(self, view: _View, action: str, missing: list[Unavailable], offer: str = "") -> ViewAnswer:
        return ViewAnswer(
            view=view.name,
            action=action,
            tracks=list(view.tracks.values()),
            unavailable=missing,
            offer=offer,
            ice_servers=self._ice_servers,
        )

    def _end(self, view: _View, outcome: str) -> None:
        if self._views.pop(view.name, None) is None:
            return
        view.closed = True
        self.outcomes[outcome] += 1
        task = asyncio.get_running_loop().create_task(self._close(view))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, view: _View) -> None:
        try:
            if view.tracks:
                await self._client.close(view.session, list(view.tracks))
        except SfuError as error:
            log.debug("a view's tracks stay open until the SFU collects them: %s", error.message)
        finally:
            self._client.forget(view.session)


def _checked(cameras: Sequence[str], audience: Audience) -> list[str]:
    wanted = list(dict.fromkeys(cameras))
    if not all(audience.sees(camera) for camera in wanted):
        # The same words whether or not there is such a camera.
        raise ViewError("not_allowed", 403, "Your link does not show that camera", hint="Ask for another link")
    if 1 <= len(wanted) <= CAMERAS_PER_VIEW:
        return wanted
    raise ViewError(
        "bad_request",
        400,
        f"A view holds 1 to {CAMERAS_PER_VIEW} cameras, not {len(wanted)}",
        hint="Open several views",
    )


def _kinds(view: _View, publication: Publication) -> set[str]:
    return {track.kind for track in publication.tracks if view.audio or track.kind == "video"}


def _has_other_kinds(view: _View, tracks: Sequence[ViewTrack], publication: Publication) -> bool:
    # The same publication with fewer tracks is one that the SFU handed out in part: asking again changes nothing.
    renewed = any(track.publication != publication.id for track in tracks)
    return renewed and {track.kind for track in tracks} != _kinds(view, publication)
