"""Errors of an RTSP source, distinguished by stage and by remedy."""

from __future__ import annotations

import enum
from typing import ClassVar
from urllib.parse import SplitResult

from relay_common.causes import Cause
from relay_common.errors import Remedy, RemoteError
from relay_common.secrets import redact


class RtspStage(enum.Enum):
    """How far the source had got."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    OPTIONS = "options"
    DESCRIBE = "describe"
    SETUP = "setup"
    PLAY = "play"
    STREAMING = "streaming"


class RtspError(RemoteError):
    """The source failed at `stage`; `escalation` is the remedy when the first one has not helped a few times."""

    escalation: ClassVar[Remedy] = Remedy.REGENERATE
    otherwise: ClassVar[Cause] = Cause.CAMERA_BROKEN
    """The cause of a failure after the connection was made, without a status."""

    def __init__(self, stage: RtspStage, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(f"RTSP {stage.value}: {redact(message)}", hint=hint)
        self.stage = stage
        self.status = status
        """RTSP status code that caused it, 0 when none did."""

    @property
    def cause(self) -> Cause:
        """The reason code of this failure."""
        if self.stage is RtspStage.RESOLVE:
            return Cause.NAMES_UNRESOLVED
        if self.stage in (RtspStage.CONNECT, RtspStage.TLS):
            return Cause.CAMERA_UNREACHABLE
        return Cause.CAMERA_REFUSES if self.status else self.otherwise


class ConnectError(RtspError):
    """No connection: name resolution, TCP or TLS failed, or the server closed it."""

    otherwise = Cause.CAMERA_LOST


class RtspTimeoutError(RtspError):
    """The server did not answer, or stopped sending, in time."""

    otherwise = Cause.CAMERA_STALLED


class ProtocolError(RtspError):
    """The server sent something that cannot be understood or exceeds a limit."""


class NotFoundError(RtspError):
    """404: the camera is offline, the stream is not ready yet, or the URL is dead."""


class AccessError(RtspError):
    """401 or 403: the URL's token or the credentials are not valid any more."""

    remedy = Remedy.REGENERATE


class GoneError(RtspError):
    """410: this URL will not work again."""

    remedy = Remedy.REGENERATE


class SessionLostError(RtspError):
    """454, or the server ended the session: connect again."""

    otherwise = Cause.CAMERA_LOST


class RtspServerError(RtspError):
    """5xx and other refusals of a request."""


class RedirectError(RtspError):
    """A redirect that must not or cannot be followed."""

    remedy = Remedy.REGENERATE


class UnsupportedError(RtspError):
    """The stream has no track, or the server no transport, that this relay can use."""

    remedy = Remedy.PARK
    otherwise = Cause.CODEC_UNSUPPORTED


_HINT_TOKEN = "The stream URL's token is stale or in use elsewhere; a new URL is needed"


def access_hint(url: SplitResult) -> str:
    """What to do when the server refuses access to `url`: it depends on what the URL proves the right to it with."""
    if url.username is not None:
        return "The server does not accept this user name and password"
    if "auth=" in url.query:  # Google's
        return _HINT_TOKEN
    # Without its scheme: a whole URL would have the example redacted, as a password.
    return "If the camera wants a user name and a password, put them into the URL before its host: USER:PASSWORD@HOST"


def error_for_status(stage: RtspStage, method: str, status: int, reason: str, access: str = _HINT_TOKEN) -> RtspError:
    """The typed error for a response that refuses `method`; `access` is the hint when access is refused."""
    message = f"{method} was answered {status} {reason}".rstrip()
    if status == 404:
        return NotFoundError(stage, message, hint="The camera may be offline or still starting", status=status)
    if status in (401, 403):
        return AccessError(stage, message, hint=access, status=status)
    if status == 410:
        return GoneError(stage, message, hint=_HINT_TOKEN, status=status)
    if status == 454:
        return SessionLostError(stage, message, status=status)
    if status in (415, 461):
        return UnsupportedError(stage, message, hint="The server offers no RTP over TCP (interleaved)", status=status)
    return RtspServerError(stage, message, status=status)
