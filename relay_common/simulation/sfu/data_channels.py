"""DataChannels of the simulated SFU's API: `datachannels/establish`, `new`, `update` and `close`.

Only the control plane: sections, ids, states and errors. The SCTP association behind them is not simulated, so no
message arrives; nothing of the relay uses one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.negotiation import answer_offer, parse_description
from relay_common.simulation.sfu.options import SfuVariant
from relay_common.simulation.sfu.sdp import Section
from relay_common.simulation.sfu.sessions import (
    ApiError,
    DataChannel,
    Session,
    State,
    description_of,
    invalid_description,
    invalid_params,
    not_connected,
)

Body = dict[str, Any]
SERVER_EVENTS: Final = "server-events"
"""The reserved channel whose pull brings up the transport; its id is 0."""
_FLAGS: Final = {"ordered": bool, "waitForAck": bool, "canReply": bool, "maxRetransmits": int, "maxPacketLifeTime": int}


class Sessions(Protocol):
    """What this needs of the service: its sessions, and to wait for a session's transport."""

    sessions: dict[str, Session]

    async def connected(self, session: Session) -> None: ...


@dataclass
class DataChannels:
    """The four operations, which return the JSON body or raise ApiError."""

    service: Sessions
    variant: SfuVariant

    async def establish(self, session: Session, body: Body) -> Body:
        """`POST datachannels/establish`: answers the endpoint's offer, or makes one."""
        entry = body.get("dataChannel")
        if not isinstance(entry, dict):
            raise ApiError(400, "decoding_error", "dataChannel must be an object")
        if entry.get("location") != "remote" or entry.get("dataChannelName") != SERVER_EVENTS:
            raise invalid_params(f"dataChannel: location must be remote and dataChannelName {SERVER_EVENTS}")
        result: Body = {"dataChannel": {"location": "remote", "dataChannelName": SERVER_EVENTS, "id": 0}}
        with session.mutation():
            await self.service.connected(session)
            if session.data_channels_established and body.get("sessionDescription") is None:
                return {"requiresImmediateRenegotiation": False, **result}
            if body.get("sessionDescription") is None:
                session.sections.append(Section("application", session.free_mid(), direction="sendrecv"))
                session.data_channels_established = session.offer_pending = True
                for section in session.sections:
                    section.setup = "actpass"
                sdp = sfu_sdp.write(session.sections, session.transport, session.version)
                session.version += 1
                description = {"type": "offer", "sdp": sdp}
                return {"requiresImmediateRenegotiation": True, "sessionDescription": description, **result}
            sdp = description_of(body, "offer")
            if not any(one.kind == "application" and not one.rejected for one in parse_description(sdp)):
                raise invalid_description("The offer has no section for data channels")
            session.data_channels_established = True
            description = answer_offer(session, sdp, self.variant)
            return {"requiresImmediateRenegotiation": False, "sessionDescription": description, **result}

    async def new(self, session: Session, body: Body) -> Body:
        """`POST datachannels/new`: publish (local) or subscribe (remote); ids are negotiated, one for each channel."""
        entries = _entries(body)
        for index, entry in enumerate(entries):
            _check(index, entry)
        with session.mutation():
            await self._transport(session)
            return {"dataChannels": [self._open(session, entry) for entry in entries]}

    async def update(self, session: Session, body: Body) -> Body:
        """`PUT datachannels/update`: who may reply on a pulled channel."""
        entries = _entries(body)
        with session.mutation():
            await self._transport(session)
            return {"dataChannels": [self._change(session, entry) for entry in entries]}

    async def close(self, session: Session, body: Body) -> Body:
        """`PUT datachannels/close`: by this session's ids. Subscribers of a closed channel lose it, too."""
        entries = _entries(body)
        with session.mutation():
            return {"dataChannels": [self._close(session, entry) for entry in entries]}

    async def _transport(self, session: Session) -> None:
        await self.service.connected(session)
        if session.state is not State.CONNECTED or not session.data_channels_established:
            raise not_connected()

    def _open(self, session: Session, entry: Body) -> Body:
        name, location = str(entry["dataChannelName"]), str(entry["location"])
        owner = str(entry.get("sessionId", "")) if location == "remote" else ""
        if any(
            one.active and (one.location, one.name, one.owner) == (location, name, owner) for one in session.channels
        ):
            return {
                **entry,
                "errorCode": "repeated_local_track_error",
                "errorDescription": "The channel exists already",
            }
        if location == "remote":
            publisher = self.service.sessions.get(owner)
            if publisher is None or not _published(publisher, name):
                return {**entry, "errorCode": "not_found_track_error", "errorDescription": "DataChannel not found"}
            if entry.get("canReply") and self._replier(owner, name):
                return {**entry, "errorCode": "invalid_params", "errorDescription": "Another session may reply already"}
        channel = DataChannel(location, name, owner, 1 + len(session.channels), can_reply=bool(entry.get("canReply")))
        session.channels.append(channel)
        return {**entry, "id": channel.id}

    def _change(self, session: Session, entry: Body) -> Body:
        channel = _by_id(session, entry)
        if channel is None or channel.location != "remote":
            return {**entry, "errorCode": "not_found_track_error", "errorDescription": "No such pulled DataChannel"}
        if entry.get("canReply") and not channel.can_reply and self._replier(channel.owner, channel.name):
            return {**entry, "errorCode": "invalid_params", "errorDescription": "Another session may reply already"}
        channel.can_reply = bool(entry.get("canReply", channel.can_reply))
        return entry

    def _close(self, session: Session, entry: Body) -> Body:
        channel = _by_id(session, entry)
        if channel is None:
            gone = "DataChannel doesn't exist or was already closed"
            return {"id": entry.get("id"), "errorCode": "close_track_error", "errorDescription": gone}
        channel.active = False
        if channel.location == "local":
            for viewer in self.service.sessions.values():
                for one in viewer.channels:
                    one.active = one.active and (one.owner, one.name) != (session.id, channel.name)
        return {"id": channel.id}

    def _replier(self, owner: str, name: str) -> bool:
        channels = (one for session in self.service.sessions.values() for one in session.channels)
        return any(one.active and one.can_reply and (one.owner, one.name) == (owner, name) for one in channels)


