"""Typed errors of the SDM API and the token endpoint, each with the remedy it calls for.

`error_for` maps a refused request (reference: SDM "Error codes" page and reports from the field) to one of these.
Google's messages are quoted redacted and shortened.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from relay_common.config import LimitsConfig
from relay_common.errors import Remedy, RemoteError
from relay_common.secrets import redact
from relay_common.undecodable import UNDECODABLE

_QUOTE_LENGTH: Final = 200
_READ_LENGTH: Final = 4096
"""Most characters read of a message; searching megabytes of it for secrets would hold the supervisor up."""
_WORD_LENGTH: Final = 64


class NestError(RemoteError):
    """A request to Google failed.

    `status` is the HTTP status (None when there was no answer), `retry_after` the shortest wait in seconds that Google
    or experience calls for, `account` whether the failure affects every camera of the account rather than one,
    `counted` whether the request may have reached Google and so counts against the quota.
    """

    account: bool = False
    counted: bool = True
    least_wait: float | None = None
    unreached = False
    """Whether no connection was made."""
    unresolved = False
    """Whether that was because a name could not be resolved."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        remedy: Remedy | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, remedy=remedy)
        self.status = status
        self.retry_after = self.least_wait if retry_after is None else retry_after


class RateLimited(NestError):
    """429: a quota is used up. `bucket` is the API or command that Google's message names ("" when it names none)."""

    remedy = Remedy.HOLD

    def __init__(self, message: str, *, bucket: str = "", retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint, status=429, retry_after=retry_after)
        self.bucket = bucket


class Unauthenticated(NestError):
    """401: the access token was refused."""

    remedy = Remedy.REFRESH_TOKEN
    account = True


class Forbidden(NestError):
    """403: this device is not shared with us."""

    remedy = Remedy.PARK


class ApiDisabled(NestError):
    """403: the Smart Device Management API is disabled for the Google Cloud project, or the project is not ours."""

    remedy = Remedy.FATAL
    account = True


class DeviceNotFound(NestError):
    """404: the device was removed or its permission withdrawn."""

    remedy = Remedy.PARK


class ProjectNotFound(NestError):
    """404: the Device Access project id is wrong."""

    remedy = Remedy.FATAL
    account = True


class CommandUnknown(NestError):
    """404: Google does not know the command: a bug in the relay."""

    remedy = Remedy.PARK


class StreamGone(NestError):
    """The stream to extend or stop has expired or its token is no longer known."""

    remedy = Remedy.REGENERATE


class NotExtendable(NestError):
    """400 FAILED_PRECONDITION: this device's streams cannot be extended (battery doorbells)."""

    remedy = Remedy.REGENERATE


class WrongProtocol(NestError):
    """400 INVALID_ARGUMENT on Generate or Extend: the camera speaks the other protocol now, or a parameter was bad."""

    remedy = Remedy.SWITCH_PROTOCOL


class CameraUnavailable(NestError):
    """400 FAILED_PRECONDITION on Generate: the camera is off or offline."""

    least_wait = 30.0


class Conflict(NestError):
    """409: cause unknown; hammering it turns into 429 (go2rtc#1397)."""

    least_wait = 30.0


class GoogleServerError(NestError):
    """5xx: a failure on Google's side."""


class NestTimeout(NestError):
    """No answer in time; the command may have been carried out."""


class NestUnreachable(NestError):
    """The connection broke; the request may have arrived."""


class NotReached(NestUnreachable):
    """No connection was made (name resolution, route, TLS), so Google saw nothing: not a failure of the camera."""

    account = True
    counted = False
    unreached = True


class MalformedAnswer(NestError):
    """A success whose body does not have the documented form."""


class RequestRefused(NestError):
    """Any other refusal."""


class OfferRefused(NestError):
    """Google rejected the SDP offer of GenerateWebRtcStream: neither the camera's failure nor an outage.

    Since June 2026 an offer without a host candidate is reported to be answered with 500, and one whose sections are
    not audio, video, application with 400 (go2rtc#2311).
    """


