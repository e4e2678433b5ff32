"""How a WHIP server fails, typed by what to do next (RFC 9725 §4.2, §4.5; RFC 9110 §15)."""

from __future__ import annotations

import email.utils
from typing import Final

from relay_common.errors import Remedy, RemoteError
from relay_common.secrets import REDACTED, Secret, redact

LONGEST_WAIT: Final = 300.0
"""Most seconds of a Retry-After that are obeyed: a server that asks for a day would be forgotten about."""
_LONGEST_READ: Final = 4096
_LONGEST_TEXT: Final = 200


class WhipError(RemoteError):
    """The server refused, failed or could not be reached.

    `status` is that of HTTP (0 without an answer), `retry_after` the seconds that the server asked us to wait (0 when
    it did not). No message holds the bearer token, or more of a URL than its scheme, host and port.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        retry_after: float = 0.0,
        remedy: Remedy = Remedy.RETRY,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint, remedy=remedy)
        self.status, self.retry_after = status, retry_after

    @property
    def never(self) -> bool:
        """Of a PATCH: whether the server takes none of its kind, now or later (RFC 9725 §4.3.1)."""
        return self.status in (405, 415, 422, 501)

    @property
    def unauthorized(self) -> bool:
        """Whether the bearer token was refused, or one is wanted."""
        return self.status in (401, 403)


_HINTS: Final = {
    401: "Check bearer_token: the server wants another, or one at all",
    403: "Check bearer_token: the server does not let it publish here",
    404: "Check the path of url: the server knows no such endpoint, or not yet",
    405: "Check the path of url: what answers there takes no WHIP",
    406: "The server takes no H.264 with Opus",
    409: "Somebody else publishes there, or our session before this one has not ended yet",
    415: "What answers there takes no WHIP",
    422: "The server cannot work with our offer",
}


def refusal(what: str, status: int, body: bytes, retry_after: float, token: Secret) -> WhipError:
    """The error for an answer with this status, outside 2xx."""
    text = body[:_LONGEST_READ].decode("utf-8", "replace")
    if token:
        text = text.replace(token.reveal(), REDACTED)
    text = " ".join(redact(text).split())
    # A page of HTML says nothing in so few characters.
    detail = f" ({text[:_LONGEST_TEXT]})" if text and not text.startswith("<") else ""
    remedy = Remedy.FATAL if status in (401, 403) else Remedy.RETRY
    return WhipError(
        f"the server answered {what} with {status}{detail}",
        status=status,
        retry_after=retry_after,
        remedy=remedy,
        hint=_HINTS.get(status, ""),
    )


def wait_of(retry_after: str, wall: float) -> float:
    """The seconds that a Retry-After asks for: a number, or a date to be compared with `wall` (RFC 9110 §10.2.3)."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), LONGEST_WAIT)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return 0.0
    return min(max(0.0, at - wall), LONGEST_WAIT)
