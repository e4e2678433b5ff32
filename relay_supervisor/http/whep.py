"""WHEP (draft-ietf-wish-whep): a player's offer is answered by the camera's worker, without the SFU.

POST an SDP offer to /whep/{camera}; the answer's Location is the session: PATCH gives it further candidates or
restarts ICE, DELETE ends it. A session obeys only the credential that made it.
"""

from __future__ import annotations

from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_common.local_messages import LocalPatched
from relay_common.sdp_lines import ice_ufrag
from relay_supervisor.http.replies import ApiError, error_reply, json_reply, read_body
from relay_supervisor.local.service import Answered
from relay_supervisor.local.sessions import WhepError
from relay_supervisor.state.store import LinkCredential
from relay_supervisor.viewing.decoding import Received
from relay_supervisor.viewing.views import Audience, ViewError, Visitor

MAX_OFFER: Final = 64 * 1024
"""Largest offer, and largest fragment, in bytes."""
MOST_CANDIDATES: Final = 64
MAX_MATCH: Final = 256
OFFER: Final = "application/sdp"
QUALITIES: Final = ("", "full", "small")
FRAGMENT: Final = "application/trickle-ice-sdpfrag"


class LocalService(Protocol):
    """What these endpoints need; implemented by `local.service.LocalViewing`."""

    async def open(
        self,
        camera: str,
        offer: str,
        *,
        audience: Audience,
        visitor: Visitor,
        link: LinkCredential | None,
        quality: str,
    ) -> Answered: ...

    async def trickle(self, viewer: str, fragment: str, match: str, *, visitor: Visitor) -> LocalPatched: ...

    def close(self, viewer: str, *, visitor: Visitor) -> None: ...

    def __contains__(self, viewer: str) -> bool: ...

    def received(self, viewer: str, received: list[Received], *, visitor: Visitor) -> dict[str, str]: ...

    def quality(self, viewer: str, *, visitor: Visitor) -> str: ...

    def allows(self, origin: str) -> bool:
        """Whether pages of that origin may play from here."""
        ...


class LocalRelay(Protocol):
    """The relay as these endpoints see it."""

    @property
    def local(self) -> LocalService: ...


def routes(relay: LocalRelay) -> list[Route]:
    """The endpoints, for the application's list."""
    whep = _Whep(relay)
    return [
        Route("/whep/{id}", whep.endpoint, methods=["POST", "OPTIONS"]),
        Route("/whep/{id}/{viewer}", whep.session, methods=["PATCH", "DELETE", "OPTIONS"]),
    ]


class _Whep:
    def __init__(self, relay: LocalRelay) -> None:
        self._relay = relay

    async def endpoint(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": "POST, OPTIONS", "Accept-Post": OFFER})
        quality = request.query_params.get("quality", "")
        if quality not in QUALITIES:
            raise ApiError(400, "bad_request", "There is no such quality", "Ask for ?quality=small or ?quality=full")
        offer = await _read(request, OFFER)
        if not offer.startswith("v=0"):
            raise ApiError(400, "bad_sdp", "The body is not an SDP offer", "Send the player's offer: servers make none")
        try:
            made = await self._relay.local.open(
                request.path_params["id"],
                offer,
                audience=request.state.audience,
                visitor=request.state.visitor,
                link=request.state.link,
                quality=quality,
            )
        except ViewError as error:
            return _refused(error)
        # Whoever came by a link in the address has to show it there again, and players ask for what they are given.
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {
            "Location": f"{request.state.prefix}/whep/{made.camera}/{made.viewer}{query}",
            "ETag": _tag(made.answer),
            "Accept-Patch": FRAGMENT,
        }
        return Response(made.answer, status_code=201, media_type=OFFER, headers=headers)

    async def session(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": "PATCH, DELETE, OPTIONS", "Accept-Patch": FRAGMENT})
        viewer, visitor = request.path_params["viewer"], request.state.visitor
        try:
            if request.method == "DELETE":
                self._relay.local.close(viewer, visitor=visitor)
                return json_reply({"ok": True})
            return await self._patch(request, viewer, visitor)
        except ViewError as error:
            return _refused(error)

    async def _patch(self, request: Request, viewer: str, visitor: Visitor) -> Response:
        fragment = await _read(request, FRAGMENT)
        wanted = request.headers.get("if-match", "")
        if not wanted:
            raise ApiError(428, "no_if_match", "PATCH needs an If-Match", "Send the last ETag, or * to restart ICE")
        if len(wanted) > MAX_MATCH:
            raise ApiError(400, "bad_request", f"If-Match is longer than {MAX_MATCH} characters", "Send the last ETag")
        done = await self._relay.local.trickle(viewer, fragment, wanted, visitor=visitor)
        if done.status == 200 and done.fragment:
            return Response(done.fragment, media_type=FRAGMENT, headers={"ETag": _tag(done.fragment)})
        if done.status == 412:
            raise ApiError(412, "other_session", "If-Match names another ICE session", "Send the last ETag")
        if done.status >= 400:
            raise ApiError(done.status, "not_patched", done.reason or "The session does not take that", "Make another")
        return Response(status_code=204)


async def _read(request: Request, kind: str) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise ApiError(415, "wrong_type", f"The body must be {kind}", f"Send Content-Type: {kind}")
    body = await read_body(request, MAX_OFFER)
    if body.count(b"a=candidate:") > MOST_CANDIDATES:
        raise ApiError(400, "too_many_candidates", f"There are more than {MOST_CANDIDATES} candidates")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "bad_sdp", "The body is not UTF-8") from error


def _refused(error: ViewError) -> Response:
    reply = error_reply(error.status, error.code, error.message, error.hint)
    if isinstance(error, WhepError) and error.retry_after:
        reply.headers["Retry-After"] = str(int(error.retry_after + 0.999))
    return reply


def _tag(description: str) -> str:
    """The tag of the ICE session that begins with this answer (RFC 9725 §4.3.1)."""
    return f'"{ice_ufrag(description)}"'