class OfferUnavailable(NestError):
    """The worker supplied no WebRTC offer, so nothing was sent to Google."""

    counted = False


class NotInCommand(NestError):
    """Another supervisor may command the account, so nothing was sent to Google."""

    account = True
    counted = False


class MinuteUnknown(NotInCommand):
    """What another supervisor has sent in the last minute is not known: it may be all that is allowed."""

    def __init__(self, wait: float) -> None:
        super().__init__(
            "what the last supervisor has sent may not be known: nothing is sent until that is a minute ago",
            retry_after=wait,
        )


class AuthorizationRevoked(NestError):
    """`invalid_grant`: the refresh token no longer works; as a rule a person has to authorise again."""

    remedy = Remedy.FATAL
    account = True
    counted = False


class ClientRefused(NestError):
    """The OAuth client id or secret is wrong."""

    remedy = Remedy.FATAL
    account = True
    counted = False


class TokenUnavailable(NestError):
    """The token endpoint is unreachable or failing."""

    account = True
    counted = False


class _ErrorDetail(msgspec.Struct):
    message: str | None = None
    status: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail = msgspec.field(default_factory=_ErrorDetail)


class Refusal(msgspec.Struct, frozen=True):
    """Content of an error response: HTTP status, Google's status word and message ("" when the body is not JSON)."""

    http: int
    word: str
    message: str

    def __str__(self) -> str:
        quoted = redact(self.message)[:_QUOTE_LENGTH].strip().rstrip(".")
        return f"{self.http} {self.word or 'without a status word'}" + (f" ({quoted})" if quoted else "")


def parse_refusal(status: int, body: bytes) -> Refusal:
    """Parse an error response; of a body that is not Google's JSON only the HTTP status remains."""
    try:
        detail = msgspec.json.decode(body, type=_ErrorBody).error
    except UNDECODABLE:
        detail = _ErrorDetail()
    return Refusal(status, (detail.status or "")[:_WORD_LENGTH], (detail.message or "")[:_READ_LENGTH])


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header in its number form (RFC 9110 10.2.3), else None."""
    try:
        seconds = float(value) if value else None
    except ValueError:
        return None
    return min(seconds, 3600.0) if seconds is not None and seconds >= 0 else None


_HOST_CANDIDATE = re.compile(r"^a=candidate:.* typ host\b", re.MULTILINE)
_OFFER_AT_FAULT = re.compile(r"\boffer|\bsdp\b|\bm-?lines?\b|media section", re.IGNORECASE)
_BUCKET = re.compile(r"Rate limited for the (.+?)(?: API| command)?(?: for the user|\.|$)", re.IGNORECASE)
_DEVICE_NOT_FOUND = re.compile(r"\bdevices?\b.*not found", re.IGNORECASE)
_NO_SUCH_COMMAND = re.compile(r"command", re.IGNORECASE)
_NOT_EXTENDABLE = re.compile(r"not supported|doorbell|battery", re.IGNORECASE)
_API_DISABLED = re.compile(r"has not been used in project|is disabled|SERVICE_DISABLED", re.IGNORECASE)


def error_for(
    refusal: Refusal, *, what: str, verb: str, retry_after: float | None = None, offer: str = ""
) -> NestError:
    """The typed error for a refused request.

    `what` names the request and its device in words; `verb` is generate, extend, stop, get or list: the same status
    means different things for each. `offer` is the SDP sent with a GenerateWebRtcStream.
    """
    message = f"{what}: Google answered {refusal}"
    if offer and (refused := _offer_refused(refusal, message, offer)) is not None:
        return refused
    match refusal.http:
        case 429:
            named = _BUCKET.search(refusal.message)
            hint = _lists_are_shared(retry_after) if verb == "list" else ""
            return RateLimited(message, bucket=named.group(1) if named else "", retry_after=retry_after, hint=hint)
        case 400:
            return _bad_request(refusal, message, verb, retry_after)
        case 401:
            return Unauthenticated(message, status=401)
        case 403:
            return _forbidden(refusal, message)
        case 404:
            return _not_found(refusal, message, verb)
        case 409:
            return Conflict(message, status=409, retry_after=retry_after)
        case status if status >= 500:
            return GoogleServerError(message, status=status, retry_after=retry_after)
        case status:
            return RequestRefused(message, status=status, retry_after=retry_after)


def _lists_are_shared(retry_after: float | None) -> str:
    """Why a list of devices may be one too many, which whoever asks for it once cannot know."""
    wait = "a minute" if retry_after is None else f"{retry_after:.0f} s"
    return (
        f"Google's published limit is {LimitsConfig().devices_list_per_minute} such calls (devices.list) a minute for "
        "the project and user as a whole: a running relay, `relay-supervisor check`, `cameras` and `auth`, and other "
        f"programs share them. Wait {wait} before the next"
    )


def _offer_refused(refusal: Refusal, message: str, offer: str) -> OfferRefused | None:
    """The error if `offer` was the reason for the refusal; a 500 for a complete offer is Google's own failure."""
    if refusal.http == 500 and not _HOST_CANDIDATE.search(offer):
        hint = "The offer had no host candidate: give this host a network interface with its own address"
        return OfferRefused(message, status=500, hint=hint)
    if refusal.http == 400 and refusal.word != "FAILED_PRECONDITION" and _OFFER_AT_FAULT.search(refusal.message):
        return OfferRefused(message, status=400, hint="This is a bug in the relay: please report it")
    return None


