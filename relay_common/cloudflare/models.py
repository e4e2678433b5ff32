"""Messages of the SFU's session API, and the results that callers get.

The wire structs follow Cloudflare's OpenAPI description (realtime-api-2024-05-21): camelCase names, every field
optional. Callers get `LocalTrack`, `RemoteTrack`, `PulledTrack`, `Pull` and `SessionTrack`, in which an error that
the API hides inside a 200 is a value that cannot be overlooked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from relay_common.cloudflare.errors import SfuError

MAX_TRACKS: Final = 64
"""Tracks in one call (platform limits page)."""


class LocalTrack(msgspec.Struct, frozen=True, kw_only=True):
    """A track that we publish: the transceiver's mid in our offer, and the name others pull it by."""

    mid: str
    name: str
    kind: str


class SimulcastChoice(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """Which layer of a simulcast track to receive, and what the SFU does by itself when it cannot send that: `none`, or
    `asciibetical` for the next one in the alphabetical order of their rids. Left out, both are `none`.
    """

    preferred_rid: str
    priority_ordering: str = ""
    """Where bandwidth is short."""
    rid_not_available: str = ""
    """Where the publisher does not send it."""


class RemoteTrack(msgspec.Struct, frozen=True, kw_only=True):
    """The locator of a published track: it grants no permission, but never leaves the supervisor."""

    session: str
    name: str
    kind: str = ""
    simulcast: SimulcastChoice | None = None
    """For one that is published in several layers."""


class PulledTrack(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for one track of a pull or an update: a mid of the pulling session, or an error."""

    track: RemoteTrack
    mid: str
    error: SfuError | None = None


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a pull: one entry per requested track, in that order.

    `offer` is the SFU's SDP to be answered with `renegotiate`; None when nothing has to be negotiated, because
    every track failed or no new media section was needed.
    """

    tracks: list[PulledTrack]
    offer: str | None


class SessionTrack(msgspec.Struct, frozen=True, kw_only=True):
    """A track as the SFU lists it; `active` does not prove that packets flow."""

    mid: str
    name: str
    local: bool
    active: bool


# --- on the wire -----------------------------------------------------------------------------------------------


class SessionDescription(msgspec.Struct, rename="camel", frozen=True):
    type: str = ""
    sdp: str = ""


class TrackObject(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    location: str = ""
    mid: str = ""
    session_id: str = ""
    track_name: str = ""
    kind: str = ""
    simulcast: SimulcastChoice | None = None


class TracksRequest(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    tracks: list[TrackObject] = []
    session_description: SessionDescription | None = None
    force: bool | None = None


class TrackResult(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    location: str | None = None
    mid: str | None = None
    session_id: str | None = None
    track_name: str | None = None
    status: str | None = None
    error_code: str | None = None
    error_description: str | None = None


class Reply(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Any response of the API; fields that an operation does not use stay empty."""

    error_code: str | None = None
    error_description: str | None = None
    session_id: str | None = None
    session_description: SessionDescription | None = None
    requires_immediate_renegotiation: bool | None = None
    tracks: list[TrackResult] | None = None
