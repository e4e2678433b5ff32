"""What a session is told at its start, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from relay_common.secrets import Secret
from relay_worker.media.stream import Batch, Track


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Seconds to wait, and the name to go by."""

    read_timeout: float = 30.0
    """For an answer to any request: cameras that have to wake up take ten seconds and more for DESCRIBE."""
    media_timeout: float = 10.0
    """Without media while playing."""
    user_agent: str = "nest-relay"
    audio: bool = True
    """Set up the audio track, too: what nobody will hear need not be sent."""


class RtspMessage(NamedTuple):
    """A request or response as it was sent or received, with its credentials."""

    at: float
    """Monotonic seconds."""
    sent: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Playing:
    """PLAY was answered."""

    tracks: tuple[Track, ...]
    session_timeout: float


@dataclass(frozen=True, slots=True)
class Redirected:
    """The stream is at another URL; connect there."""

    url: Secret


SessionEvent: TypeAlias = Playing | Redirected | Batch
