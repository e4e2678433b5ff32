"""Viewers: one SFU session per page, pulling the cameras it asks for.

The page gets an offer and learns which mid is which camera; sessions, track names and the application's secret stay
here. A view is *offered* until the page's answer arrives, then *open*; it ends when the page closes it, when no answer
comes, when the page falls silent, or when the SFU loses the session. The content of a view: view.py.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.cloudflare import PoliciesRefused, SfuClient, SfuError
from relay_common.counters import joined
from relay_common.errors import Remedy
from relay_common.pauses import PauseDetector
from relay_common.tasks import Tasks
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.ice_servers import IceServers
from relay_supervisor.viewing.bounds import MAX_VIEWS, refusal
from relay_supervisor.viewing.decoding import Decoding, Received
from relay_supervisor.viewing.view import Sources, View
from relay_supervisor.viewing.views import (
    ALL_CAMERAS,
    OPERATOR,
    Audience,
    Unavailable,
    ViewAnswer,
    ViewError,
    Visitor,
    may_come,
    name_of,
    sfu_failure,
    view_gone,
    why_missing,
)

log = logging.getLogger(__name__)

CAMERAS_PER_VIEW: Final = 32
"""Two tracks each make the 64 that one call to the SFU takes."""
ANSWER_WITHIN: Final = 15.0
"""Seconds a page has for its answer."""
IDLE_AFTER: Final = 180.0
"""Seconds after the page's last request until its view is ended; background tabs wake once a minute."""
_PULL_ATTEMPTS: Final = 4
_LONGEST_SDP: Final = 512 * 1024
REFUSAL_HOLDS: Final = 60.0
"""Seconds for which a refusal of the SFU is reported when no viewer comes after it; pages try again every few."""

OUTCOMES: Final = (
    *("opened", "answered", "refused", "repointed", "reopened"),
    *("closed", "unanswered", "idle", "expired", "lost", "revoked", "requalified"),
)

_SWEEP: Final = 5.0
"""Seconds between two sweeps."""


class _Opening(NamedTuple):
    """A view that is being opened, and the cameras whose small picture it wants."""

    cameras: list[str]
    visitor: Visitor
    small: set[str]


