"""The SFU's API operations: their effect on sessions and on the media plane."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import Any

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.data_channels import DataChannels
from relay_common.simulation.sfu.dtls import DtlsIdentity
from relay_common.simulation.sfu.ice import IceLite
from relay_common.simulation.sfu.negotiation import answer_offer, check_mids, parse_description, take_transport
from relay_common.simulation.sfu.options import SfuFaults, SfuTimings, SfuVariant
from relay_common.simulation.sfu.peer import Peer
from relay_common.simulation.sfu.port import MediaPort
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.pulls import Pulls
from relay_common.simulation.sfu.sessions import (
    ApiError,
    Event,
    Session,
    State,
    Track,
    description_of,
    invalid_description,
    invalid_params,
    location_of,
    not_connected,
    session_gone,
    track_entries,
)

Body = dict[str, Any]
_GONE_KEPT = 1000


class SfuService:
    """All sessions, and the API's operations on them, which return the JSON body or raise ApiError."""

    def __init__(self, port: MediaPort, timings: SfuTimings, variant: SfuVariant, faults: SfuFaults) -> None:
        self.sessions: dict[str, Session] = {}
        self._port, self._timings, self._variant, self._faults = port, timings, variant, faults
        self._identity = DtlsIdentity(variant.srtp_profiles)
        self._random = random.Random()
        self._pulls = Pulls(self.sessions, timings, variant, self._random)
        self.data_channels = DataChannels(self, variant)
        port.on_tick = self.tick

    def session(self, session_id: str) -> Session:
        """The session, if it exists and is alive; ApiError 410 otherwise."""
        session = self.sessions.get(session_id)
        if session is None:
            raise session_gone()
        self._expire(session, time.monotonic())
        session.require_alive()
        return session

    # -- endpoints ----------------------------------------------------------------------------------------------

    async def new_session(self, body: Body, correlation: str = "") -> Body:
        """`POST sessions/new`, with or without an offer; `correlation` is the caller's label."""
        session_id = secrets.token_hex(16)
        ufrag, pwd = secrets.token_hex(8), secrets.token_hex(16)
        host, udp_port = self._port.address
        transport = sfu_sdp.LocalTransport(
            self._random.getrandbits(62),
            ufrag,
            pwd,
            self._identity.fingerprint,
            host,
            udp_port,
            self._variant.end_of_candidates,
        )
        peer = Peer(self._port, IceLite(ufrag, pwd), self._identity, self._new_ssrc())
        peer.mute_checks = self._faults.rng.random() < self._faults.never_connect
        session = Session(session_id, peer, transport, self._variant, time.monotonic(), correlation)
        peer.on_connected = lambda: session.fire(Event.CONNECTED)
        peer.on_closed = lambda: self.end(session)
        answer: Body = {}
        if body.get("sessionDescription") is not None:
            answer = {"sessionDescription": answer_offer(session, description_of(body, "offer"), self._variant)}
        self.sessions[session_id] = session
        self._port.add(peer)
        self._forget_old()
        return {"sessionId": session_id, **answer}

    async def tracks_new(self, session: Session, body: Body) -> Body:
        """`POST tracks/new`: publish (all local) or pull (all remote)."""
        if body.get("autoDiscover"):
            body = self._discover(session, body)
        entries = track_entries(body, self._variant.tracks_per_call)
        location = location_of(entries)
        with session.mutation():
            await self.connected(session)
            if location == "local":
                return self._publish(session, entries, body)
            if body.get("sessionDescription") is not None:
                raise invalid_params("sessionDescription: the simulator answers a pull with an offer only")
            return await self._pulls.pull(session, entries)

    async def renegotiate(self, session: Session, body: Body) -> Body:
        """`PUT renegotiate`: the endpoint's answer to the SFU's offer."""
        sdp = description_of(body, "answer")
        with session.mutation(during_offer=True):
            if not session.offer_pending:
                raise invalid_description("There is no offer to answer")
            answer = parse_description(sdp)
            if [section.mid for section in answer] != [section.mid for section in session.sections]:
                raise invalid_description("The answer's media sections are not those of the offer")
            take_transport(session, answer)
            session.offer_pending = False
            self._pulls.answered(session, answer)
            for section in answer:
                track = session.track(section.mid)
                if track is not None and track.downstream is not None:
                    track.downstream.active = not section.rejected and section.direction in ("recvonly", "sendrecv")
        return {}

    async def tracks_close(self, session: Session, body: Body) -> Body:
        """`PUT tracks/close`: forced without SDP, or negotiated with the endpoint's offer."""
        entries = track_entries(body, self._variant.tracks_per_call)
        if not isinstance(body.get("force"), bool):
            raise ApiError(400, "decoding_error", "force must be true or false")
        if not all(entry.get("mid") for entry in entries):
            raise invalid_params("tracks: every entry needs a mid")
        with session.mutation(during_offer=body["force"]):
            answer: Body = {}
            sdp = ""
            if not body["force"]:
                sdp = description_of(body, "offer")
                parse_description(sdp)
                await self.connected(session)
            results = [self._close_track(session, entry["mid"], force=body["force"]) for entry in entries]
            if sdp:
                answer = {"sessionDescription": answer_offer(session, sdp, self._variant)}
        return {"requiresImmediateRenegotiation": False, "tracks": results, **answer}

    async def tracks_update(self, session: Session, body: Body) -> Body:
        """`PUT tracks/update`: another publication, or another layer of it, on the same mid."""
        entries = track_entries(body, self._variant.tracks_per_call)
        with session.mutation():
            await self.connected(session)
            results = [self._pulls.update(session, entry) for entry in entries]
        return {"requiresImmediateRenegotiation": False, "tracks": results}

    async def get(self, session: Session) -> Body:
        """`GET` of a session."""
        channels = [channel.resource() for channel in session.channels]
        return {"tracks": [track.resource() for track in session.tracks], "dataChannels": channels}

    # -- publishing ---------------------------------------------------------------------------------------------

    def _discover(self, session: Session, body: Body) -> Body:
        known = {section.mid for section in session.sections}
        offered = parse_description(description_of(body, "offer"))
        tracks = [
            {"location": "local", "mid": section.mid, "trackName": secrets.token_hex(16)}
            for section in offered
            if section.mid not in known and section.kind in ("audio", "video")
        ]
        return {**body, "tracks": tracks}

    def _publish(self, session: Session, entries: list[Body], body: Body) -> Body:
        answer: Body = {}
        if body.get("sessionDescription") is not None:
            sdp = description_of(body, "offer")
            offered = {section.mid: section for section in parse_description(sdp)}
            check_mids(session, entries, offered)
            answer = {"sessionDescription": answer_offer(session, sdp, self._variant)}
        else:
            check_mids(session, entries, {section.mid: section for section in session.sections})
        for entry in entries:
            mid, name = entry["mid"], entry["trackName"]
            section = next(section for section in session.sections if section.mid == mid)
            track = Track("local", mid, name, unusable=mid in session.force_closed)
            if not section.rejected and section.direction == "recvonly":
                made = [Publication(session.peer, section, self._timings, rid) for rid in section.rids or ("",)]
                track.publication = made[0]
                track.layers = {publication.rid: publication for publication in made if publication.rid}
                for publication in made:
                    publication.upstream.arrived = time.monotonic()
                    session.peer.publish(publication)
            session.tracks.append(track)
        results = [{"mid": entry["mid"], "trackName": entry["trackName"]} for entry in entries]
        return {"requiresImmediateRenegotiation": False, "tracks": results, **answer}

    # -- closing and updating -----------------------------------------------------------------------------------

    def _close_track(self, session: Session, mid: str, *, force: bool) -> Body:
        track = session.track(mid)
        if track is None:
            return {
                "mid": mid,
                "errorCode": "close_track_error",
                "errorDescription": "Track doesn't exist or was already closed",
            }
        self._release(session, track)
        if force:
            session.force_closed.add(mid)
        for section in session.sections:
            if section.mid == mid:
                section.direction = "inactive"
        session.retire_section()
        return {"mid": mid}

    def _release(self, session: Session, track: Track) -> None:
        track.active = False
        for publication in track.publications:
            session.peer.unpublish(publication)
            self._end_subscriptions(publication)
        track.publication, track.layers = None, {}
        if track.downstream is not None:
            session.peer.unsubscribe(track.downstream)
            track.downstream = None

    def _end_subscriptions(self, publication: Publication, *, moving: bool = False) -> None:
        """Deactivate the tracks of an ended publication's viewers, who are not notified.

        `moving`: it was one of several layers, and viewers for whom another will do are about to get that.
        """
        orphans = set(publication.subscribers)
        for viewer in self.sessions.values() if orphans else ():
            for track in viewer.tracks:
                if track.downstream in orphans and not (moving and track.wish.substitute):
                    self._release(viewer, track)

    # -- lifetime -----------------------------------------------------------------------------------------------

    async def connected(self, session: Session) -> None:
        """Wait for the transport if one was negotiated; 425 if it does not connect in time, 410 if it is lost."""
        if session.state is State.NEW:
            return
        try:
            await asyncio.wait_for(session.ready.wait(), self._timings.connect_wait)
        except TimeoutError:
            raise not_connected() from None
        session.require_alive()

    def end(self, session: Session) -> None:
        """End the session and everything it publishes; its viewers are not notified."""
        session.fire(Event.ENDED)
        for track in session.tracks:
            if track.active:
                self._release(session, track)
        self._port.remove(session.peer)

    def _expire(self, session: Session, now: float) -> None:
        if session.state is State.GONE:
            return
        last = session.peer.last_datagram
        if session.state is State.CONNECTED:
            if last is not None and now - last > self._timings.connectivity_timeout:
                self.end(session)
        elif now - session.created > self._timings.unconnected_expiry:
            self.end(session)

    def tick(self, now: float) -> None:
        """Expire sessions and garbage-collect tracks without packets."""
        for session in self.sessions.values():
            self._expire(session, now)
            if session.state is not State.CONNECTED:
                if session.state is State.GONE and not session.peer.closed:
                    self.end(session)
                continue
            for track in session.tracks:
                for publication in track.publications:
                    publication.upstream.measure(now)
                self._collect(session, track, now)
            self._pulls.adapt(session, now)

    def _collect(self, session: Session, track: Track, now: float) -> None:
        """Drop what sends no packets: the track, or single layers of it, whose viewers may be content with another."""
        silent = [p for p in track.publications if now - p.upstream.arrived > self._timings.collect_after]
        if silent and len(silent) == len(track.publications):
            self._release(session, track)
            return
        for publication in silent:
            del track.layers[publication.rid]
            session.peer.unpublish(publication)
            if track.publication is publication:
                track.publication = track.layers[min(track.layers)]
            self._end_subscriptions(publication, moving=True)

    def _forget_old(self) -> None:
        gone = [key for key, session in self.sessions.items() if session.state is State.GONE]
        for key in gone[: max(0, len(gone) - _GONE_KEPT)]:
            del self.sessions[key]

    def _new_ssrc(self) -> int:
        return self._random.randrange(1, 0xFFFFFFFF)
