"""Replies of the Nest simulator, and the error bodies of Google's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

GRPC_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True)
class Reply:
    """An HTTP response: `body` is JSON-ready, or raw text that need not be JSON.

    `delay` is the time in seconds until it is sent, after the command took effect; one longer than a client's timeout
    is a hang. With `trickle` each byte of its body is sent that many seconds after the one before.
    """

    status: int = 200
    body: dict[str, Any] | str = ""
    delay: float = 0.0
    trickle: float = 0.0


def error(code: int, message: str, status: str = "") -> Reply:
    """Google's error shape: `{"error": {"code", "message", "status"}}`."""
    return Reply(
        code, {"error": {"code": code, "message": message, "status": status or GRPC_STATUS.get(code, "UNKNOWN")}}
    )


def rate_limited(bucket: str) -> Reply:
    """429 whose text names the bucket, as reported from the field ("ExecuteDeviceCommand API", ...)."""
    return error(429, f"Rate limited for the {bucket} for the user.")


def wrong_protocol(command: str) -> Reply:
    """An RTSP command for a WebRTC camera, or the reverse."""
    return error(400, f"Command {command} is not supported by the device's streaming protocol.")


def failed_precondition(message: str = "Precondition check failed.") -> Reply:
    """400 FAILED_PRECONDITION."""
    return error(400, message, "FAILED_PRECONDITION")


def not_found(message: str = "Requested entity was not found.") -> Reply:
    """404 NOT_FOUND; the default text is that for a stale or expired stream."""
    return error(404, message)


def oauth_error(status: int, code: str, description: str) -> Reply:
    """The token endpoint's error shape."""
    return Reply(status, {"error": code, "error_description": description})


class OfferError(ValueError):
    """A WebRTC offer that a camera rejects; the text is the message of the 400 INVALID_ARGUMENT."""


class NoHostCandidate(OfferError):
    """An offer without a host candidate, which Google is reported to answer with 500 since June 2026 (go2rtc#2311)."""
