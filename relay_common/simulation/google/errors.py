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
    """An HTTP answer: `body` is JSON-ready, or raw text that need not be JSON.

    `delay` is how many seconds it takes, after the effect; one beyond a client's patience is a hang.
    """

    status: int = 200
    body: dict[str, Any] | str = ""
    delay: float = 0.0


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
    """404 NOT_FOUND; the plain text is what a stale or expired stream gets."""
    return error(404, message)


def oauth_error(status: int, code: str, description: str) -> Reply:
    """The token endpoint's error shape."""
    return Reply(status, {"error": code, "error_description": description})


class OfferError(ValueError):
    """A WebRTC offer that a camera does not take; the text is the message of the 400 INVALID_ARGUMENT."""


class NoHostCandidate(OfferError):
    """One without a host candidate, to which Google is reported to answer 500 since June 2026 (go2rtc#2311)."""
