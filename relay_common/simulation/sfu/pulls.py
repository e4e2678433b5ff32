"""What viewers get: pulls and updates of tracks, and the layer that each is sent from moment to moment."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.codecs import fit, translate
from relay_common.simulation.sfu.downstream import Downstream
from relay_common.simulation.sfu.layers import Demand, allot, layer, next_better, preference
from relay_common.simulation.sfu.options import SfuTimings, SfuVariant
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import Section
from relay_common.simulation.sfu.sessions import ApiError, Preference, Session, State, Track
from relay_common.simulation.sfu.viewer_line import EXTENSION, ViewerLine

Body = dict[str, Any]
_HEADROOM = 1.15
"""What is tried out before more is sent: camera pictures come in bursts."""


class Pulls:
    """The pulling side of every session in `sessions`; operations return JSON or raise ApiError."""

    def __init__(
        self, sessions: dict[str, Session], timings: SfuTimings, variant: SfuVariant, rng: random.Random
    ) -> None:
        self._sessions, self._timings, self._variant, self._random = sessions, timings, variant, rng

    async def pull(self, session: Session, entries: list[Body]) -> Body:
        """Pull tracks that others publish: the SFU's offer, and for each its mid or why not."""
        wishes = [self._wish(entry) for entry in entries]
        sources = await asyncio.gather(*map(self._source, entries, wishes))
        session.require_alive()
        results: list[Body] = []
        for entry, wish, source in zip(entries, wishes, sources, strict=True):
            identity = {"sessionId": entry["sessionId"], "trackName": entry["trackName"]}
            if isinstance(source, ApiError):
                results.append({**identity, "mid": "", **source.envelope})
            else:
                results.append({**identity, "mid": self._subscribe(session, entry, source, wish)})
        if not any(result["mid"] for result in results):
            return {"requiresImmediateRenegotiation": False, "tracks": results}
        session.offer_pending = True
        for section in session.sections:
            section.setup = "actpass"
        sdp = sfu_sdp.write(session.sections, session.transport, session.version)
        session.version += 1
        return {
            "requiresImmediateRenegotiation": True,
            "tracks": results,
            "sessionDescription": {"type": "offer", "sdp": sdp},
        }

    def _wish(self, entry: Body) -> Preference:
        return preference(entry, policies=self._variant.simulcast_policies)

    def _flows(self, publication: Publication, now: float) -> bool:
        upstream = publication.upstream
        within = self._timings.layer_silent_after if publication.rid else self._timings.flowing_within
        return bool(upstream.packets) and now - upstream.arrived < within

    def _layer(self, track: Track, wish: Preference, now: float) -> Publication | None:
        return layer(track, wish, lambda publication: self._flows(publication, now))

    def _published(self, session_id: str, name: str) -> Track | None:
        publisher = self._sessions.get(session_id)
        return publisher.published(name) if publisher and publisher.state is State.CONNECTED else None

    async def _source(self, entry: Body, wish: Preference) -> Publication | ApiError:
        """Wait for the publication's media; an error for this track when it does not exist or stays silent."""
        deadline = time.monotonic() + self._timings.empty_track_wait
        while True:
            now = time.monotonic()
            track = self._published(entry["sessionId"], entry["trackName"])
            publication = self._layer(track, wish, now) if track is not None else None
            if track is None or publication is None:
                return ApiError(
                    200,
                    "not_found_track_error",
                    "Track not found on remote peer. Make sure the publisher peer is connected and sending packets "
                    "for this track",
                )
            if not track.unusable and self._flows(publication, now):
                return publication
            if now >= deadline:
                return ApiError(200, "empty_track_error", "No media was received for this track")
            await asyncio.sleep(min(0.05, deadline - now))

    def _subscribe(self, session: Session, entry: Body, source: Publication, wish: Preference) -> str:
        mid = session.free_mid()
        codecs, types = fit(source.section.codecs, session.sections)
        ssrc, rtx_ssrc = (self._random.randrange(1, 0xFFFFFFFF) for _ in range(2))
        has_rtx = any(codec.apt is not None for codec in codecs)
        cname = entry["sessionId"]
        section = Section(
            source.section.kind,
            mid,
            direction="sendonly",
            setup="actpass",
            codecs=codecs,
            ssrcs=[ssrc, rtx_ssrc] if has_rtx else [ssrc],
            rtx_ssrcs={ssrc: rtx_ssrc} if has_rtx else {},
            cname=cname,
            msid=f"{cname} {entry['trackName']}",
        )
        self._offer_estimate(section)
        downstream = Downstream(
            session.peer,
            source.upstream,
            ssrc=ssrc,
            rtx_ssrc=rtx_ssrc,
            payload_types=types,
            rtx_types={codec.apt: codec.payload_type for codec in codecs if codec.apt is not None},
            first_sequence=self._random.randrange(1, 0x7FFF),
            cname=cname,
        )
        session.peer.subscribe(downstream, source)
        session.sections.append(section)
        session.tracks.append(
            Track("remote", mid, entry["trackName"], entry["sessionId"], downstream=downstream, wish=wish)
        )
        return mid

    def update(self, session: Session, entry: Body) -> Body:
        """Another publication on the same mid, or another layer of the same one."""
        wish = self._wish(entry)
        identity = {
            "mid": entry.get("mid", ""),
            "sessionId": entry.get("sessionId"),
            "trackName": entry.get("trackName"),
        }
        remote = {t.mid: t for t in session.tracks if t.location == "remote"}
        track = remote.get(str(entry.get("mid")))
        refusal = {**identity, "errorCode": "update_track_error"}
        if track is None or not self._variant.allow_source_update:
            return {**refusal, "errorDescription": "The track is not configured for this update"}
        wanted = self._published(str(entry.get("sessionId")), str(entry.get("trackName")))
        now = time.monotonic()
        publication = self._layer(wanted, wish, now) if wanted is not None else None
        if wanted is None or publication is None or wanted.unusable:
            return {
                **identity,
                "errorCode": "not_found_track_error",
                "errorDescription": "Track not found on remote peer",
            }
        section = next(section for section in session.sections if section.mid == track.mid)
        types = translate(publication.section.codecs, section.codecs)
        if section.kind != publication.section.kind or not types or track.downstream is None:
            return {**refusal, "errorDescription": "The new track does not fit the negotiated codecs"}
        if publication.rid and session.peer.sources.get(track.downstream) in wanted.publications:
            self._switch(session, track, publication, now)
        else:
            track.downstream.translate(types)
            track.downstream.follow(publication.upstream)
            session.peer.subscribe(track.downstream, publication)
        track.source_session, track.name, track.wish = entry["sessionId"], entry["trackName"], wish
        return identity

    def _switch(self, session: Session, track: Track, publication: Publication, now: float) -> None:
        assert track.downstream is not None
        session.peer.join(track.downstream, publication, now, at_keyframe=self._variant.switch_at_keyframes)

    def _offer_estimate(self, section: Section) -> None:
        """Ask the viewer for the feedback that its estimate is made of."""
        kind = self._variant.viewer_estimate
        if kind:
            section.extensions = {EXTENSION: sfu_sdp.TRANSPORT_CC if kind == "transport-cc" else sfu_sdp.ABS_SEND_TIME}
            feedback = "transport-cc" if kind == "transport-cc" else "goog-remb"
            section.codecs = [
                codec if codec.apt is not None else replace(codec, feedback=(*codec.feedback, feedback))
                for codec in section.codecs
            ]

    def answered(self, session: Session, answer: list[Section]) -> None:
        """The viewer answered: with the feedback that was asked for, or without."""
        kind = self._variant.viewer_estimate
        if kind and session.peer.line is None and any(EXTENSION in section.extensions for section in answer):
            session.peer.line = ViewerLine(kind)

    def adapt(self, session: Session, now: float) -> None:
        """Move this session's simulcast tracks to the layers that are sent, and that fit the viewer's line."""
        pulled: list[tuple[Track, Demand]] = []
        for track in session.tracks:
            if track.location != "remote" or track.downstream is None:
                continue
            source = self._published(track.source_session, track.name)
            publication = self._layer(source, track.wish, now) if source is not None else None
            if source is not None and publication is not None:
                pulled.append((track, self._demand(source, track.wish, publication, now)))
        tracks, demands = [track for track, _ in pulled], [demand for _, demand in pulled]
        line = session.peer.line
        if line is None or line.estimate.available is None:
            chosen = [demand.layers[0] for demand in demands]
        else:
            chosen = allot(demands, line.estimate.available)
            more = next_better(demands, chosen)
            line.prober.want(_HEADROOM * more, now)
        for track, publication in zip(tracks, chosen, strict=True):
            if publication.rid:
                self._switch(session, track, publication, now)

    def _demand(self, source: Track, wish: Preference, publication: Publication, now: float) -> Demand:
        below = [source.layers[rid] for rid in sorted(source.layers) if rid > publication.rid] if wish.adaptive else []
        layers = (publication, *(layer for layer in below if self._flows(layer, now)))
        return Demand(layers, tuple(layer.upstream.rate for layer in layers), wish.adaptive)
