"""Remote control of a simulated home: JSON under /control on the Nest simulator's port.

    GET  /control/cameras                         state and counters of every camera
    GET  /control/commands                        every executeCommand so far, the most in any 60 s, and the
                                                  number of calls refused by each of Google's limits
    POST /control/cameras/{name}/fault            {"kind", "seconds"?, parameters...}
    POST /control/cameras/{name}/clear            {"kind"?}
    POST /control/cameras/{name}/fail_commands    {"status", "command"?, "count"?, "message"?, "grpc_status"?,
                                                   "raw_body"?, "delay"?, "after_effect"?}
    POST /control/cameras/{name}/device           {"offline"?, "withdrawn"?, "traitless"?, "renamed"?, "protocol"?,
                                                   "lease"?, "max_streams"?, "extendable"?, "renews_session_id"?}
    POST /control/cameras/{name}/webrtc           {habit: value, ...}: see WebRtcHabits; for new sessions
    POST /control/cameras/{name}/expire           {}: ends the camera's streams now
    POST /control/cameras/{name}/record           {"limit"?, "stop"?}: log the last RTP packets written
    GET  /control/cameras/{name}/sent             {"sent": [[monotonic seconds, kind, SSRC, sequence, timestamp,
                                                   bytes, marker, CRC-32 of payload], ...]}
    POST /control/oauth                           {"revoked"?, "down"?, "forbidden"?, "expire_tokens"?}

An unknown camera is answered with 404, an invalid request with 400, both with {"error": text}. `name` may be "*" in
fail_commands, whose `count` of 0 ends what was to fail.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from relay_common.simulation.camera.faults import FaultKind, parse_fault
from relay_common.simulation.google.failures import ANY, failure
from relay_common.simulation.home import SimulatedHome

_DEVICE_FIELDS: Final = {
    "offline",
    "withdrawn",
    "traitless",
    "renamed",
    "protocol",
    "lease",
    "max_streams",
    "extendable",
    "renews_session_id",
}
_RECORD_LIMIT: Final = 1_000_000
_OAUTH_FIELDS: Final = {"revoked", "down", "forbidden", "expire_tokens"}

Action = Callable[[str, dict[str, Any]], Awaitable[None]]


def join(home: SimulatedHome) -> None:
    """Serve the control interface of `home` on its API's port; call it before `start`."""
    home.api.extend(routes(home))


def routes(home: SimulatedHome) -> list[BaseRoute]:
    """The control interface of one simulated home."""

    async def cameras(request: Request) -> Response:
        return JSONResponse({"cameras": home.report()})

    async def commands(request: Request) -> Response:
        records = [dataclasses.asdict(record) for record in home.backend.commands]
        refused = dict(home.backend.accounting.refused)
        return JSONResponse({"commands": records, "most_in_any_minute": home.most_commands(), "refused": refused})

    async def fault(name: str, body: dict[str, Any]) -> None:
        await home.inflict(name, parse_fault(**body))

    async def clear(name: str, body: dict[str, Any]) -> None:
        home.clear(name, FaultKind(body["kind"]) if "kind" in body else None)

    async def fail_commands(name: str, body: dict[str, Any]) -> None:
        command = body.pop("command", ANY)
        home.fail_commands(name, failure(**body), command)

    async def device(name: str, body: dict[str, Any]) -> None:
        _only(body, _DEVICE_FIELDS)
        home.set_device(name, **body)

    async def webrtc(name: str, body: dict[str, Any]) -> None:
        home.set_webrtc(name, **body)

    async def expire(name: str, body: dict[str, Any]) -> None:
        home.expire(name)

    async def record(name: str, body: dict[str, Any]) -> None:
        if body.get("stop"):
            home.stop_recording(name)
        else:
            home.start_recording(name, min(int(body.get("limit", 100_000)), _RECORD_LIMIT))

    async def sent(request: Request) -> Response:
        try:
            return JSONResponse({"sent": home.sent(request.path_params["name"])})
        except KeyError as missing:
            return JSONResponse({"error": f"no camera {missing}"}, 404)

    async def oauth(name: str, body: dict[str, Any]) -> None:
        _only(body, _OAUTH_FIELDS)
        if body.pop("expire_tokens", False):
            home.backend.oauth.expire_all()
        for field, value in body.items():
            setattr(home.backend.oauth, field, bool(value))

    actions: tuple[Action, ...] = (fault, clear, fail_commands, device, webrtc, expire, record)
    return [
        Route("/control/cameras", cameras, methods=["GET"]),
        Route("/control/commands", commands, methods=["GET"]),
        Route("/control/cameras/{name}/sent", sent, methods=["GET"]),
        Route("/control/oauth", _endpoint(oauth), methods=["POST"]),
        *(Route(f"/control/cameras/{{name}}/{a.__name__}", _endpoint(a), methods=["POST"]) for a in actions),
    ]


def _endpoint(action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        name = request.path_params.get("name", "")
        try:
            body = json.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            await action(name, body)
        except KeyError as missing:
            return JSONResponse({"error": f"no camera {missing}"}, 404)
        except (ValueError, TypeError) as wrong:
            return JSONResponse({"error": str(wrong)}, 400)
        return JSONResponse({})

    return endpoint


def _only(body: dict[str, Any], known: set[str]) -> None:
    unknown = body.keys() - known
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
