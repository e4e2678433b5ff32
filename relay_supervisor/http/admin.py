"""HTTP endpoints that control the relay: what the verbs of the command line call."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.replies import ApiError, json_reply, read_json
from relay_supervisor.operations.reload import ReloadReport
from relay_supervisor.operations.verbs import CameraChange, DrainStatus, Stopping
from relay_supervisor.status.log_ring import LogEntry

MOST_LINES: Final = 4000


class AdminVerbs(Protocol):
    """Operators' commands; implemented by `operations.verbs.Verbs`."""

    async def change(
        self, camera: str, *, included: bool | None = None, enabled: bool | None = None
    ) -> CameraChange: ...

    async def snapshot(self, camera: str) -> bytes: ...

    async def capture(self, camera: str, seconds: float) -> bytes: ...

    async def discover(self) -> int: ...

    def stop(self, *, keep_workers: bool) -> Stopping: ...

    def drain(self, on: bool) -> DrainStatus: ...

    def drained(self) -> DrainStatus: ...

    async def reload(self) -> ReloadReport: ...

    def recent(self, *, after: int, camera: str, level: str, most: int) -> list[LogEntry]: ...

    @property
    def debug(self) -> list[str]: ...

    def set_debug(self, categories: list[str]) -> None: ...


class AdminRelay(Protocol):
    """The relay as these endpoints see it."""

    @property
    def verbs(self) -> AdminVerbs: ...


class StopRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/stop."""

    keep_workers: bool = False


class DrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/drain."""

    on: bool = True


class DebugRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/debug: the subsystems whose debug lines are wanted; all others are switched off."""

    categories: list[str]


class CaptureRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/cameras/{id}/capture."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0


class LogQuery(msgspec.Struct, frozen=True):
    """Query of GET /api/logs: lines after that sequence number; `camera` is an id."""

    after: int = 0
    camera: str = ""
    level: Literal["debug", "info", "warning", "error"] = "debug"
    most: int = 200


class LogReply(msgspec.Struct, frozen=True):
    """Answer of GET /api/logs."""

    lines: list[LogEntry]


def routes(relay: AdminRelay) -> list[Route]:
    """The endpoints, for the application's list."""
    admin = _Admin(relay)
    return [
        Route("/api/cameras/{id}/add", admin.add, methods=["POST"]),
        Route("/api/cameras/{id}/remove", admin.remove, methods=["POST"]),
        Route("/api/cameras/{id}/enable", admin.enable, methods=["POST"]),
        Route("/api/cameras/{id}/disable", admin.disable, methods=["POST"]),
        Route("/api/cameras/{id}/snapshot", admin.snapshot),
        Route("/api/cameras/{id}/capture", admin.capture, methods=["POST"]),
        Route("/api/discover", admin.discover, methods=["POST"]),
        Route("/api/drain", admin.drained, methods=["GET"]),
        Route("/api/drain", admin.drain, methods=["POST"]),
        Route("/api/stop", admin.stop, methods=["POST"]),
        Route("/api/reload", admin.reload, methods=["POST"]),
        Route("/api/logs", admin.logs),
        Route("/api/debug", admin.debug, methods=["GET"]),
        Route("/api/debug", admin.set_debug, methods=["POST"]),
    ]


class _Admin:
    def __init__(self, relay: AdminRelay) -> None:
        # Looked up at each request: the relay creates its verbs after its application.
        self._relay = relay

    async def add(self, request: Request) -> Response:
        return json_reply(await self._relay.verbs.change(request.path_params["id"], included=True))

    async def remove(self, request: Request) -> Response:
        return json_reply(await self._relay.verbs.change(request.path_params["id"], included=False))

    async def enable(self, request: Request) -> Response:
        return json_reply(await self._relay.verbs.change(request.path_params["id"], enabled=True))

    async def disable(self, request: Request) -> Response:
        return json_reply(await self._relay.verbs.change(request.path_params["id"], enabled=False))

    async def snapshot(self, request: Request) -> Response:
        jpeg = await self._relay.verbs.snapshot(request.path_params["id"])
        return Response(jpeg, media_type="image/jpeg")

    async def capture(self, request: Request) -> Response:
        wanted: CaptureRequest = await read_json(request, CaptureRequest)
        pcapng = await self._relay.verbs.capture(request.path_params["id"], wanted.seconds)
        return Response(pcapng, media_type="application/octet-stream")

    async def discover(self, request: Request) -> Response:
        return json_reply({"cameras": await self._relay.verbs.discover()})

    async def drained(self, request: Request) -> Response:
        return json_reply(self._relay.verbs.drained())

    async def drain(self, request: Request) -> Response:
        wanted: DrainRequest = await read_json(request, DrainRequest)
        return json_reply(self._relay.verbs.drain(wanted.on))

    async def stop(self, request: Request) -> Response:
        wanted: StopRequest = await read_json(request, StopRequest)
        return json_reply(self._relay.verbs.stop(keep_workers=wanted.keep_workers))

    async def reload(self, request: Request) -> Response:
        return json_reply(await self._relay.verbs.reload())

    async def logs(self, request: Request) -> Response:
        try:
            query = msgspec.convert(dict(request.query_params), LogQuery, strict=False)
        except msgspec.ValidationError as error:
            raise ApiError(400, "bad_request", f"The query is not what this call takes: {error}") from error
        most = max(1, min(query.most, MOST_LINES))
        lines = self._relay.verbs.recent(after=query.after, camera=query.camera, level=query.level, most=most)
        return json_reply(LogReply(lines))

    async def debug(self, request: Request) -> Response:
        return json_reply({"categories": self._relay.verbs.debug})

    async def set_debug(self, request: Request) -> Response:
        wanted: DebugRequest = await read_json(request, DebugRequest)
        try:
            self._relay.verbs.set_debug(wanted.categories)
        except ValueError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        return json_reply({"categories": self._relay.verbs.debug})
