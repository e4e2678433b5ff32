"""Error families: every failure says what to do next.

Errors are typed by remedy, not by origin, because the caller's only question is what to do now. `Remedy` is
the vocabulary; each exception carries one, the camera it concerns (when there is one) and a hint for a person.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final


class Remedy(enum.Enum):
    """What the caller should do about an error."""

    RETRY = "retry"
    """Retry after a backoff."""
    REFRESH_TOKEN = "refresh_token"
    """Refresh the access token once, then retry."""
    REGENERATE = "regenerate"
    """The stream or session is gone: create a new one."""
    SWITCH_PROTOCOL = "switch_protocol"
    """The camera speaks the other protocol now: read its traits again."""
    HOLD = "hold"
    """A quota is used up: send nothing of that kind for at least a minute."""
    PARK = "park"
    """Only a change made by a person (or a rediscovery) helps."""
    FATAL = "fatal"
    """Configuration or credentials are wrong: stop using this account."""


class RelayError(Exception):
    """Base of all errors this project raises deliberately.

    `message` says what happened; `hint` what a person can do; neither ever contains a secret.
    """

    remedy: Remedy = Remedy.RETRY

    def __init__(self, message: str, *, hint: str = "", remedy: Remedy | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if remedy is not None:
            self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigError(RelayError):
    """A configuration value is missing, unknown or wrong; names the key and the fix."""

    remedy = Remedy.FATAL


_MOST_NAMED: Final = 20
"""So many ids are named; whoever has more cameras asks for the list."""


class UnknownCamera(RelayError):
    """There is no camera with the id that was asked for; `known` are the ids that there are."""

    remedy = Remedy.PARK

    def __init__(self, camera: str, known: Iterable[str]) -> None:
        ids = sorted(known)
        more = f" and {len(ids) - _MOST_NAMED} more: GET /api/cameras lists them" if len(ids) > _MOST_NAMED else ""
        there = f"There are: {', '.join(ids[:_MOST_NAMED])}{more}" if ids else "There is none yet"
        super().__init__(f"There is no camera with the id {camera!r}", hint=there)


class LocalError(RelayError):
    """We misused a protocol: a bug on this side."""


class RemoteError(RelayError):
    """The other side broke a protocol or refused."""
