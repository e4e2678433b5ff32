"""HTTP interface of the simulated Cloudflare Realtime API: paths, authorisation, envelopes and faults."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from relay_common.simulation.sfu.options import ApiFault, SfuFaults, SfuVariant
from relay_common.simulation.sfu.service import SfuService
from relay_common.simulation.sfu.sessions import ApiError, Session, invalid_params

Body = dict[str, Any]
Operation = Callable[[Session, Body], Awaitable[Body]]


class LostResponse(Response):
    """A connection that breaks before the response is complete, after the request has taken effect."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4096")]})


class SfuApi:
    """Routes under `/v1/apps/{app}`."""

    def __init__(
        self, service: SfuService, app_id: str, app_secret: str, variant: SfuVariant, faults: SfuFaults
    ) -> None:
        self._service, self._app_id, self._authorization = service, app_id, f"Bearer {app_secret}"
        self._variant, self._faults = variant, faults
        self.requests = 0

    def routes(self) -> list[Route]:
        """The API's routes."""
        base = "/v1/apps/{app}/sessions"
        one = base + "/{session}"
        channels = self._service.data_channels
        operations: list[tuple[str, str, Operation]] = [
            ("POST", "tracks/new", self._service.tracks_new),
            ("PUT", "renegotiate", self._service.renegotiate),
            ("PUT", "tracks/close", self._service.tracks_close),
            ("PUT", "tracks/update", self._service.tracks_update),
            ("POST", "datachannels/establish", channels.establish),
            ("POST", "datachannels/new", channels.new),
            ("PUT", "datachannels/update", channels.update),
            ("PUT", "datachannels/close", channels.close),
        ]
        return [
            Route(base + "/new", self._new, methods=["POST"]),
            Route(one, self._get, methods=["GET"]),
            *(
                Route(f"{one}/{name}", self._endpoint(name, work), methods=[method])
                for method, name, work in operations
            ),
        ]

    def _authorise(self, request: Request) -> None:
        self.requests += 1
        if request.headers.get("authorization") != self._authorization:
            raise ApiError(401, "unauthorized", "The app secret is missing or wrong")
        if request.path_params["app"] != self._app_id:
            raise ApiError(404, "not_found", "App not found. A new app can take a while to propagate: try again")

    async def _body(self, request: Request, *, optional: bool = False) -> Body:
        raw = await request.body()
        if len(raw) > self._variant.max_body:
            raise ApiError(413, "payload_too_large", f"The body is larger than {self._variant.max_body} bytes")
        if optional and not raw:
            return {}
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise ApiError(400, "decoding_error", f"The body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise ApiError(400, "decoding_error", "The body must be an object")
        return body

    async def _new(self, request: Request) -> Response:
        async def work() -> Body:
            body = await self._body(request, optional=True)
            if request.query_params.get("thirdparty") == "true":
                raise invalid_params("thirdparty: not simulated")
            return await self._service.new_session(body, correlation)

        correlation = request.query_params.get("correlationId", "")
        return await self._perform(request, "sessions/new", None, work, correlation, status=201)

    async def _get(self, request: Request) -> Response:
        session_id = request.path_params["session"]

        async def work() -> Body:
            return await self._service.get(self._limited(session_id))

        return await self._perform(request, "session", session_id, work)

    def _endpoint(self, name: str, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            session_id = request.path_params["session"]

            async def work() -> Body:
                session = self._limited(session_id)
                return await operation(session, await self._body(request))

            return await self._perform(request, name, session_id, work)

        return endpoint

    def _limited(self, session_id: str) -> Session:
        session = self._service.session(session_id)
        session.count_request(time.monotonic())
        return session

    async def _perform(
        self,
        request: Request,
        operation: str,
        session_id: str | None,
        work: Callable[[], Awaitable[Body]],
        correlation: str = "",
        status: int = 200,
    ) -> Response:
        self._authorise(request)
        if session_id in self._service.sessions:
            correlation = self._service.sessions[session_id].correlation
        fault = self._faults.take(operation, session_id, correlation)
        if fault is not None:
            if fault.kind == "error":
                raise ApiError(fault.status, fault.code, "Injected by the simulator")
            if fault.kind == "track_error":
                return JSONResponse(_track_errors(await self._body(request), fault))
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
        result = await work()
        if fault is not None and fault.kind == "lost_response":
            return LostResponse()
        if fault is not None and fault.kind == "trickle":
            return StreamingResponse(
                _trickled(json.dumps(result), fault.seconds), status, media_type="application/json"
            )
        if fault is not None and fault.kind == "never_connect":
            self._service.sessions[result["sessionId"]].peer.mute_checks = True
        return JSONResponse(result, status_code=status)


async def _trickled(text: str, pause: float) -> AsyncIterator[str]:
    for character in text:
        yield character
        await asyncio.sleep(pause)


def _track_errors(body: Body, fault: ApiFault) -> Body:
    error = {"errorCode": fault.code, "errorDescription": "Injected by the simulator"}
    tracks = [{**track, **error} for track in body.get("tracks", ()) if isinstance(track, dict)]
    for track in tracks:
        track.pop("location", None)
    return {"requiresImmediateRenegotiation": False, "tracks": tracks}


async def answer_error(request: Request, error: Exception) -> Response:
    """Every error is returned in Cloudflare's envelope."""
    if isinstance(error, ApiError):
        return JSONResponse(error.envelope, status_code=error.status)
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal_error")
    return JSONResponse({"errorCode": code, "errorDescription": str(error)}, status_code=status)
