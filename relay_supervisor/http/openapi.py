"""The HTTP API in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0), made from the types that it reads and writes.

`calls` is the table; tests hold it against the routes and against what the guard lets through.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Final, NamedTuple

import msgspec

from relay_supervisor.http.admin import CaptureRequest, DebugRequest, DrainRequest, LogQuery, LogReply, StopRequest
from relay_supervisor.http.auth import COOKIE
from relay_supervisor.http.links import Link
from relay_supervisor.http.sharing import LinkRequest
from relay_supervisor.http.viewing import (
    AnswerRequest,
    ReceivedAnswer,
    ReceivedRequest,
    UpdateRequest,
    ViewRequest,
    WatchStatus,
)
from relay_supervisor.operations.reload import ReloadReport
from relay_supervisor.operations.verbs import CameraChange, DrainStatus, Stopping
from relay_supervisor.status.given_links import GivenLinks, Revoked
from relay_supervisor.status.health import Health
from relay_supervisor.status.model import RelayStatus, SeatStatus
from relay_supervisor.viewing.views import ViewAnswer


class Right(enum.Enum):
    """What a client has to show."""

    OPERATOR = "the token, or the cookie of a page that has signed in"
    VIEWER = "the token or the cookie; or a link to the camera; or nothing where `viewers.access` is `open`"
    PUBLIC = "nothing"


class Done(msgspec.Struct, frozen=True):
    """The call did what it says."""

    ok: bool


class Alive(msgspec.Struct, frozen=True):
    """The event loop runs."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """All that a client without the token learns of the relay's health."""

    ready: bool


class CameraCount(msgspec.Struct, frozen=True):
    """How many cameras Google lists."""

    cameras: int


class ErrorText(msgspec.Struct, frozen=True):
    """`code` is stable and for programs; `message` says what happened, `hint` what to do."""

    code: str
    message: str
    hint: str


class ErrorReply(msgspec.Struct, frozen=True):
    """The body of every response from 400 on."""

    error: ErrorText


class Operation(NamedTuple):
    """One endpoint. `body` and `query` are what it reads, `reply` what it answers with: types, or a media type ("" for
    nothing). `status` is that of success.
    """

    method: str
    path: str
    right: Right
    summary: str
    body: type[msgspec.Struct] | str | None = None
    reply: type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | str = Done
    query: type[msgspec.Struct] | None = None
    status: int = 200


class Strict(msgspec.Struct, frozen=True):
    """Query of GET /readyz: with `1`, `true` or `yes`, 503 also when any enabled camera is not live."""

    strict: str = ""


class WhepQuery(msgspec.Struct, frozen=True):
    """Query of /whep: that of a link's address, in place of a header, for players that send none."""

    expires: str = ""
    signature: str = ""


class WhepOfferQuery(WhepQuery, frozen=True):
    """Query of POST /whep/{id}: `quality` is `small` for the smaller picture of a camera that has one, else `full`."""

    quality: str = ""


class EventQuery(msgspec.Struct, frozen=True):
    """Query of GET /api/events: `last_event_id` as the header of that name; `status` 0 leaves out the first status."""

    last_event_id: str = ""
    status: str = "1"


