"""HTTP interface of the Nest simulator: the SDM API, the token endpoint and the control interface, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from relay_common.clock import Clock, SystemClock
from relay_common.simulation.google.backend import NestBackend
from relay_common.simulation.google.errors import Reply, error, not_found


class NestApi:
    """Serves a `NestBackend`; routes given to `extend` (control) share its port.

    `host` is an IPv4 address; port 0 picks one. `start` raises OSError when the port is taken.
    """

    def __init__(
        self,
        backend: NestBackend,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._backend, self._clock = backend, clock or SystemClock()
        self._host, self._port = host, port
        self._extra: list[BaseRoute] = []
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port; the SDM API is under /v1, the token endpoint at /token."""
        return f"http://{self._host}:{self._port}"

    def extend(self, routes: Iterable[BaseRoute]) -> None:
        """Add these routes; call it before `start`."""
        self._extra += routes

    async def start(self) -> None:
        """Listen and serve in the running loop."""
        listener = socket.create_server((self._host, self._port))
        self._port = listener.getsockname()[1]
        # Longer than the 5 s after which httpx gives a connection up: else both may end it as a request is sent.
        config = uvicorn.Config(
            self._app(), lifespan="off", log_config=None, access_log=False, ws="none", timeout_keep_alive=15
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="nest api")
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop at once; requests in flight are dropped."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = self._server.force_exit = True
        await self._serving

    def _app(self) -> Starlette:
        devices = "/v1/enterprises/{project}/devices"
        routes: list[BaseRoute] = [
            Route("/token", self._token, methods=["POST"]),
            Route(devices, self._project(self._list), methods=["GET"]),
            Route(devices + "/{device}:executeCommand", self._project(self._execute), methods=["POST"]),
            Route(devices + "/{device}", self._project(self._get), methods=["GET"]),
            Route("/v1/enterprises/{project}/structures", self._project(self._structures), methods=["GET"]),
            Route("/v1/enterprises/{project}/structures/{path:path}", self._project(self._structures), methods=["GET"]),
            *self._extra,
        ]
        return Starlette(routes=routes)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        return await self._send(self._backend.oauth.token(form, self._clock.wall()))

    def _project(self, handler: Callable[[Request, str], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if request.path_params["project"] != self._backend.project_id:
                return await self._send(not_found("Enterprise not found."))
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            reply = await handler(request, token if scheme.lower() == "bearer" else "")
            return await self._send(reply)

        return endpoint

    async def _list(self, request: Request, token: str) -> Reply:
        query = request.query_params
        size = query.get("pageSize", "0")
        return self._backend.list_devices(
            token, query.get("pageToken", ""), self._clock.wall(), int(size) if size.isdecimal() else 0
        )

    async def _get(self, request: Request, token: str) -> Reply:
        return self._backend.get_device(token, request.path_params["device"], self._clock.wall())

    async def _structures(self, request: Request, token: str) -> Reply:
        path = request.path_params.get("path", "")
        return self._backend.structures(token, path.split("/") if path else [], self._clock.wall())

    async def _execute(self, request: Request, token: str) -> Reply:
        try:
            body: Any = json.loads(await request.body())
            command, params = str(body["command"]), body.get("params", {})
        except (ValueError, TypeError, KeyError, AttributeError):
            return error(400, "Invalid JSON payload received.")
        if not isinstance(params, dict):
            return error(400, "Invalid value at 'params'.")
        device = request.path_params["device"]
        return self._backend.execute(token, device, command, params, self._clock.wall())

    async def _send(self, reply: Reply) -> Response:
        if reply.delay:
            await self._clock.sleep(reply.delay)
        html = isinstance(reply.body, str)
        body, kind = (reply.body if html else json.dumps(reply.body)), ("text/html" if html else "application/json")
        if reply.trickle:
            return StreamingResponse(self._trickled(str(body), reply.trickle), reply.status, media_type=kind)
        return Response(body, reply.status, media_type=kind)

    async def _trickled(self, body: str, pause: float) -> AsyncIterator[str]:
        for character in body:
            yield character
            await self._clock.sleep(pause)


class _Server(uvicorn.Server):
    """uvicorn inside an existing loop: it leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
