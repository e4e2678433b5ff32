"""Control-plane rules of one SFU session, without I/O or clock: states, overlap, rate, section budget and errors."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from relay_common.fsm import Machine, Table
from relay_common.simulation.sfu.downstream import Downstream
from relay_common.simulation.sfu.options import SfuVariant
from relay_common.simulation.sfu.peer import Peer
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sdp import LocalTransport, Section


class ApiError(Exception):
    """An error response: HTTP status and Cloudflare's envelope."""

    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(description)
        self.status, self.code, self.description = status, code, description

    @property
    def envelope(self) -> dict[str, str]:
        """The body of the response."""
        return {"errorCode": self.code, "errorDescription": self.description}


def invalid_params(description: str) -> ApiError:
    """406: a bad field, value or limit."""
    return ApiError(406, "invalid_params", description)


def invalid_description(description: str) -> ApiError:
    """406: a bad session description, or one at the wrong time."""
    return ApiError(406, "invalid_session_description", description)


def session_gone() -> ApiError:
    """410: expired, disconnected or unknown; the id never recovers."""
    return ApiError(
        410, "session_error", "Session appears to be disconnected. Please check if the PeerConnection is connected."
    )


def not_connected() -> ApiError:
    """425: the transport is needed but did not connect in time."""
    return ApiError(
        425, "session_error", "Session is not connected yet. Please wait for the PeerConnection to connect."
    )


class State(enum.Enum):
    """State of a session."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    GONE = "gone"


class Event(enum.Enum):
    """Events of a session."""

    NEGOTIATED = "negotiated"
    CONNECTED = "connected"
    ENDED = "ended"


SESSION_TABLE: Final = Table(
    "SFU session",
    State.NEW,
    {
        (State.NEW, Event.NEGOTIATED): State.CONNECTING,
        (State.NEW, Event.ENDED): State.GONE,
        (State.CONNECTING, Event.CONNECTED): State.CONNECTED,
        (State.CONNECTING, Event.ENDED): State.GONE,
        (State.CONNECTED, Event.ENDED): State.GONE,
    },
)


@dataclass(frozen=True, slots=True)
class Preference:
    """A viewer's wish among simulcast layers; `rid` empty means the first."""

    rid: str = ""
    substitute: bool = False
    """Whether another layer will do while this one is not sent."""
    adaptive: bool = False
    """Whether a lower layer will do while this one does not fit the viewer's line."""


@dataclass(slots=True)
class Track:
    """One published (`local`) or pulled (`remote`) track of a session."""

    location: str
    mid: str
    name: str
    source_session: str = ""
    active: bool = True
    publication: Publication | None = None
    layers: dict[str, Publication] = field(default_factory=dict)
    """Simulcast: a publication by rid, `publication` among them; empty otherwise."""
    downstream: Downstream | None = None
    wish: Preference = Preference()
    """Of a pulled track."""
    unusable: bool = False
    """Published again on a mid that was force-closed: accepted, but nothing ever reaches a viewer."""

    @property
    def publications(self) -> list[Publication]:
        """What is published: one, one for each simulcast layer, or none."""
        return list(self.layers.values()) or ([self.publication] if self.publication is not None else [])

    def resource(self) -> dict[str, str]:
        """The track as `GET` of its session lists it."""
        owner = {"sessionId": self.source_session} if self.location == "remote" else {}
        status = "active" if self.active else "inactive"
        return {"location": self.location, "mid": self.mid, **owner, "trackName": self.name, "status": status}


@dataclass(slots=True)
class DataChannel:
    """One published (`local`) or pulled (`remote`) data channel; `owner` is the session that publishes a pulled one."""

    location: str
    name: str
    owner: str
    id: int
    can_reply: bool = False
    active: bool = True

    def resource(self) -> dict[str, Any]:
        """The channel as `GET` of its session lists it."""
        owner = {"sessionId": self.owner} if self.location == "remote" else {}
        status = "active" if self.active else "inactive"
        return {"location": self.location, **owner, "dataChannelName": self.name, "id": self.id, "status": status}


