"""`/control`: lets tests in other processes inspect the simulated SFU and make it misbehave."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay_common.simulation.sfu.options import SfuFaults
from relay_common.simulation.sfu.port import Arrival
from relay_common.simulation.sfu.sessions import Session
from relay_common.simulation.sfu.turn import TurnKeys

_RECORD_LIMIT = 1_000_000


class Controlled(Protocol):
    """The controlled simulator, which does not depend on this module."""

    faults: SfuFaults
    turn: TurnKeys

    def sessions(self) -> list[dict[str, Any]]: ...
    def port_counters(self) -> dict[str, int]: ...
    def end_session(self, session_id: str) -> None: ...
    def lose_upstream(self, session_id: str, share: float | None) -> None: ...
    def narrow(self, session_id: str, rate: float | None) -> None: ...
    def start_recording(self, limit: int = ...) -> None: ...
    def stop_recording(self) -> None: ...
    def arrivals(self) -> list[Arrival]: ...
    def admit_only(self, address: str) -> None: ...


def describe(session: Session, now: float) -> dict[str, Any]:
    """One session for `GET /control/sessions`: state, transport counters, published and pulled tracks."""
    peer = session.peer
    published, pulled = [], []
    for track in session.tracks:
        entry: dict[str, Any] = {"mid": track.mid, "name": track.name, "active": track.active}
        if track.publication is not None:
            upstream = track.publication.upstream
            entry |= {"subscribers": track.publication.viewers, **upstream.snapshot(now)}
        if track.layers:
            entry["layers"] = {
                rid: {"subscribers": layer.viewers, **layer.upstream.snapshot(now)}
                for rid, layer in track.layers.items()
            }
        if track.downstream is not None:
            entry |= {"forwarding": track.downstream.active, **track.downstream.snapshot()}
        if track.location == "local":
            published.append(entry)
        else:
            pulled.append({"session": track.source_session, **entry})
    return {
        "session": session.id,
        "state": session.state.value,
        "age": now - session.created,
        "address": list(peer.ice.remote or ()),
        "srtp": peer.dtls.profile,
        "dtls_failure": peer.dtls.failure,
        "checks": peer.ice.answered,
        "checks_refused": peer.ice.refused,
        "unauthenticated": peer.unauthenticated,
        "unrouted": peer.unrouted,
        "malformed": peer.malformed,
        "send_errors": peer.send_errors,
        "dropped_by_line": peer.bottleneck.overflowed,
        "dropped_by_fault": peer.dropped_by_fault,
        "last_datagram_age": None if peer.last_datagram is None else now - peer.last_datagram,
        "line": peer.line.snapshot() if peer.line is not None else None,
        "published": published,
        "pulled": pulled,
    }


def routes(simulator: Controlled) -> list[Route]:
    """The control routes; request and answer bodies are JSON."""

    async def sessions(request: Request) -> Response:
        waiting = [dataclasses.asdict(fault) for fault in simulator.faults.api]
        return JSONResponse(
            {"sessions": simulator.sessions(), "port": simulator.port_counters(), "api_faults": waiting}
        )

    async def faults(request: Request) -> Response:
        try:
            simulator.faults.change(await request.json())
        except (ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({})

    async def session(request: Request) -> Response:
        body = await request.json()
        try:
            if body.get("end"):
                simulator.end_session(request.path_params["session"])
            if "downstream_rate" in body:
                simulator.narrow(request.path_params["session"], body["downstream_rate"])
            if "upstream_loss" in body:
                simulator.lose_upstream(request.path_params["session"], body["upstream_loss"])
        except KeyError:
            return JSONResponse({"error": "no such session"}, status_code=404)
        return JSONResponse({})

    async def turn(request: Request) -> Response:
        if request.method == "POST":
            body = await request.json()
            simulator.admit_only(body.pop("admit_only", ""))
            simulator.turn.change(body)
        return JSONResponse(simulator.turn.describe())

    async def record(request: Request) -> Response:
        if request.method == "POST":
            body = await request.json()
            if body.get("stop"):
                simulator.stop_recording()
            else:
                simulator.start_recording(min(int(body.get("limit", 200_000)), _RECORD_LIMIT))
            return JSONResponse({})
        return JSONResponse({"now": time.monotonic(), "arrivals": simulator.arrivals()})

    return [
        Route("/control/sessions", sessions, methods=["GET"]),
        Route("/control/sessions/{session}", session, methods=["POST"]),
        Route("/control/faults", faults, methods=["POST"]),
        Route("/control/turn", turn, methods=["GET", "POST"]),
        Route("/control/record", record, methods=["GET", "POST"]),
    ]
