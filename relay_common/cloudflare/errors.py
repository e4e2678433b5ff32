"""Errors of Cloudflare's SFU, typed by what to do next.

Codes and their meaning: https://developers.cloudflare.com/realtime/sfu/observability/error-codes/. An error concerns
either a whole request (an HTTP status, usually with `errorCode`) or one track inside a 200 response.
"""

from __future__ import annotations

import enum
from typing import Final

from relay_common.errors import RelayError, Remedy, RemoteError
from relay_common.secrets import redact

_LONGEST_TEXT: Final = 300
_LONGEST_READ: Final = 4096
"""Most characters read of a text of the SFU's."""
_LONGEST_CODE: Final = 64


class SfuError(RemoteError):
    """The SFU refused, failed or could not be reached.

    `code` is Cloudflare's error code (empty when there was none), `status` the HTTP status (0 for a network
    failure or an error of one track) and `retry_after` the seconds the server asked us to wait (0 when it did not).
    `unresolved` says that no connection was made because a name could not be resolved.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        retry_after: float = 0.0,
        remedy: Remedy,
        hint: str = "",
        unresolved: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, remedy=remedy)
        self.code, self.status, self.retry_after = code, status, retry_after
        self.unresolved = unresolved


class SessionGone(SfuError):
    """The session has expired or lost its connection; it never recovers, so create another (HTTP 410)."""


class ResponseLost(SfuError):
    """A change was sent and no answer came: the session's state is unknown, so replace the connection."""


class ErrorClass(enum.Enum):
    """Outcome of a call; a label of the metrics."""

    OK = "ok"
    TRACK = "track_error"
    """Answered 200 with an error for at least one track."""
    UNAUTHORIZED = "unauthorized"
    REJECTED = "rejected"
    GONE = "gone"
    NOT_CONNECTED = "not_connected"
    RATE_LIMITED = "rate_limited"
    SERVER = "server_error"
    NETWORK = "network"


# Codes after which the same request may be retried without checking the session's state first.
_TRANSIENT: Final = frozenset(
    {"retryable_transient_error", "temporarily_unavailable_error", "transport_unavailable_error"}
)
# Track errors that only mean "not yet" or "not now".
_TRACK_RETRY: Final = _TRANSIENT | {
    "not_found_track_error",
    "empty_track_error",
    "track_error",
    "backend_error",
    "internal_error",
}

_HINTS: Final = {
    "unauthorized": "Check [cloudflare] app_secret: it is the secret of the SFU application, not an account API token",
    "not_found": ("Check [cloudflare] app_id; a new application can take a minute to become known everywhere"),
}


def classify(status: int, code: str) -> ErrorClass:
    """The class of a request that was answered with HTTP `status` (≥ 300) and error `code`."""
    if status in (401, 403):
        return ErrorClass.UNAUTHORIZED
    if status == 410:
        return ErrorClass.GONE
    if status == 425:
        return ErrorClass.NOT_CONNECTED
    if status == 429:
        return ErrorClass.RATE_LIMITED
    if status >= 500 or code in _TRANSIENT:
        return ErrorClass.SERVER
    return ErrorClass.REJECTED


_REMEDIES: Final = {
    ErrorClass.UNAUTHORIZED: Remedy.FATAL,
    ErrorClass.GONE: Remedy.REGENERATE,
    ErrorClass.NOT_CONNECTED: Remedy.RETRY,
    ErrorClass.RATE_LIMITED: Remedy.RETRY,
    ErrorClass.SERVER: Remedy.RETRY,
    # Overlapping negotiations get 406, too: a fresh session starts from a known state.
    ErrorClass.REJECTED: Remedy.REGENERATE,
}


def request_error(operation: str, status: int, code: str, description: str, retry_after: float = 0.0) -> SfuError:
    """The error for a request that was answered with HTTP `status` outside 2xx, or with a top-level `code`."""
    kind = classify(status, code)
    code = _tidy(code, _LONGEST_CODE)
    remedy = Remedy.FATAL if code == "not_found" else _REMEDIES[kind]
    detail = f"{code or 'no error code'}: {_tidy(description)}" if description else code or "no error code"
    return (SessionGone if kind is ErrorClass.GONE else SfuError)(
        f"Cloudflare SFU answered {operation} with {status} ({detail})",
        code=code,
        status=status,
        retry_after=retry_after,
        remedy=remedy,
        hint=_HINTS.get(code, _HINTS["unauthorized"] if kind is ErrorClass.UNAUTHORIZED else ""),
    )


def track_error(operation: str, code: str, description: str) -> SfuError:
    """The error of one track inside a response with status 200."""
    code = _tidy(code, _LONGEST_CODE)
    remedy = Remedy.RETRY if code in _TRACK_RETRY else Remedy.REGENERATE
    return SfuError(
        f"Cloudflare SFU refused a track of {operation} ({code}: {_tidy(description)})", code=code, remedy=remedy
    )


def safe_to_repeat(error: SfuError) -> bool:
    """Whether a request that changes a session may be retried after `error`: the server said it did nothing.

    True for 425, 429 and the codes of transient conditions; any other 5xx leaves the state unknown
    (https://developers.cloudflare.com/realtime/sfu/concepts/negotiation/, "Retry and reconnect").
    """
    return error.status in (425, 429) or error.code in _TRANSIENT or (error.status == 503 and not error.code)


def unauthorized(error: SfuError) -> bool:
    """Whether the application's secret was refused; the request then had no effect."""
    return classify(error.status, error.code) is ErrorClass.UNAUTHORIZED


def worth_repeating(error: RelayError) -> bool:
    """Whether a request that changes nothing, or may be retried freely, is worth retrying after `error`."""
    return isinstance(error, SfuError) and (error.status in (425, 429) or error.status >= 500 or error.status == 0)


def _tidy(text: str, longest: int = _LONGEST_TEXT) -> str:
    flat = " ".join(redact(text[:_LONGEST_READ]).split())
    return flat if len(flat) <= longest else flat[:longest] + "…"