class Session:
    """One session: its state, tracks and sections; `mutation` guards every operation that changes it."""

    def __init__(
        self,
        session_id: str,
        peer: Peer,
        transport: LocalTransport,
        variant: SfuVariant,
        now: float,
        correlation: str = "",
    ) -> None:
        self.id, self.peer, self.transport, self.created = session_id, peer, transport, now
        self.correlation = correlation
        """The label given at its creation."""
        self._variant = variant
        self.machine = Machine(SESSION_TABLE)
        self.ready = asyncio.Event()
        """Set once connected, or gone."""
        self.tracks: list[Track] = []
        self.sections: list[Section] = []
        """The SFU's own side, in m-line order."""
        self.channels: list[DataChannel] = []
        self.data_channels_established = False
        self.offer_pending = False
        self.version = 1
        self.force_closed: set[str] = set()
        self.retired = 0
        self._busy = False
        self._requests: deque[float] = deque()

    @property
    def state(self) -> State:
        """The session's state."""
        return self.machine.state

    def fire(self, event: Event) -> None:
        """Make the transition for `event`; ignored if the current state does not allow it."""
        if self.machine.can(event):
            self.machine.fire(event)
        if self.state in (State.CONNECTED, State.GONE):
            self.ready.set()

    def count_request(self, now: float) -> None:
        """Count a request at `now`; raises 429 beyond the allowed number per second."""
        while self._requests and self._requests[0] <= now - 1:
            self._requests.popleft()
        if len(self._requests) >= self._variant.requests_per_second:
            raise ApiError(429, "rate_limited", "Too many requests for this session")
        self._requests.append(now)

    def require_alive(self) -> None:
        """Raise 410 when the session is gone."""
        if self.state is State.GONE:
            raise session_gone()

    @contextmanager
    def mutation(self, *, during_offer: bool = False) -> Iterator[None]:
        """Lock the session for one operation; raises 406 if another is running or an SFU offer awaits its answer."""
        self.require_alive()
        if self._busy:
            raise invalid_description("Another negotiation of this session is in progress")
        if self.offer_pending and not during_offer:
            raise invalid_description("The last offer of this session was not answered")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def retire_section(self) -> None:
        """Count an m-section that is closed permanently; too many end the session."""
        self.retired += 1
        if self.retired > self._variant.retired_sections:
            self.fire(Event.ENDED)

    def track(self, mid: str) -> Track | None:
        """The active track on `mid`."""
        return next((track for track in self.tracks if track.mid == mid and track.active), None)

    def published(self, name: str) -> Track | None:
        """The newest active local track of that name."""
        matching = (t for t in reversed(self.tracks) if t.location == "local" and t.name == name and t.active)
        return next(matching, None)

    def free_mid(self) -> str:
        """A mid that no section of this session uses."""
        used = {section.mid for section in self.sections}
        return next(str(number) for number in range(len(used) + 1) if str(number) not in used)


def track_entries(body: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The `tracks` of a request; raises `decoding_error` for wrong types and `invalid_params` for their number."""
    entries = body.get("tracks")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ApiError(400, "decoding_error", "tracks must be a list of objects")
    if not entries or len(entries) > limit:
        raise invalid_params(f"tracks: between 1 and {limit} entries are allowed, not {len(entries)}")
    for index, entry in enumerate(entries):
        for key in ("location", "mid", "trackName", "sessionId", "kind"):
            if not isinstance(entry.get(key, ""), str):
                raise ApiError(400, "decoding_error", f"tracks[{index}].{key} must be a string")
    return entries


def location_of(entries: list[dict[str, Any]]) -> str:
    """`local` or `remote` for the whole request; mixtures and missing fields are `invalid_params`."""
    locations = {entry.get("location") for entry in entries}
    if not locations <= {"local", "remote"} or len(locations) != 1:
        raise invalid_params("tracks: every location must be local, or every one remote")
    location = str(locations.pop())
    for index, entry in enumerate(entries):
        if not entry.get("trackName"):
            raise invalid_params(f"tracks[{index}]: Missing trackName in track")
        if location == "local" and not entry.get("mid"):
            raise invalid_params(f"tracks[{index}]: Missing mid in track")
        if location == "remote" and not entry.get("sessionId"):
            raise invalid_params(f"tracks[{index}]: Missing sessionId in track")
    return location


def description_of(body: dict[str, Any], kind: str) -> str:
    """The SDP of the request's `sessionDescription`, which must be of that kind (`offer` or `answer`)."""
    description = body.get("sessionDescription")
    if not isinstance(description, dict) or not isinstance(description.get("sdp"), str):
        raise invalid_description(f"sessionDescription with an {kind} is missing")
    if description.get("type") != kind:
        raise invalid_description(f"sessionDescription must be an {kind}, not {description.get('type')!r}")
    return str(description["sdp"])
