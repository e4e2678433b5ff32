"""Client of Cloudflare's SFU session API.

One session is one peer connection. Changes to a session are serialised, requests stay within the rate allowed per
session, and a request is retried only where the documentation says that retrying helps
(https://developers.cloudflare.com/realtime/sfu/concepts/negotiation/, "Retry and reconnect"):

- creating a session, reading one and force-closing tracks may be retried freely;
- adding, re-pointing or renegotiating tracks is retried only if the server says that it did nothing; if its response
  is lost, `ResponseLost` tells the caller to replace the connection;
- 401 and 403 are believed only when repeated: usually the secret worked a moment ago, and a caller that believes them
  stops trying for a minute.

An SDP is returned only after the status, the top-level error and every track's own error have been checked.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from relay_common.authorities import public_authorities
from relay_common.backoff import Backoff
from relay_common.clock import Clock
from relay_common.cloudflare.errors import (
    ErrorClass,
    ResponseLost,
    SessionGone,
    SfuError,
    classify,
    request_error,
    safe_to_repeat,
    track_error,
    unauthorized,
    worth_repeating,
)
from relay_common.cloudflare.exchange import BASE_URL, exchange
from relay_common.cloudflare.gate import Gate
from relay_common.cloudflare.meter import CallMeter
from relay_common.cloudflare.models import (
    MAX_TRACKS,
    LocalTrack,
    Pull,
    PulledTrack,
    RemoteTrack,
    Reply,
    SessionDescription,
    SessionTrack,
    TrackObject,
    TrackResult,
    TracksRequest,
)
from relay_common.cloudflare.policies import (
    REFUSED,
    LayerPolicies,
    Target,
    joined_replies,
    remote_objects,
    result_of,
)
from relay_common.errors import ConfigError, LocalError, Remedy
from relay_common.sdp_lines import MAX_SDP
from relay_common.secrets import Secret
from relay_common.spoken import spoken, unresolved
from relay_common.undecodable import UNDECODABLE

log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
ASK_AGAIN: Final = 2.0
"""Longest wait in seconds before retrying after a 401 or 403; the shortest is half of it."""
_LONGEST_WAIT: Final = 10.0
# The SFU takes 8.2 to 8.7 s to report that a pulled track has no media.
_TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0, pool=15.0)
CALL_WITHIN: Final = 20.0  # seconds for one request with its complete answer, however slowly that trickles in

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Reply).decode


class SfuClient:
    """Client of one SFU application; close it with `aclose()`.

    `transport` is for tests and proxies. An unusable base URL or secret raises ConfigError. Every method raises
    `SfuError` (or its subclasses `SessionGone` and `ResponseLost`), whose `remedy` says what to do; no error contains
    the application's secret.
    """

    def __init__(
        self,
        app_id: str,
        app_secret: Secret,
        *,
        clock: Clock,
        rng: random.Random,
        base_url: str = BASE_URL,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock, self._rng = clock, rng
        self._gate = Gate(clock)
        self._policies = LayerPolicies()
        self.meter = CallMeter()
        self._http = httpx.AsyncClient(
            base_url=_base(base_url, app_id),
            headers={"Authorization": f"Bearer {_token(app_secret)}"},
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
            transport=transport,
            verify=public_authorities(),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections; requests in flight fail."""
        await self._http.aclose()

    async def new_session(self, correlation: str = "", *, attempts: int = ATTEMPTS) -> str:
        """Create a session and return its id; `correlation` is a label for Cloudflare's diagnostics only.

        An unused session expires within seconds, so use it at once. A caller with its own retry schedule passes
        `attempts=1`.
        """
        path = f"new?correlationId={quote(correlation, safe='')}" if correlation else "new"
        reply = await self._call("new_session", "POST", path, None, repeatable=True, attempts=attempts)
        if not reply.session_id:
            raise _broken("new_session", "no session id")
        return reply.session_id

    async def publish(self, session: str, offer: str, tracks: Sequence[LocalTrack]) -> str:
        """Publish all `tracks` of `offer` and return the SFU's answer SDP; one refused track fails the call.

        Publish once per session and never renegotiate: after any error replace the session. Not retried here, because
        the worker decides when to publish again (`relay_worker/publish/keeper.py`).
        """
        _check_count(tracks)
        body = TracksRequest(
            session_description=SessionDescription(type="offer", sdp=offer),
            tracks=[TrackObject(location="local", mid=t.mid, track_name=t.name) for t in tracks],
        )
        async with self._gate.turn(session):
            path = f"{_path(session)}/tracks/new"
            reply = await self._call("publish", "POST", path, body, session=session, attempts=1)
        for item in reply.tracks or []:
            if error := _item_error("publish", item):
                raise error
        return _sdp("publish", reply, "answer")

    async def pull(self, session: str, tracks: Sequence[RemoteTrack]) -> Pull:
        """Pull up to 64 remote tracks in one call; errors of individual tracks are in the result.

        Raises PoliciesRefused where another session is to be taken for it.
        """
        _check_count(tracks)
        reply = await self._point("pull", "POST", session, "new", [("", track) for track in tracks])
        results = _outcomes("pull", tracks, reply)
        negotiate = reply.requires_immediate_renegotiation and any(r.error is None for r in results)
        return Pull(tracks=results, offer=_sdp("pull", reply, "offer") if negotiate else None)

    async def renegotiate(self, session: str, answer: str) -> None:
        """Send the answer to the offer of the last `pull`."""
        body = TracksRequest(session_description=SessionDescription(type="answer", sdp=answer))
        async with self._gate.turn(session):
            await self._call("renegotiate", "PUT", f"{_path(session)}/renegotiate", body, session=session)

    async def update(self, session: str, targets: Sequence[tuple[str, RemoteTrack]]) -> list[PulledTrack]:
        """Point mids of a pulling session at other tracks, without SDP; one outcome per target, in order."""
        _check_count(targets)
        reply = await self._point("update", "PUT", session, "update", targets)
        return _outcomes("update", [track for _, track in targets], reply, [mid for mid, _ in targets])

    async def _point(self, operation: str, method: str, session: str, verb: str, targets: Sequence[Target]) -> Reply:
        """Have a session receive `targets`; those refused for their policies for layers once more without these."""
        path, refused, reply = f"{_path(session)}/tracks/{verb}", list(targets), None
        async with self._gate.turn(session):
            if self._policies.sent and any(track.simulcast is not None for _, track in targets):
                body = TracksRequest(tracks=remote_objects(targets, policies=True))
                try:
                    reply = await self._call(operation, method, path, body, session=session)
                except SfuError as error:
                    if error.code != REFUSED:
                        raise
                else:
                    if not (refused := self._policies.refused(targets, reply)):
                        return reply
                self._policies.suspect(reply or Reply())
            body = TracksRequest(tracks=remote_objects(refused, policies=False))
            again: Reply | None = None
            try:
                again = await self._call(operation, method, path, body, session=session)
            finally:
                if self._policies.judge(refused, again):
                    log.info("the SFU takes no policies for layers: it will not change them by itself")
        return again if reply is None else joined_replies(reply, refused, again)

    async def close(self, session: str, mids: Sequence[str]) -> None:
        """Force-close tracks, without SDP. Tracks already closed, or a session already gone, count as success."""
        body = TracksRequest(tracks=[TrackObject(mid=mid) for mid in mids], force=True)
        async with self._gate.turn(session):
            try:
                reply = await self._call(
                    "close", "PUT", f"{_path(session)}/tracks/close", body, session=session, repeatable=True
                )
            except SfuError as error:
                if error.status not in (404, 410):
                    raise
                return
        for item in reply.tracks or []:
            if item.error_code != "close_track_error" and (failure := _item_error("close", item)):
                raise failure

    async def get_session(self, session: str) -> list[SessionTrack]:
        """The tracks of a session; raises `SessionGone` if it no longer exists (404 or 410)."""
        async with self._gate.turn(session, exclusive=False):
            try:
                reply = await self._call("get_session", "GET", _path(session), None, session=session, repeatable=True)
            except SfuError as error:
                if error.status == 404 and error.code != "not_found":
                    raise SessionGone(error.message, status=404, code=error.code, remedy=Remedy.REGENERATE) from error
                raise
        return [
            SessionTrack(
                mid=t.mid or "", name=t.track_name or "", local=t.location == "local", active=t.status == "active"
            )
            for t in reply.tracks or []
        ]

    def forget(self, session: str) -> None:
        """Forget a session that will not be used again."""
        self._gate.forget(session)

    # --- one call, with its retries -------------------------------------------------------------------------------

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        body: TracksRequest | None,
        *,
        session: str = "",
        repeatable: bool = False,
        attempts: int = ATTEMPTS,
    ) -> Reply:
        backoff = Backoff(0.25, 4.0, rng=self._rng)
        refused = False
        while True:
            if session:
                await self._gate.pace(session)
            try:
                return await self._exchange(operation, method, path, body, repeatable)
            except SfuError as error:
                if unauthorized(error) and not refused and attempts > 1:
                    refused, delay = True, ASK_AGAIN * self._rng.uniform(0.5, 1.0)
                else:
                    helps = worth_repeating(error) if repeatable else safe_to_repeat(error) or _never_sent(error)
                    if not helps or backoff.failures + 1 >= attempts:
                        raise
                    delay = max(backoff.next_delay(), min(error.retry_after, _LONGEST_WAIT))
                log.debug("retrying %s in %.2f s: %s", operation, delay, error.message)
            self.meter.retries[operation] += 1
            await self._clock.sleep(delay)

    async def _exchange(
        self, operation: str, method: str, path: str, body: TracksRequest | None, repeatable: bool
    ) -> Reply:
        started = self._clock.now()
        kind = ErrorClass.NETWORK
        try:
            status, retry_after, content = await exchange(
                self._http, method, path, None if body is None else _encode(body), within=CALL_WITHIN
            )
            reply = _parse(content)
            code = (reply.error_code if reply else None) or ""
            if not 200 <= status < 300 or code:
                kind = classify(status, code)
                description = (reply.error_description if reply else None) or ""
                raise request_error(operation, status, code, description, retry_after)
            kind = ErrorClass.SERVER
            if reply is None:
                raise _broken(operation, "the body is not the JSON that the API describes")
            kind = ErrorClass.TRACK if any(t.error_code for t in reply.tracks or []) else ErrorClass.OK
            return reply
        except httpx.HTTPError as error:
            raise _network_error(operation, error, repeatable) from error
        finally:
            took = self._clock.now() - started
            self.meter.count(operation, kind, took)
            log.debug("%s: %s in %.0f ms", operation, kind.value, took * 1e3)

    def counters(self) -> dict[str, int]:
        """Counters since construction, by name."""
        return self._gate.counters() | {"policies_refused": self._policies.policies_refused}


