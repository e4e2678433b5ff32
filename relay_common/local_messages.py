"""What supervisor and worker say of local viewers: those that the worker answers itself, without the SFU ([local]).

A viewer's offer comes over HTTP to the supervisor, which judges whether it may watch; the worker answers it, and keeps
the connection. Part of the bus' messages (`protocol.py`), by the same rules.
"""

from __future__ import annotations

import msgspec


class _LocalMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


# --- supervisor → worker ---------------------------------------------------------------------------------------


class SetLocal(_LocalMessage, frozen=True, tag="local"):
    """Answer viewers on one UDP port of these addresses from now on, or none (`listen` empty): then all are closed."""

    listen: list[str]
    port: int = 0
    """0: any free one, which stays the worker's."""
    announce: list[str] = []
    """What answers name instead of the bound addresses: ADDRESS, ADDRESS:PORT or [IPV6]:PORT."""
    viewers: int = 4
    """Most at once."""


class LocalOffer(_LocalMessage, frozen=True, tag="local_offer"):
    """A viewer's SDP offer; answered by `LocalAnswer` or `LocalRefused`."""

    request: int
    viewer: str
    """The supervisor's name of it, which nobody can guess."""
    offer: str
    ends_at: float = 0.0
    """When it may no longer watch, Unix seconds; 0: never."""
    quality: str = ""
    """`small` or `full`; "" is `full`. A camera that makes no smaller picture has the full one alone."""


class LocalTrickle(_LocalMessage, frozen=True, tag="local_trickle"):
    """A viewer's further candidates (application/trickle-ice-sdpfrag, RFC 8840); answered by `LocalPatched`."""

    request: int
    viewer: str
    fragment: str
    match: str = ""
    """The request's If-Match; "" is `*`. Where it names another ICE session than the viewer's, the answer is 412."""


class LocalClose(_LocalMessage, frozen=True, tag="local_close"):
    """The viewer may not, or does not want to, watch any longer."""

    viewer: str
    """Empty where its name was lost with the supervisor's state: then `digest` names it."""
    reason: str = ""
    digest: str = ""
    """As `LocalViewerStats.name`."""


# --- worker → supervisor ---------------------------------------------------------------------------------------


class LocalAnswer(_LocalMessage, frozen=True, tag="local_answer"):
    """The SDP answer to a `LocalOffer`."""

    request: int
    viewer: str
    answer: str
    quality: str = ""
    """`small` or `full`: what it gets, which is the full one where no small one is made."""


class LocalRefused(_LocalMessage, frozen=True, tag="local_refused"):
    """Why a `LocalOffer` gets no answer, with an HTTP status that says so: 400, 406, 503."""

    request: int
    status: int
    reason: str
    """For the viewer; it quotes nothing of what the viewer sent."""
    retry_after: float = 0.0


class LocalPatched(_LocalMessage, frozen=True, tag="local_patched"):
    """What became of a `LocalTrickle`: 204, or 200 with the worker's own fragment, or why it cannot be done."""

    request: int
    status: int
    fragment: str = ""
    reason: str = ""


class LocalViewerChanged(_LocalMessage, frozen=True, tag="local_viewer"):
    """A viewer is connected, or its connection has ended; also when it did not connect in time."""

    viewer: str
    state: str
    """`connected` or `ended`."""
    reason: str = ""


LocalFromWorker = LocalAnswer | LocalRefused | LocalPatched | LocalViewerChanged
LocalFromSupervisor = SetLocal | LocalOffer | LocalTrickle | LocalClose


# --- in the worker's report ------------------------------------------------------------------------------------


class LocalViewerStats(msgspec.Struct, kw_only=True):
    """One local viewer of a camera."""

    name: str = ""
    """The first 16 hexadecimal digits of the SHA-256 of its name, which itself is a secret."""
    since: float = 0.0
    """Unix seconds."""
    connected: bool = False
    bitrate: float = 0.0
    """Bit/s sent over the last interval."""
    rtt: float = 0.0
    """Seconds."""
    loss: float = 0.0
    """Fraction lost as it last reported, 0..1."""
    quality: str = ""
    """`small` or `full`: what it gets now."""


class LocalStats(msgspec.Struct, kw_only=True):
    """What a worker does for local viewers; totals since it started unless a unit says otherwise."""

    port: int = 0
    """The UDP port that it answers on; 0: none."""
    problem: str = ""
    """Why it answers on none, or not on every address, in words."""
    bytes_sent: int = 0
    packets_sent: int = 0
    retransmitted: int = 0
    lost: int = 0
    """Packets that viewers reported as lost."""
    held_bytes: int = 0
    """Of the group of pictures that late joiners get at once."""
    refused: int = 0
    """Offers without an answer."""
    viewers: list[LocalViewerStats] = msgspec.field(default_factory=list)
