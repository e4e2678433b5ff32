"""A WHIP endpoint (RFC 9725) in front of the simulated SFU's session API, so that FFmpeg can publish there."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def create_app(app_url: str, secret: str) -> Starlette:
    """`POST /whip/NAME` with an offer makes a session with all of its tracks; `DELETE` forgets it."""
    api = httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=20.0)

    async def publish(request: Request) -> Response:
        offer = {"type": "offer", "sdp": (await request.body()).decode()}
        session = (await api.post(f"{app_url}/sessions/new")).json()["sessionId"]
        body = {"sessionDescription": offer, "autoDiscover": True}
        reply = await api.post(f"{app_url}/sessions/{session}/tracks/new", json=body)
        if reply.is_error:
            return Response(reply.text, reply.status_code)
        answer = reply.json()["sessionDescription"]["sdp"]
        headers = {"Location": f"/whip/{request.path_params['name']}"}
        return Response(answer, 201, headers, media_type="application/sdp")

    async def forget(request: Request) -> Response:
        return Response(status_code=200)

    path = "/whip/{name}"
    return Starlette(routes=[Route(path, publish, methods=["POST"]), Route(path, forget, methods=["DELETE"])])
