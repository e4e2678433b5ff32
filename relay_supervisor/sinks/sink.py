"""What cameras are published to: the interface of every kind of sink, and how one fails.

A sink answers the offers of workers and keeps one session for each answer. Who is published where, since when and what
takes its place is the broker's business (`broker.py`), the same for every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay_common.cloudflare import LocalTrack
from relay_common.errors import RemoteError
from relay_common.protocol import TurnServer


class SinkError(RemoteError):
    """The sink refused, failed or could not be reached.

    `retry_after` is how many seconds it asked us to wait (0 when it did not), `unauthorized` whether it refused our
    credentials.
    """

    retry_after = 0.0
    unauthorized = False


class SinkSessionGone(SinkError):
    """The sink no longer knows the session."""


@dataclass(frozen=True)
class Opened:
    """A session that a sink has opened."""

    session: str
    """The sink's own name of it, kept in the state database and nowhere else."""
    answer: str
    """The SDP answer to the worker's offer."""
    ice_servers: Sequence[TurnServer] = ()
    """What the sink recommends for the next offer."""


class Sink(Protocol):
    """One place where cameras are published. Every method raises SinkError."""

    name: str
    """As in the configuration; "" for the SFU."""
    viewing: bool
    """Whether pages watch there."""

    async def open(
        self, camera: str, name: str, offer: str, tracks: Sequence[LocalTrack], made: Callable[[str], bool]
    ) -> Opened | None:
        """Publish `tracks` of `offer` in a new session, once; `camera` is the camera's id, `name` what people call it.

        `made` is called with the session as soon as there is something to close, also when a later step fails. It
        returns False when nobody waits for the answer any more; the result is then None.
        """
        ...

    async def alive(self, session: str) -> None:
        """Ask whether the session is still known; raises SinkSessionGone when it is definitely not."""
        ...

    async def patch(self, session: str, fragment: str, *, restart: bool) -> str:
        """Tell the session of further candidates, or restart ICE in it: the sink's own end of that, as an SDP fragment
        (RFC 8840).
        """
        ...

    async def close(self, session: str, tracks: Sequence[LocalTrack]) -> None:
        """End the session; one that is gone already counts as ended."""
        ...
