"""The cause that an error of Google's API stands for."""

from __future__ import annotations

import re
from typing import Final

from relay_common.causes import Cause
from relay_supervisor.google.errors import (
    ApiDisabled,
    AuthorizationRevoked,
    CameraUnavailable,
    ClientRefused,
    DeviceNotFound,
    Forbidden,
    GoogleServerError,
    MinuteUnknown,
    NestError,
    NestTimeout,
    NestUnreachable,
    NotInCommand,
    OfferRefused,
    OfferUnavailable,
    ProjectNotFound,
    RateLimited,
    StreamGone,
    TokenUnavailable,
)

_BY_TYPE: Final[tuple[tuple[type[NestError], Cause], ...]] = (
    (RateLimited, Cause.QUOTA_HELD),
    (Forbidden, Cause.CAMERA_NOT_SHARED),
    (DeviceNotFound, Cause.CAMERA_REMOVED),
    (ApiDisabled, Cause.PROJECT_REFUSED),
    (ProjectNotFound, Cause.PROJECT_REFUSED),
    (CameraUnavailable, Cause.CAMERA_OFFLINE),
    (StreamGone, Cause.STREAM_ENDED),
    (OfferRefused, Cause.OFFER_REFUSED),
    (OfferUnavailable, Cause.STARTING),
    (GoogleServerError, Cause.GOOGLE_FAILS),
    (NestTimeout, Cause.GOOGLE_SILENT),
    (NestUnreachable, Cause.GOOGLE_UNREACHABLE),
    (AuthorizationRevoked, Cause.TOKEN_REVOKED),
    (ClientRefused, Cause.CLIENT_REFUSED),
    (TokenUnavailable, Cause.TOKEN_UNAVAILABLE),
    (MinuteUnknown, Cause.QUOTA_UNKNOWN),
    (NotInCommand, Cause.STATE_UNWRITABLE),
)
"""The first type that fits counts."""
_NAMES_STATUS: Final = frozenset({Cause.QUOTA_HELD})
"""Causes whose sentence names the status."""


_REPEATED: Final = re.compile(r"^(?:[A-Z]+ was answered |the camera's \w+ cannot be carried: )")


def nest_cause(error: NestError) -> tuple[Cause, str]:
    """The cause of an error, and what its sentence does not say: the status that Google answered."""
    cause = next((cause for kind, cause in _BY_TYPE if isinstance(error, kind)), Cause.GOOGLE_REFUSES)
    if error.unresolved:
        cause = Cause.NAMES_UNRESOLVED
    elif error.unreached:
        cause = Cause.GOOGLE_UNREACHABLE
    return cause, "" if error.status is None or cause in _NAMES_STATUS else str(error.status)


def worker_detail(reason: str) -> str:
    """A worker's reason without the stage in front of it, without the hint behind it, and without what the cause's
    sentence says already.
    """
    head, colon, rest = reason.partition(": ")
    detail = (rest if colon and head.startswith(("RTSP ", "WebRTC ")) else reason).partition(". ")[0]
    return _REPEATED.sub("", detail)
