"""Record of when refresh tokens were granted, to warn before one that lasts only a week expires.

Google expires the refresh tokens of an OAuth consent screen in "Testing" after seven days; the token does not show it.
The record holds a digest of the token, never the token. Source: https://developers.google.com/identity/protocols/oauth2
("Refresh token expiration").
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from relay_common.files import write_private
from relay_common.secrets import Secret
from relay_common.undecodable import UNDECODABLE

FILE: Final = "grants.json"
TESTING_LIFE: Final = 7 * 86400.0
"""Lifetime in seconds of a token granted by an unpublished consent screen."""
WARN_BEFORE: Final = 2 * 86400.0
_KEPT: Final = 20


class Grant(msgspec.Struct, frozen=True):
    """One authorisation: digest of its refresh token, Unix time, and whether the consent screen was published."""

    token: str
    at: float
    published: bool


def remember(directory: Path, token: Secret, at: float, *, published: bool) -> None:
    """Record that `token` was granted at `at`; raises OSError."""
    path = directory / FILE
    grants = [known for known in _read(path) if known.token != _digest(token)][-_KEPT:]
    write_private(path, msgspec.json.encode([*grants, Grant(_digest(token), at, published)]))


def recall(directory: Path, token: Secret) -> Grant | None:
    """The recorded grant of `token`, or None."""
    return next((known for known in _read(directory / FILE) if known.token == _digest(token)), None)


def warning(known: Grant | None, now: float) -> str:
    """Warning that a token expires soon or has expired at `now` (Unix seconds); empty when it has not."""
    if known is None or known.published:
        return ""
    left = known.at + TESTING_LIFE - now
    if left > WARN_BEFORE:
        return ""
    when = f"expires in about {left / 3600:.0f} hours" if left > 0 else "has expired"
    return f"the OAuth consent screen was in Testing when the refresh token was granted: it lasts 7 days and {when}"


def _digest(token: Secret) -> str:
    return hashlib.sha256(token.reveal().encode()).hexdigest()[:16]


def _read(path: Path) -> list[Grant]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Grant])
    except (OSError, *UNDECODABLE):
        return []
