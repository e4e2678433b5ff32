"""Settings of a session and the events it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from relay_common.secrets import Secret
from relay_worker.media.stream import Batch, Track


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Timeouts in seconds, and the user agent."""

    read_timeout: float = 30.0
    """Longest wait for an answer to any request: cameras that have to wake up take ten seconds and more for
    DESCRIBE.
    """
    media_timeout: float = 10.0
    """Longest silence while playing."""
    user_agent: str = "nest-relay"
    audio: bool = True
    """Whether to set up the audio track, too."""


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