def _published(publisher: Session, name: str) -> bool:
    return any(one.active and one.location == "local" and one.name == name for one in publisher.channels)


def _by_id(session: Session, entry: Body) -> DataChannel | None:
    return next((one for one in session.channels if one.active and one.id == entry.get("id")), None)


def _entries(body: Body) -> list[Body]:
    entries = body.get("dataChannels")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ApiError(400, "decoding_error", "dataChannels must be a list of objects")
    if not entries:
        raise invalid_params("dataChannels: at least one entry is needed")
    return entries


def _check(index: int, entry: Body) -> None:
    """Raise `decoding_error` for wrong types, `invalid_params` for values that do not go together."""
    for name, kind in _FLAGS.items():
        if type(entry.get(name, kind())) is not kind:
            raise ApiError(400, "decoding_error", f"dataChannels[{index}].{name} must be of another type")
    if entry.get("location") not in ("local", "remote"):
        raise invalid_params(f"dataChannels[{index}]: location must be local or remote")
    if not entry.get("dataChannelName") or entry["dataChannelName"] == SERVER_EVENTS:
        raise invalid_params(f"dataChannels[{index}]: dataChannelName is missing or reserved")
    if entry["location"] == "remote" and not entry.get("sessionId"):
        raise invalid_params(f"dataChannels[{index}]: Missing sessionId")
    if entry["location"] == "local" and (entry.get("waitForAck") or entry.get("canReply")):
        raise invalid_params(f"dataChannels[{index}]: waitForAck and canReply are for remote channels")
    if "maxRetransmits" in entry and "maxPacketLifeTime" in entry:
        raise invalid_params(f"dataChannels[{index}]: maxRetransmits and maxPacketLifeTime exclude each other")
