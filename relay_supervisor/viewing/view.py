"""One view: a session at the SFU that pulls cameras, and follows them from publication to publication.

When a camera is republished, its mids are re-pointed in place (`tracks/update`); where the SFU refuses that, the camera
is pulled again. Additions to a view come as another offer on the same session; after several of them the page is asked
to open a fresh view.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from relay_common.clock import Clock
from relay_common.cloudflare import Pull, RemoteTrack, SfuClient
from relay_supervisor.sinks.broker import KINDS, Broker, Publication
from relay_supervisor.sinks.ice_servers import IceServers, Lent
from relay_supervisor.viewing.concealment import conceal
from relay_supervisor.viewing.views import Audience, Unavailable, ViewAnswer, ViewTrack, Visitor, why_missing

log = logging.getLogger(__name__)

_MOST_OFFERS: Final = 8
"""Most offers on one session: each may add media sections, and a session takes a limited number."""

KEPT_WARM: Final = 20.0
"""Seconds for which a view's small picture is made on after it took the full one: so long a page tries whether its line
carries that, and a line that does not is the worst place to wait for an encoder."""

_NOTHING_LENT: Final = Lent(servers=[])


@dataclass(frozen=True)
class Sources:
    """What all views share; `outcomes` counts what happens to them."""

    client: SfuClient
    broker: Broker
    clock: Clock
    ice: IceServers
    outcomes: Counter[str]

    def locate(self, cameras: Sequence[str]) -> tuple[list[Publication], list[Unavailable]]:
        """The publications of those of `cameras` that are live, and the others."""
        located, missing = [], []
        for camera in cameras:
            publication = self.broker.locate(camera)
            if publication is None:
                missing.append(Unavailable(camera=camera, reason="The camera is not live"))
            else:
                located.append(publication)
        return located, missing


class View:
    """A page's session. Hold `lock` while changing it."""

    def __init__(
        self,
        sources: Sources,
        name: str,
        session: str,
        cameras: list[str],
        audio: bool,
        audience: Audience,
        visitor: Visitor,
        lent: Lent = _NOTHING_LENT,
        qualities: Mapping[str, str] | None = None,
    ) -> None:
        self._at = sources
        self.name, self.session, self.cameras, self.audio, self.audience = name, session, cameras, audio, audience
        self.visitor, self.lent = visitor, lent
        self.qualities: dict[str, str] = {}
        """Which quality the page wants of a camera: `small`, or `full` where it names none."""
        self._left_small: dict[str, float] = {}
        """When the page last wanted the full picture of a camera after the small one."""
        self.want(qualities or {})
        self.lock = asyncio.Lock()
        self.tracks: dict[str, ViewTrack] = {}
        self.offers = 0
        self.offered_at: float | None = None
        """When the offer that is still unanswered was handed out; None without one."""
        self.touched_at = sources.clock.now()
        self.closed = False

    def has(self, camera: str) -> bool:
        """Whether it holds a track of the camera."""
        return bool(self._held(camera))

    def _held(self, camera: str) -> set[str]:
        """The kinds of its tracks of the camera."""
        return {track.kind for track in self.tracks.values() if track.camera == camera}

    def _shows(self, camera: str) -> bool:
        """Whether it holds the camera's picture: one that did not come with the sound is asked for again."""
        return "video" in self._held(camera)

    def want(self, qualities: Mapping[str, str]) -> None:
        """From now on receive these cameras in these qualities; the others stay as they are."""
        wanted = self.qualities | dict(qualities)
        for camera, quality in wanted.items():
            if quality != "small" and self.qualities.get(camera) == "small":
                self._left_small[camera] = self._at.clock.now()
        self._left_small = {camera: at for camera, at in self._left_small.items() if camera in self.cameras}
        self.qualities = {camera: quality for camera, quality in wanted.items() if camera in self.cameras}

    def needs_small(self) -> set[str]:
        """Cameras whose small picture is to be made for it: it has it, wants it, or had it a moment ago."""
        cold = self._at.clock.now() - KEPT_WARM

        def needed(camera: str) -> bool:
            return self._wanted(camera) == "small" or self._left_small.get(camera, cold) > cold

        tracks = [track for track in self.tracks.values() if track.quality]
        return {track.camera for track in tracks if track.quality == "small" or needed(track.camera)}

    def missing(self) -> list[Unavailable]:
        """Cameras that it should hold, does not, and cannot get now."""
        return self._at.locate(self._absent())[1]

    async def pull(self, publications: Sequence[Publication]) -> Pull:
        """Ask the SFU for the tracks of `publications`. Raises SfuError."""
        tracks = [
            track
            for publication in publications
            for kind in KINDS
            if kind in self._kinds(publication) - self._held(publication.camera)
            and (track := publication.remote(kind, self._wanted(publication.camera))) is not None
        ]
        return await self._at.client.pull(self.session, tracks)

    def take(self, publications: Sequence[Publication], pull: Pull, missing: list[Unavailable]) -> ViewAnswer:
        """Add the result of pulling `publications`; the answer has its offer, and lists what is `missing`."""
        asked = {publication.session: publication for publication in publications}
        for result in pull.tracks:
            publication = asked[result.track.session]
            if result.error is None:
                self.tracks[result.mid] = ViewTrack(
                    mid=result.mid,
                    camera=publication.camera,
                    kind=result.track.kind,
                    publication=publication.id,
                    quality=self._quality(publication, result.track.kind),
                )
        missing = missing + [
            Unavailable(camera=p.camera, reason=why_missing(pull, p)) for p in publications if not self._shows(p.camera)
        ]
        if pull.offer is None:
            return self.describe("none", missing)
        self.offers += 1
        self.offered_at = self._at.clock.now()
        offer = conceal(pull.offer, {track.mid: track.camera for track in self.tracks.values()})
        return self.describe("answer", missing, offer)

    async def follow(self, stale: Sequence[str]) -> ViewAnswer:
        """Bring it up to date with the publications; cameras in `stale` are pulled again. Raises SfuError.

        Before its TURN credential ends the page is asked to open a fresh view.
        """
        if self._at.clock.wall() >= self.lent.ends_at:
            return self.reopen()
        await self._drop(self._unfit() | set(stale))
        await self._repoint()
        return await self._add()

    def reopen(self) -> ViewAnswer:
        """Have the page open a fresh view; this one plays on until then, if it can."""
        self._at.outcomes["reopened"] += 1
        return self.describe("reopen", [])

    def describe(self, action: str, missing: list[Unavailable], offer: str = "") -> ViewAnswer:
        """Its content, for the page."""
        return ViewAnswer(
            view=self.name,
            action=action,
            tracks=list(self.tracks.values()),
            unavailable=missing,
            offer=offer,
            ice_servers=self.lent.servers,
        )

    def _unfit(self) -> set[str]:
        """Cameras in the view that are no longer wanted, or whose publication now has other kinds of tracks."""
        unfit = set()
        for camera in {track.camera for track in self.tracks.values()}:
            tracks = [track for track in self.tracks.values() if track.camera == camera]
            publication = self._at.broker.locate(camera)
            if camera not in self.cameras or (publication is not None and self._has_other_kinds(tracks, publication)):
                unfit.add(camera)
        return unfit

    async def _repoint(self) -> None:
        """Point mids at the current publications and wanted layers; cameras that the SFU does not re-point are dropped,
        and those of which it refuses the other layer stay as they are.
        """
        moves: list[tuple[ViewTrack, Publication, RemoteTrack]] = []
        for track in self.tracks.values():
            publication = self._at.broker.locate(track.camera)
            if publication is None or self._is_as_wanted(track, publication):
                continue
            remote = publication.remote(track.kind, self._wanted(track.camera))
            if remote is not None:
                moves.append((track, publication, remote))
        if not moves:
            return
        results = await self._at.client.update(self.session, [(track.mid, remote) for track, _, remote in moves])
        refused = set()
        for (track, publication, _), result in zip(moves, results, strict=True):
            same, camera = track.publication == publication.id, track.camera
            if result.error is None:
                quality = self._quality(publication, track.kind)
                self.tracks[track.mid] = msgspec.structs.replace(track, publication=publication.id, quality=quality)
                self._at.outcomes["requalified"] += same
            elif same:
                log.info("a layer cannot be changed: %s", result.error.message, extra={"camera": camera})
                self.qualities[camera] = kept = track.quality or "full"
                self.tracks[track.mid] = msgspec.structs.replace(track, quality=kept)
            else:
                log.info("a track cannot be re-pointed: %s", result.error.message, extra={"camera": camera})
                refused.add(camera)
        if any(track.publication != publication.id for track, publication, _ in moves):
            self._at.outcomes["repointed"] += not refused
        await self._drop(refused)

    def _wanted(self, camera: str) -> str:
        return self.qualities.get(camera, "full")

    def _quality(self, publication: Publication, kind: str) -> str:
        """The quality of a track of `publication` that is received as wanted."""
        return self._wanted(publication.camera) if kind == "video" and publication.has_small else ""

    def _is_as_wanted(self, track: ViewTrack, publication: Publication) -> bool:
        return track.publication == publication.id and track.quality == self._quality(publication, track.kind)

    async def _drop(self, cameras: set[str]) -> None:
        """Stop pulling `cameras`; those that are still wanted are added again as new tracks."""
        mids = [mid for mid, track in self.tracks.items() if track.camera in cameras]
        for mid in mids:
            del self.tracks[mid]
        if mids:
            await self._at.client.close(self.session, mids)

    async def _add(self) -> ViewAnswer:
        """Pull the cameras that are wanted, live, and not in the view yet."""
        located, missing = self._at.locate(self._absent())
        if not located:
            return self.describe("none", missing)
        if self.offers >= _MOST_OFFERS:
            return self.reopen()
        return self.take(located, await self.pull(located), missing)

    def _absent(self) -> list[str]:
        return [camera for camera in self.cameras if not self._shows(camera)]

    def _kinds(self, publication: Publication) -> set[str]:
        return {track.kind for track in publication.tracks if self.audio or track.kind == "video"}

    def _has_other_kinds(self, tracks: Sequence[ViewTrack], publication: Publication) -> bool:
        # The same publication with fewer tracks was handed out in part by the SFU: asking again changes nothing.
        renewed = any(track.publication != publication.id for track in tracks)
        return renewed and {track.kind for track in tracks} != self._kinds(publication)