# Raised before the request was sent, so a retry cannot apply it twice.
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _network_error(operation: str, error: httpx.HTTPError, repeatable: bool) -> SfuError:
    what, hint = spoken(error), "Check the network and [cloudflare] api_base_url"
    if repeatable or isinstance(error, _UNSENT):
        message = f"Cloudflare SFU could not be reached for {operation}: {what}"
        return SfuError(message, remedy=Remedy.RETRY, hint=hint, unresolved=unresolved(error))
    return ResponseLost(f"Cloudflare SFU's answer to {operation} was lost: {what}", remedy=Remedy.REGENERATE)


def _never_sent(error: SfuError) -> bool:
    return isinstance(error.__cause__, _UNSENT)


def _parse(content: bytes) -> Reply | None:
    if not content.strip():
        return Reply()
    try:
        return _decode(content)
    except UNDECODABLE:
        return None


def require_usable(app_id: str, app_secret: Secret, base_url: str) -> None:
    """Raise the ConfigError of a client that would be made with these."""
    _base(base_url, app_id)
    _token(app_secret)


def _base(base_url: str, app_id: str) -> httpx.URL:
    try:
        url = httpx.URL(f"{base_url.rstrip('/')}/apps/{quote(app_id, safe='')}/sessions/")
    except httpx.InvalidURL as error:
        raise ConfigError(f"[cloudflare] api_base_url is not a URL ({error})", hint=f"Use {BASE_URL}") from error
    if url.scheme not in ("http", "https") or not url.host or not app_id:
        raise ConfigError(
            "[cloudflare] app_id is missing, or api_base_url is not a web address", hint=f"Use {BASE_URL}"
        )
    return url


