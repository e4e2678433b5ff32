"""Health probes: their answers, and an application for a separate address.

That address answers however many connections the dashboard's has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from relay_supervisor.http.replies import flag, json_reply
from relay_supervisor.status.health import Health

MOST_CONNECTIONS: Final = 16
"""Idle ones make room, so that a probe gets in."""


async def livez(request: Request) -> Response:
    """200: that this coroutine runs is the proof that the event loop is alive."""
    return json_reply({"live": True})


def readyz(health: Health, request: Request, *, reasons: bool) -> Response:
    """503 when the relay cannot do its work; with `?strict=1` also when any enabled camera is not live.

    The body says why only if `reasons`: they name cameras.
    """
    ready = health.ready and not (flag(request, "strict") and health.degraded)
    status = 200 if ready else 503
    return json_reply(health, status) if reasons else json_reply({"ready": health.ready}, status)


def create_probes(health: Callable[[], Health]) -> ASGIApp:
    """An application that serves /livez and /readyz, as the dashboard serves them without a token: without reasons."""

    async def probe(request: Request) -> Response:
        return readyz(health(), request, reasons=False)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", probe)])
