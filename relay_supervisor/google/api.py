"""Typed client of the SDM API: devices and live stream commands.

One call here is one request, except that devices.list follows its pages and that list and get repeat themselves
once with a fresh token after a 401: each further request waits for its `Turn`, because Google counts it too. Stream
commands are never repeated here: the dispatcher does that, within the budget.
"""

from __future__ import annotations

import datetime
import email.utils
import logging
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import httpx
import msgspec

from relay_common.bounded_http import BodyTooLarge, whole_body
from relay_common.deadline import Deadline
from relay_common.protocol import Protocol as StreamProtocol
from relay_common.sdp_lines import MAX_SDP
from relay_common.secrets import Secret, redact
from relay_common.spoken import spoken, unresolved
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.google.errors import (
    MalformedAnswer,
    NestError,
    NestTimeout,
    NestUnreachable,
    NotReached,
    TokenUnavailable,
    Unauthenticated,
    error_for,
    parse_refusal,
    parse_retry_after,
)
from relay_supervisor.google.models import (
    CommandBody,
    Device,
    DeviceBody,
    DeviceListBody,
    Extension,
    Listing,
    LiveStream,
    NameBody,
    StreamBody,
    device_from,
    streamless,
)

log = logging.getLogger(__name__)

COMMAND_TIMEOUT: Final = 30.0
UNKNOWN_LIFE: Final = 60.0
"""Lifetime in seconds assumed for a stream whose expiry is missing or nonsensical: short, so it is extended soon."""
_CLOCKS_AGREE: Final = 5.0
_LONGEST_LIFE: Final = 86_400.0
_MOST_PAGES: Final = 50
_LONGEST_BODY: Final = 2 << 20
"""Most bytes of a response body; a page of devices takes a few hundred thousand at most."""
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_COMMANDS: Final = "sdm.devices.commands.CameraLiveStream."
_NAMES: Final = {StreamProtocol.RTSP: "RtspStream", StreamProtocol.WEB_RTC: "WebRtcStream"}
_HANDLES: Final = {StreamProtocol.RTSP: "streamExtensionToken", StreamProtocol.WEB_RTC: "mediaSessionId"}

T = TypeVar("T")


class CommandAnswer(NamedTuple):
    """Google's response with its complete body."""

    status: int
    headers: httpx.Headers
    body: bytes


Turn = Callable[[], Awaitable[None]]
"""Awaited before each further request of a call; returns once the quota has room for that request."""


async def at_once() -> None:
    """A `Turn` that never waits, for callers without a budget."""


class Tokens(Protocol):
    """Source of access tokens (`TokenSource`)."""

    async def token(self) -> Secret: ...

    def invalidate(self, token: Secret) -> None: ...


def command_name(verb: str, protocol: StreamProtocol) -> str:
    """Short name of a stream command, for example GenerateRtspStream; Google's 429 messages use it too."""
    return f"{verb.capitalize()}{_NAMES[protocol]}"


