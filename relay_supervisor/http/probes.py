"""Health probes on a separate address, which answer however many connections the dashboard's has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from relay_supervisor.http.replies import json_reply
from relay_supervisor.status.health import Health

MOST_CONNECTIONS: Final = 16
"""Idle ones make room, so that a probe gets in."""


def create_probes(health: Callable[[], Health]) -> ASGIApp:
    """An application that serves /livez and /readyz, as the dashboard serves them without a token: without reasons."""

    async def livez(request: Request) -> Response:
        return json_reply({"live": True})

    async def readyz(request: Request) -> Response:
        now = health()
        strict = request.query_params.get("strict", "") in ("1", "true", "yes")
        ready = now.ready and not (strict and now.degraded)
        return json_reply({"ready": now.ready}, 200 if ready else 503)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz)])