class Viewers:
    """All views of this supervisor.

    `ice` lends STUN and TURN servers to the pages; `new_id` makes unguessable names; `on_asked` is called with the
    wanted cameras, `on_qualities` when qualities were asked for, and `link_revoked` with the link by which a visitor
    came. Not `enabled`, where cameras are not published at the SFU, they refuse everybody.
    """

    def __init__(
        self,
        client: SfuClient,
        broker: Broker,
        clock: Clock,
        *,
        rng: random.Random,
        ice: IceServers | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(18),
        bound: int = MAX_VIEWS,
        on_asked: Callable[[list[str]], None] = lambda cameras: None,
        on_qualities: Callable[[], None] = lambda: None,
        link_revoked: Callable[[str], bool] = lambda link: False,
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._client, self._clock, self._rng = client, clock, rng
        self._new_id, self._bound = new_id, bound
        self._on_asked, self._on_qualities = on_asked, on_qualities
        self._link_revoked = link_revoked
        self._views: dict[str, View] = {}
        self._opening: list[_Opening] = []
        self._pauses = PauseDetector(_SWEEP)
        self._closing = Tasks(log, "a view could not be closed")
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        self.decoding = Decoding()
        self._sources = Sources(client, broker, clock, ice or IceServers([], None, clock), self.outcomes)
        self._refusal: tuple[SfuError, float] | None = None
        """The SFU's latest refusal of a viewer, and when; None after a viewer that it took."""

    def __len__(self) -> int:
        return len(self._views)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self._pauses.counters() | joined(turn=self._sources.ice.counters())

    def refusal(self) -> SfuError | None:
        """Why the SFU refused the latest viewer, within the last minute; None when it did not."""
        error, at = self._refusal or (None, 0.0)
        return error if error is not None and self._clock.now() - at < REFUSAL_HOLDS else None

    def watched(self) -> set[str]:
        """Cameras in an open view, or in one that is being opened."""
        wanted = [view.cameras for view in self._views.values()] + [one.cameras for one in self._opening]
        return {camera for cameras in wanted for camera in cameras}

    def having_small(self) -> Counter[str]:
        """How many views have the small picture of each camera, are about to have it, or may soon need it again."""
        small = [view.needs_small() for view in self._views.values()] + [one.small for one in self._opening]
        return Counter(camera for cameras in small for camera in cameras)

    # --- what the page asks ---------------------------------------------------------------------------------------

    # `audience` is the caller's: a camera that it may not see is refused, and so is a view that was made for others.

    async def open(
        self,
        cameras: Sequence[str],
        audio: bool = True,
        qualities: Mapping[str, str] | None = None,
        *,
        audience: Audience = ALL_CAMERAS,
        visitor: Visitor = OPERATOR,
    ) -> ViewAnswer:
        """Open a view of `cameras` (at most 32 ids), with sound if `audio`, counted against `visitor`'s share.

        `qualities` says of which cameras the small picture is wanted, where there is one.

        The answer's action is `answer` when at least one camera is available, else `none` with an empty view name.
        """
        wanted = _checked(cameras, audience)
        if not self._enabled:
            raise ViewError(
                *("no_sfu", 409, "Cameras are not published at Cloudflare here"),
                hint="Play from /whep/{camera}, where [local] is on",
                remedy=Remedy.PARK,
            )
        present = [view.visitor for view in self._views.values()] + [one.visitor for one in self._opening]
        if (full := refusal(visitor, present, self._bound)) is not None:
            self.outcomes["refused"] += 1
            raise full
        self._on_asked(wanted)
        small = {camera for camera in wanted if (qualities or {}).get(camera) == "small"}
        opening = _Opening(wanted, visitor, small)
        self._opening.append(opening)
        try:
            if small:
                self._on_qualities()  # it is made by the time that the page is connected
            return await self._open(wanted, audio, audience, visitor, qualities)
        except SfuError as error:
            self._refusal = error, self._clock.now()
            raise sfu_failure(error) from error
        finally:
            self._opening.remove(opening)

    async def answer(self, view: str, sdp: str, *, audience: Audience = ALL_CAMERAS) -> None:
        """Pass the page's answer to the SFU."""
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
                self._refusal = error, self._clock.now()
                raise view_gone(f"the SFU did not take the answer ({name_of(error)})") from error
            found.offered_at, self._refusal = None, None
            self.outcomes["answered"] += 1

    async def update(
        self,
        view: str,
        cameras: Sequence[str] | None = None,
        stale: Sequence[str] = (),
        qualities: Mapping[str, str] | None = None,
        *,
        audience: Audience = ALL_CAMERAS,
    ) -> ViewAnswer:
        """Bring the view up to date with the publications; also keeps a quiet page's view alive.

        `cameras` replaces what the view holds; those in `stale` are pulled again; those in `qualities` are received in
        that quality from now on. The answer says what the page has to do; while an offer is unanswered nothing changes.
        """
        found = self._get(view, audience)
        async with found.lock:
            if found.closed:
                raise view_gone("it was closed")
            if cameras is not None:
                found.cameras = _checked(cameras, found.audience)
            found.want(qualities or {})
            if qualities:
                self._on_qualities()
            self._on_asked(found.cameras)
            if found.offered_at is not None:
                return found.describe("none", found.missing())
            try:
                return await found.follow(stale)
            except SfuError as error:
                log.info("a view has to be reopened: %s", error.message)
                answer = found.reopen()
                self._end(found, "lost")
                return answer

    def received(self, view: str, received: Sequence[Received], *, audience: Audience = ALL_CAMERAS) -> dict[str, str]:
        """Record what a visible page receives; returns, by camera, what is wrong with this page alone."""
        found = self._get(view, audience)
        known = [entry for entry in received if found.has(entry.camera)]
        return self.decoding.reports(found.name, known, self._clock.now())

    async def close(self, view: str, *, audience: Audience = ALL_CAMERAS) -> None:
        """End a view; an unknown one counts as ended."""
        found = self._views.get(view)
        if found is not None and audience.covers(found.audience):
            self._end(found, "closed")

    def of_link(self, link: str) -> int:
        """How many views came by that link."""
        return sum(view.visitor.link == link for view in self._views.values())

    def end_link(self, link: str) -> None:
        """End the views that came by that link, which was revoked; one that is being opened ends at the next sweep."""
        for view in [view for view in self._views.values() if view.visitor.link == link]:
            self._end(view, "revoked")

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
            elif view.visitor.link and self._link_revoked(view.visitor.link):
                self._end(view, "revoked")

    async def watch(self) -> None:
        """Sweep every few seconds; runs until cancelled."""
        while True:
            now = self._clock.now()
            if away := self._pauses.observe(now):
                self._put_off(away)
            self.sweep(now)
            await self._clock.sleep(_SWEEP)

    def _put_off(self, seconds: float) -> None:
        """Postpone the deadlines by a pause of this process: pages may have sent requests that are still unread."""
        for view in self._views.values():
            view.touched_at += seconds
            if view.offered_at is not None:
                view.offered_at += seconds

    async def aclose(self, *, within: float = 2.0) -> None:
        """End all views and wait at most `within` seconds for the SFU to close them."""
        for view in list(self._views.values()):
            self._end(view, "closed")
        await self._closing.aclose(within=within)

    # --- opening --------------------------------------------------------------------------------------------------

    async def _open(
        self,
        cameras: list[str],
        audio: bool,
        audience: Audience,
        visitor: Visitor,
        qualities: Mapping[str, str] | None,
    ) -> ViewAnswer:
        backoff = Backoff(0.25, 2.0, rng=self._rng)
        while True:
            located, missing = self._sources.locate(cameras)
            if not located:
                return self._nothing(missing, visitor)
            # A session whose first pull failed does not serve a second one reliably: take a new one each time.
            session = await self._client.new_session("view")
            view = View(
                *(self._sources, self._new_id(), session, cameras, audio, audience, visitor), qualities=qualities
            )
            try:
                pull = await view.pull(located)
            except PoliciesRefused:
                self._client.forget(session)
                if backoff.failures + 1 >= _PULL_ATTEMPTS:
                    raise
                await self._clock.sleep(backoff.next_delay())
                continue
            if pull.offer is not None:
                view.lent = await self._sources.ice.lend(guest=not visitor.operator, until=audience.until)
                self._views[view.name] = view
                self.outcomes["opened"] += 1
                return view.take(located, pull, missing)
            self._client.forget(session)
            if backoff.failures + 1 >= _PULL_ATTEMPTS or not may_come(pull):
                missing += [Unavailable(camera=p.camera, reason=why_missing(pull, p)) for p in located]
                return self._nothing(missing, visitor)
            await self._clock.sleep(backoff.next_delay())

    def _nothing(self, missing: list[Unavailable], visitor: Visitor) -> ViewAnswer:
        servers = self._sources.ice.plain(guest=not visitor.operator)
        return ViewAnswer(view="", action="none", tracks=[], unavailable=missing, ice_servers=servers)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _get(self, name: str, audience: Audience) -> View:
        view = self._views.get(name)
        if view is None or not audience.covers(view.audience):
            raise view_gone("it is not known: it expired, was closed, or the relay was restarted")
        view.touched_at = self._clock.now()
        return view

    def _end(self, view: View, outcome: str) -> None:
        if self._views.pop(view.name, None) is None:
            return
        view.closed = True
        self.decoding.forget(view.name)
        self.outcomes[outcome] += 1
        self._sources.ice.take_back(view.lent)
        self._closing.spawn(self._close(view))

    async def _close(self, view: View) -> None:
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
        # The same message whether or not the camera exists.
        raise ViewError("not_allowed", 403, "Your link does not show that camera", hint="Ask for another link")
    if 1 <= len(wanted) <= CAMERAS_PER_VIEW:
        return wanted
    raise ViewError(
        "bad_request",
        400,
        f"A view holds 1 to {CAMERAS_PER_VIEW} cameras, not {len(wanted)}",
        hint="Open several views",
    )