def _bad_request(refusal: Refusal, message: str, verb: str, retry_after: float | None) -> NestError:
    if refusal.word == "INVALID_ARGUMENT" and verb in ("generate", "extend"):
        return WrongProtocol(message, status=400, hint="The camera's supported protocols are read again")
    if verb == "extend":
        if refusal.word == "FAILED_PRECONDITION" and _NOT_EXTENDABLE.search(refusal.message):
            return NotExtendable(message, status=400, hint="A new stream is generated before this one expires")
        return StreamGone(message, status=400)
    if verb == "stop":
        return StreamGone(message, status=400)
    if refusal.word == "FAILED_PRECONDITION" and verb == "generate":
        return CameraUnavailable(
            message,
            status=400,
            hint="The camera is probably switched off or offline: check it in the Google Home app",
            retry_after=retry_after,
        )
    return RequestRefused(message, status=400, retry_after=retry_after)


def _forbidden(refusal: Refusal, message: str) -> NestError:
    if _API_DISABLED.search(refusal.message):
        hint = "Enable the Smart Device Management API in the Google Cloud project that owns the OAuth client"
        return ApiDisabled(message, status=403, hint=hint)
    hint = "Share the device with this project at https://nestservices.google.com/partnerconnections"
    return Forbidden(message, status=403, hint=hint)


def _not_found(refusal: Refusal, message: str, verb: str) -> NestError:
    gone = "It was removed, or its permission withdrawn at https://nestservices.google.com/partnerconnections"
    if _DEVICE_NOT_FOUND.search(refusal.message):
        return DeviceNotFound(message, status=404, hint=gone)
    if verb == "list" or "enterprise" in refusal.message.lower():
        hint = "nest.project_id must be the Device Access project id (a UUID), not a Google Cloud project"
        return ProjectNotFound(message, status=404, hint=hint)
    if verb in ("extend", "stop"):
        return StreamGone(message, status=404)
    if verb == "generate" and _NO_SUCH_COMMAND.search(refusal.message):
        return CommandUnknown(message, status=404, hint="This is a bug in the relay: please report it")
    return DeviceNotFound(message, status=404, hint=gone)