def calls(cameras: type[msgspec.Struct]) -> list[Operation]:
    """Every endpoint for programs; `cameras` is what GET /api/cameras answers with."""
    operator, viewer, public = Right.OPERATOR, Right.VIEWER, Right.PUBLIC
    one = "/api/cameras/{id}"
    return [
        Operation("GET", "/livez", public, "Whether the process serves", reply=Alive),
        Operation("GET", "/readyz", public, "Whether the relay can do its work: 200 or 503; why not, with the token",
                  reply=(Health, Ready), query=Strict),
        Operation("GET", "/metrics", operator, "Metrics in Prometheus' text format", reply="text/plain"),
        Operation("GET", "/api/openapi.json", operator, "This description", reply="application/json"),
        Operation("GET", "/api/stats", operator, "Status of the relay, its accounts and cameras", reply=RelayStatus),
        Operation("GET", "/api/seat", operator, "Which of several supervisors is asked here, and which one commands",
                  reply=SeatStatus),
        Operation("GET", "/api/cameras", operator, "Cameras with their states, in short", reply=cameras),
        Operation("GET", "/api/events", operator, "Status, then changes and events as they happen (server-sent events)",
                  reply="text/event-stream", query=EventQuery),
        Operation("GET", "/api/logs", operator, "The latest log lines", reply=LogReply, query=LogQuery),
        Operation("GET", "/api/debug", operator, "Subsystems whose debug lines are on", reply=DebugRequest),
        Operation("POST", "/api/debug", operator, "Set the subsystems whose debug lines are on",
                  DebugRequest, DebugRequest),
        Operation("POST", "/api/discover", operator, "List the cameras at Google now", reply=CameraCount),
        Operation("POST", "/api/reload", operator, "Read the configuration again", reply=ReloadReport),
        Operation("GET", "/api/drain", operator, "Progress of draining", reply=DrainStatus),
        Operation("POST", "/api/drain", operator, "Stop all cameras one by one and start none, or end that",
                  DrainRequest, DrainStatus),
        Operation("POST", "/api/stop", operator, "End the supervisor, and the workers unless told otherwise",
                  StopRequest, Stopping),
        Operation("POST", f"{one}/add", operator, "Include the camera, whatever the configuration says",
                  reply=CameraChange),
        Operation("POST", f"{one}/remove", operator, "Leave the camera out", reply=CameraChange),
        Operation("POST", f"{one}/enable", operator, "Switch the camera on", reply=CameraChange),
        Operation("POST", f"{one}/disable", operator, "Switch the camera off", reply=CameraChange),
        Operation("POST", f"{one}/restart", operator, "End the camera's worker and start another"),
        Operation("POST", f"{one}/keyframe", operator, "Ask for a keyframe"),
        Operation("POST", f"{one}/link", operator, "Make a link that shows this camera alone, for a while",
                  LinkRequest, Link),
        Operation("GET", "/api/links", operator, "Links that were given out and have not ended", reply=GivenLinks),
        Operation("DELETE", "/api/links/{id}", operator, "Revoke a link; who watches with it is cut off",
                  reply=Revoked),
        Operation("GET", f"{one}/snapshot", operator, "The next keyframe as a JPEG", reply="image/jpeg"),
        Operation("POST", f"{one}/capture", operator, "Record what the camera sends, as pcapng",
                  CaptureRequest, "application/octet-stream"),
        Operation("GET", "/api/watch/{id}", viewer, "Status of one camera, in fixed words", reply=WatchStatus),
        Operation("POST", "/api/view", viewer, "Open a view: the answer has an SDP offer", ViewRequest, ViewAnswer),
        Operation("POST", "/api/view/{id}/answer", viewer, "Give the SDP answer", AnswerRequest),
        Operation("POST", "/api/view/{id}/update", viewer, "Change cameras or qualities, or pull frozen ones again",
                  UpdateRequest, ViewAnswer),
        Operation("POST", "/api/view/{id}/received", viewer, "Report what the page decodes",
                  ReceivedRequest, ReceivedAnswer),
        Operation("DELETE", "/api/view/{id}", viewer, "Close the view"),
        Operation("POST", "/whep/{id}", viewer, "Watch a camera without Cloudflare: give an SDP offer (WHEP)",
                  "application/sdp", "application/sdp", WhepOfferQuery, 201),
        Operation("OPTIONS", "/whep/{id}", public, "What a player may send", reply="", status=204),
        Operation("PATCH", "/whep/{id}/{viewer}", viewer, "Give further candidates (RFC 8840), or restart ICE",
                  "application/trickle-ice-sdpfrag", "", WhepQuery, 204),
        Operation("DELETE", "/whep/{id}/{viewer}", viewer, "End watching", query=WhepQuery),
        Operation("OPTIONS", "/whep/{id}/{viewer}", public, "What a player may send", reply="", status=204),
    ]  # fmt: skip


_SECURITY: Final[dict[Right, list[dict[str, list[str]]]]] = {
    Right.OPERATOR: [{"token": []}, {"cookie": []}],
    Right.VIEWER: [{"token": []}, {"cookie": []}, {"link": []}],
    Right.PUBLIC: [],
}
_SCHEMES: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "`http.token` of the configuration"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "Set by POST /login"},
    "link": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`link CAMERA.EXPIRES.SIGNATURE`, with the parts of a link made by POST /api/cameras/{id}/link",
    },
}


def describe(table: list[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of `table`; `version` is the relay's."""
    types: set[type[msgspec.Struct]] = {ErrorReply, *(call.body for call in table if isinstance(call.body, type))}
    types.update(one for call in table for one in _replies(call))
    ordered = sorted(types, key=lambda one: one.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    known = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in table:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Nest relay", "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


_Known = dict[type[msgspec.Struct], dict[str, Any]]


def _replies(call: Operation) -> tuple[type[msgspec.Struct], ...]:
    if isinstance(call.reply, str):
        return ()
    return call.reply if isinstance(call.reply, tuple) else (call.reply,)


def _operation(call: Operation, known: _Known) -> dict[str, Any]:
    schemas = [known[one] for one in _replies(call)]
    done = _json(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}) if schemas else {str(call.reply): {}}
    success = {"description": "Done", "content": done} if call.reply else {"description": "Done"}
    described: dict[str, Any] = {
        "summary": call.summary,
        "description": f"Needs {call.right.value}.",
        "operationId": _operation_id(call),
        "security": _SECURITY[call.right],
        "parameters": _parameters(call),
        "responses": {
            str(call.status): success,
            "default": {"description": "What went wrong, and what to do", "content": _json(known[ErrorReply])},
        },
    }
    if call.body is not None:
        content = {call.body: {}} if isinstance(call.body, str) else _json(known[call.body])
        described["requestBody"] = {"required": True, "content": content}
    return described


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def page(table: list[Operation]) -> str:
    """The table of docs/http-api.md."""
    lines = ["| call | what it does | reads | answers | needs |", "|---|---|---|---|---|"]
    for call in table:
        fields = [name for one in (call.query, call.body) if isinstance(one, type) for name in one.__struct_fields__]
        reads = ", ".join(f"`{name}`" for name in [*fields, *([call.body] if isinstance(call.body, str) else [])])
        answers = " or ".join(f"`{one.__name__}`" for one in _replies(call)) or (call.reply and f"`{call.reply}`")
        lines.append(
            f"| `{call.method} {call.path}` | {call.summary} | {reads} | {answers} | {call.right.name.lower()} |"
        )
    return "\n".join(lines) + "\n"


def _operation_id(call: Operation) -> str:
    return call.method.lower() + "".join(
        word.capitalize() for word in re.findall(r"\w+", call.path.removeprefix("/api"))
    )


def _parameters(call: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", call.path)
    ]
    if call.query is not None:
        schema = msgspec.json.schema_components([call.query])[1][call.query.__name__]
        found += [{"name": name, "in": "query", "schema": part} for name, part in schema["properties"].items()]
    return found