class NestApi:
    """The Smart Device Management API v1 for one Device Access project and user.

    Devices are named by id or by full resource name. `timeout` bounds a request in seconds until its response has been
    read completely, however slowly it trickles in. All methods raise `NestError`s (see errors.py) and nothing else.
    Source: https://developers.google.com/nest/device-access/api.
    """

    def __init__(
        self,
        project_id: str,
        tokens: Tokens,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._parent = f"enterprises/{urllib.parse.quote(project_id, safe='')}"
        self._tokens, self._base, self._http, self._wall = tokens, base_url.rstrip("/"), http, wall
        self.clock_skew = 0.0
        """Seconds by which our clock was ahead of Google's at its latest answer."""

    async def devices(self, *, timeout: float = COMMAND_TIMEOUT) -> list[Device]:
        """Every device with a live stream, in Google's order (devices.list)."""
        return (await self.listing(timeout=timeout)).devices

    async def listing(self, *, timeout: float = COMMAND_TIMEOUT, turn: Turn = at_once) -> Listing:
        """Every device, those without a live stream by name only (devices.list)."""
        found: list[Device] = []
        others: dict[str, str] = {}
        page = ""
        for _ in range(_MOST_PAGES):
            query = {"pageToken": page} if page else None
            if page:
                await turn()
            path, what = f"{self._parent}/devices", "list of devices"
            response = await self._fresh(path, what=what, verb="list", query=query, timeout=timeout, turn=turn)
            body = _decode(response, DeviceListBody, "list of devices")
            for one in body.devices or []:
                device = _listed(one)
                if isinstance(device, Device):
                    found.append(device)
                elif device.name:
                    others[device.name] = streamless(device)
            page = body.next_page_token or ""
            if not page:
                break
        return Listing(found, frozenset(others), tuple(filter(None, others.values())))

    async def device(self, device: str, *, timeout: float = COMMAND_TIMEOUT, turn: Turn = at_once) -> Device:
        """One device (devices.get); MalformedAnswer when it has no live stream (any more)."""
        what = f"traits of device {_short(device)}"
        response = await self._fresh(self._path(device), what=what, verb="get", timeout=timeout, turn=turn)
        found = device_from(_decode(response, DeviceBody, what))
        if found is None:
            raise MalformedAnswer(f"{what}: Google names no live stream")
        return found

    async def generate(
        self, device: str, protocol: StreamProtocol, *, offer_sdp: str = "", timeout: float = COMMAND_TIMEOUT
    ) -> LiveStream:
        """Generate a new stream; `offer_sdp` for WebRTC only."""
        params = {"offerSdp": offer_sdp} if protocol is StreamProtocol.WEB_RTC else {}
        what = _what("generate", protocol, device)
        results, life, expires_at = await self._command("generate", protocol, device, params, timeout, offer_sdp)
        if protocol is StreamProtocol.RTSP:
            if results.stream_urls is None or not results.stream_extension_token:
                raise MalformedAnswer(f"{what}: the answer has no URL or no extension token")
            url = Secret(results.stream_urls.rtsp_url)
            return LiveStream(protocol, Secret(results.stream_extension_token), life, expires_at, url=url)
        if not results.answer_sdp or not results.media_session_id:
            raise MalformedAnswer(f"{what}: the answer has no SDP or no media session id")
        if len(results.answer_sdp) > MAX_SDP:
            raise MalformedAnswer(f"{what}: the answer's SDP has {len(results.answer_sdp)} characters (over {MAX_SDP})")
        answer = Secret(results.answer_sdp)
        return LiveStream(protocol, Secret(results.media_session_id), life, expires_at, answer_sdp=answer)

    async def extend(
        self, device: str, protocol: StreamProtocol, handle: Secret, *, timeout: float = COMMAND_TIMEOUT
    ) -> Extension:
        """Extend a stream by a full lifetime."""
        params = {_HANDLES[protocol]: handle.reveal()}
        results, life, expires_at = await self._command("extend", protocol, device, params, timeout)
        new = results.stream_extension_token or results.media_session_id or ""
        return Extension(Secret(new), life, expires_at, Secret(results.stream_token or ""))

    async def stop(
        self, device: str, protocol: StreamProtocol, handle: Secret, *, timeout: float = COMMAND_TIMEOUT
    ) -> None:
        """End a stream before it expires."""
        await self._command("stop", protocol, device, {_HANDLES[protocol]: handle.reveal()}, timeout)

    async def _command(
        self, verb: str, protocol: StreamProtocol, device: str, params: dict[str, str], timeout: float, offer: str = ""
    ) -> tuple[StreamBody, float, float]:
        what = _what(verb, protocol, device)
        body = {"command": _COMMANDS + command_name(verb, protocol), "params": params}
        path = f"{self._path(device)}:executeCommand"
        response = await self._request(path, what=what, verb=verb, body=body, timeout=timeout, offer=offer)
        results = _decode(response, CommandBody, what).results
        life, expires_at = life_of(results.expires_at or "", response.headers.get("date"), self._wall())
        return results, life, expires_at

    async def _fresh(
        self, path: str, *, what: str, verb: str, timeout: float, turn: Turn, query: dict[str, str] | None = None
    ) -> CommandAnswer:
        """Send a GET, once more with a new token after a 401."""
        try:
            return await self._request(path, what=what, verb=verb, timeout=timeout, query=query)
        except Unauthenticated:
            await turn()
            return await self._request(path, what=what, verb=verb, timeout=timeout, query=query)

    async def _request(
        self,
        path: str,
        *,
        what: str,
        verb: str,
        timeout: float,
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
        offer: str = "",
    ) -> CommandAnswer:
        deadline = Deadline(timeout)
        token = await self._token(deadline, what)
        request = self._http.build_request(
            "GET" if body is None else "POST",
            f"{self._base}/{path}",
            headers={"Authorization": f"Bearer {token.reveal()}"},
            json=body,
            params=query,
            timeout=timeout,
        )
        try:
            async with deadline:
                answer = await self._exchange(request, what)
        except _NOT_SENT as error:
            raise _not_reached(error, what) from None
        except (TimeoutError, httpx.TimeoutException):
            raise NestTimeout(f"{what}: no complete answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NestUnreachable(f"{what}: {spoken(error)}") from None
        log.debug("%s: %d", what, answer.status)
        if (server := _http_date(answer.headers.get("date"))) is not None:
            self.clock_skew = self._wall() - server
        if answer.status == 200:
            return answer
        refused = _refused(answer, what, verb, offer)
        if isinstance(refused, Unauthenticated):
            self._tokens.invalidate(token)
        raise refused

    async def _token(self, deadline: Deadline, what: str) -> Secret:
        try:
            async with deadline:
                return await self._tokens.token()
        except TimeoutError:
            raise TokenUnavailable(f"{what}: Google's token endpoint gave no token in time") from None

    async def _exchange(self, request: httpx.Request, what: str) -> CommandAnswer:
        """Send a request and read its answer, bounded in length."""
        response = await self._http.send(request, stream=True)
        try:
            body = await whole_body(response.aiter_bytes(), _LONGEST_BODY)
            return CommandAnswer(response.status_code, response.headers, body)
        except BodyTooLarge as error:
            raise MalformedAnswer(f"{what}: the answer is {error}") from None
        finally:
            await response.aclose()

    def _path(self, device: str) -> str:
        return device if device.startswith("enterprises/") else f"{self._parent}/devices/{device}"


def life_of(expires_at: str, date: str | None, wall: float) -> tuple[float, float]:
    """Remaining lifetime in seconds according to a response's `expiresAt`, and the wall time at which it ends.

    Measured on the server's clock if there is a Date header, otherwise on ours (`wall`, Unix seconds). When the two
    agree, the shorter lifetime is taken: a busy server's Date may be a second or two old.
    """
    expires = _rfc3339(expires_at)
    if expires is None:
        return UNKNOWN_LIFE, wall + UNKNOWN_LIFE
    # A Date header is truncated to whole seconds: the server's clock may be almost a second ahead of it.
    server = _http_date(date)
    life = by_our_clock = expires - wall
    if server is not None:
        life = expires - (server + 1.0)
        if abs(life - by_our_clock) < _CLOCKS_AGREE:
            life = min(life, by_our_clock)
    if life > _LONGEST_LIFE or (server is None and life <= 0):
        return UNKNOWN_LIFE, wall + UNKNOWN_LIFE
    return max(0.0, life), expires


def _listed(body: msgspec.Raw) -> Device | DeviceBody:
    """The device that one entry of a list describes; one without a live stream as it is, or its name (or "") alone."""
    try:
        one = msgspec.json.decode(body, type=DeviceBody)
        return device_from(one) or one
    except UNDECODABLE as error:
        log.warning("a device in Google's list cannot be read: %s", redact(str(error))[:200])
    try:
        return DeviceBody(msgspec.json.decode(body, type=NameBody).name)
    except UNDECODABLE:
        return DeviceBody("")


def _not_reached(error: httpx.TransportError, what: str) -> NotReached:
    hint = "Check this host's network: interface, route and name resolution"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "Check this host's clock, and whether a captive portal or a proxy answers in Google's place"
    found = NotReached(f"{what}: Google cannot be reached: {spoken(error)}", hint=hint)
    found.unresolved = unresolved(error)
    return found


def _refused(answer: CommandAnswer, what: str, verb: str, offer: str) -> NestError:
    refusal = parse_refusal(answer.status, answer.body)
    retry_after = parse_retry_after(answer.headers.get("retry-after"))
    return error_for(refusal, what=what, verb=verb, retry_after=retry_after, offer=offer)


def _what(verb: str, protocol: StreamProtocol, device: str) -> str:
    return f"{command_name(verb, protocol)} of device {_short(device)}"


def _short(device: str) -> str:
    """The end of a device id, enough to recognise it."""
    return f"…{device.rsplit('/', 1)[-1][-8:]}"


def _decode(answer: CommandAnswer, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except UNDECODABLE as error:
        raise MalformedAnswer(f"{what}: unexpected answer: {redact(str(error))[:200]}") from None


def _rfc3339(text: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else moment.replace(tzinfo=datetime.UTC).timestamp()


def _http_date(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