def _token(secret: Secret) -> str:
    # An HTTP library would quote an invalid header in its error message, including the secret.
    value = secret.reveal()
    if not value or not all("!" <= c <= "~" for c in value):
        raise ConfigError(
            "[cloudflare] app_secret is empty or holds characters that cannot be sent",
            hint="Copy it again from the SFU application's page, without spaces or line ends",
        )
    return value


def _path(session: str) -> str:
    return quote(session, safe="")


def _check_count(tracks: Sequence[object]) -> None:
    if not 1 <= len(tracks) <= MAX_TRACKS:
        raise LocalError(f"A call to the SFU takes 1 to {MAX_TRACKS} tracks, not {len(tracks)}")


def _item_error(operation: str, item: TrackResult) -> SfuError | None:
    return track_error(operation, item.error_code, item.error_description or "") if item.error_code else None


def _broken(operation: str, what: str) -> SfuError:
    return SfuError(f"Cloudflare SFU's answer to {operation} cannot be used: {what}", remedy=Remedy.REGENERATE)


def _sdp(operation: str, reply: Reply, wanted: str) -> str:
    description = reply.session_description
    if description is None or description.type != wanted or not description.sdp.startswith("v=0"):
        raise _broken(operation, f"it holds no {wanted}")
    if len(description.sdp) > MAX_SDP:
        # A longer one does not fit into a bus frame, and the worker would wait for it until its deadline.
        raise _broken(operation, f"its SDP has {len(description.sdp)} characters, more than {MAX_SDP}")
    return description.sdp


def _outcomes(
    operation: str, asked: Sequence[RemoteTrack], reply: Reply, mids: Sequence[str] | None = None
) -> list[PulledTrack]:
    """Match the response's tracks to the requested ones: by mid if we named one, otherwise by locator."""
    items = list(reply.tracks or [])
    results = []
    for index, track in enumerate(asked):
        asked_mid = mids[index] if mids else ""
        item = result_of(items, track, asked_mid)
        if item is None:
            raise _broken(operation, "a requested track is missing from it")
        error = _item_error(operation, item)
        mid = asked_mid or item.mid or ""
        if error is None and not mid:
            raise _broken(operation, "a track has no mid")
        # The API sends mid "" with an error; never keep it.
        results.append(PulledTrack(track=track, mid="" if error else mid, error=error))
    return results
