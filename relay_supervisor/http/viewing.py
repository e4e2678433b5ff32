"""HTTP endpoints for watching cameras: views for pages, and a camera's own page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.replies import ApiError, camera_in, json_reply, read_json, watch_page
from relay_supervisor.http.whep import LocalService
from relay_supervisor.status.model import CameraStatus, RelayStatus
from relay_supervisor.viewing.decoding import Received
from relay_supervisor.viewing.views import Audience, ViewAnswer, Visitor

# All that a guest learns about a camera that is not live, by the state of the camera and of its lease. The operator's
# texts are not for guests: they quote errors, name the account's project and count the other cameras.
_REASONS: Final = {
    "disabled": "it is switched off at the relay",
    "idle": "nobody watches it",
    "offline": "it cannot be reached",
    "degraded": "it keeps failing",
}
_UNDECODABLE: Final = "browsers cannot decode its picture"
_AT_REST: Final = frozenset({"live", "disabled", "idle", "stopped"})
_NEXT: Final = {
    "wanted": "the relay waits until it may ask for its picture",
    "generating": "the relay asks for its picture",
    "held_off": "the relay tries again",
    "parked": "the relay tries again when the camera is back",
    "released": "",
}
_RECONNECTED: Final = "it is being reconnected"


Quality = Literal["small", "full"]
Qualities = Mapping[str, str]
"""Which of its pictures is wanted of a camera, by its id."""


class ViewService(Protocol):
    """What the viewer endpoints need; implemented by `viewing.viewers.Viewers`."""

    async def open(
        self, cameras: list[str], audio: bool, qualities: Qualities, *, audience: Audience, visitor: Visitor
    ) -> ViewAnswer: ...

    async def answer(self, view: str, sdp: str, *, audience: Audience) -> None: ...

    async def update(
        self, view: str, cameras: list[str] | None, stale: list[str], qualities: Qualities, *, audience: Audience
    ) -> ViewAnswer: ...

    async def close(self, view: str, *, audience: Audience) -> None: ...

    def received(self, view: str, received: list[Received], *, audience: Audience) -> dict[str, str]: ...


class ViewedRelay(Protocol):
    """The relay as these endpoints see it."""

    @property
    def local(self) -> LocalService: ...

    @property
    def viewers(self) -> ViewService: ...

    def status(self) -> RelayStatus: ...


class ViewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/view."""

    cameras: list[str]
    audio: bool = True
    qualities: dict[str, Quality] = {}
    """Which picture is wanted of a camera that has a smaller one, too; absent: `full`."""


class AnswerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/view/{id}/answer."""

    sdp: str


class UpdateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/view/{id}/update."""

    cameras: list[str] | None = None
    """What the view is to hold from now on; absent: unchanged."""
    stale: list[str] = []
    """Cameras whose picture is frozen on the page: they are pulled again."""
    qualities: dict[str, Quality] = {}
    """Which picture is wanted from now on; cameras that are not named keep theirs."""


class ReceivedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/view/{id}/received: the page's `getStats()` totals, while the page is visible.

    The id is a view's, or that of a session at `/whep/{camera}`.
    """

    cameras: list[Received]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why this page, and no other, shows no picture of a camera."""

    camera: str
    reason: str


class ReceivedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of POST /api/view/{id}/received."""

    faults: list[Fault]
    quality: str = ""
    """Which picture a page that plays from the relay itself is sent: `full`, also where it asked for the small one and
    there is none, or `small`. Empty for a page that plays from Cloudflare."""


class LocalWay(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a camera can be watched at `/whep/{camera}`; `publication` changes when it has to be connected afresh."""

    on: bool = False
    publication: str = ""


def local_way(camera: CameraStatus) -> LocalWay:
    """What a page has to know of a camera's local viewing."""
    return LocalWay(on=camera.local.on, publication=camera.local.publication)


class WatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status for a camera's own page: nothing about the relay, the account or other cameras.

    `reason` and `next_action` come from a small fixed vocabulary. `next_at` is in Unix seconds, 0 when it is not known.
    """

    id: str
    name: str
    state: str
    reason: str
    enabled: bool
    viewable: bool
    publication: str
    next_action: str
    next_at: float
    at: float
    """The relay's clock, Unix seconds."""
    decodable: str = "unknown"
    """Whether browsers can decode the picture: `unknown`, `yes`, `no`."""
    local: LocalWay = LocalWay()
    sfu: bool = True
    """Whether it can be watched at Cloudflare."""
    renditions: str = "off"
    """The smaller picture that can be had of it now: `off`, `keyframes` or `smooth`."""


def routes(relay: ViewedRelay) -> list[Route]:
    """The endpoints, for the application's list."""
    viewing = _Viewing(relay)
    return [
        Route("/watch/{id}", viewing.watch_page),
        Route("/api/watch/{id}", viewing.watch),
        Route("/api/view", viewing.open_view, methods=["POST"]),
        Route("/api/view/{id}", viewing.close_view, methods=["DELETE"]),
        Route("/api/view/{id}/answer", viewing.answer_view, methods=["POST"]),
        Route("/api/view/{id}/update", viewing.update_view, methods=["POST"]),
        Route("/api/view/{id}/received", viewing.received, methods=["POST"]),
    ]


class _Viewing:
    def __init__(self, relay: ViewedRelay) -> None:
        self._relay = relay

    async def watch_page(self, request: Request) -> Response:
        return watch_page(200)

    async def watch(self, request: Request) -> Response:
        audience: Audience = request.state.audience
        if not audience.sees(request.path_params["id"]):
            raise ApiError(403, "not_allowed", "Your link does not show that camera", "Ask for another link")
        status = self._relay.status()
        camera = camera_in(status, request)
        return json_reply(_watch_status(camera, status.at))

    async def open_view(self, request: Request) -> Response:
        wanted: ViewRequest = await read_json(request, ViewRequest)
        audience, visitor = request.state.audience, request.state.visitor
        return json_reply(
            await self._relay.viewers.open(
                wanted.cameras, wanted.audio, wanted.qualities, audience=audience, visitor=visitor
            )
        )

    async def answer_view(self, request: Request) -> Response:
        given: AnswerRequest = await read_json(request, AnswerRequest)
        view = request.path_params["id"]
        await self._relay.viewers.answer(view, given.sdp, audience=request.state.audience)
        return json_reply({"ok": True})

    async def update_view(self, request: Request) -> Response:
        wanted: UpdateRequest = await read_json(request, UpdateRequest)
        view, audience = request.path_params["id"], request.state.audience
        return json_reply(
            await self._relay.viewers.update(view, wanted.cameras, wanted.stale, wanted.qualities, audience=audience)
        )

    async def received(self, request: Request) -> Response:
        given: ReceivedRequest = await read_json(request, ReceivedRequest)
        view, relay, visitor, quality = request.path_params["id"], self._relay, request.state.visitor, ""
        if view in relay.local:
            faults = relay.local.received(view, given.cameras, visitor=visitor)
            quality = relay.local.quality(view, visitor=visitor)
        else:
            faults = relay.viewers.received(view, given.cameras, audience=request.state.audience)
        found = [Fault(camera=camera, reason=reason) for camera, reason in faults.items()]
        return json_reply(ReceivedAnswer(faults=found, quality=quality))

    async def close_view(self, request: Request) -> Response:
        await self._relay.viewers.close(request.path_params["id"], audience=request.state.audience)
        return json_reply({"ok": True})


def _watch_status(camera: CameraStatus, at: float) -> WatchStatus:
    lease = camera.lease
    return WatchStatus(
        id=camera.id,
        name=camera.name,
        state=camera.state,
        reason=_UNDECODABLE if camera.decodable == "no" else _REASONS.get(camera.state, ""),
        enabled=camera.enabled,
        viewable=camera.viewable,
        publication=camera.publication,
        next_action="" if camera.state in _AT_REST else _NEXT.get(lease.state, _RECONNECTED),
        next_at=lease.next_at if lease.state == "held_off" else 0.0,
        at=at,
        decodable=camera.decodable,
        local=local_way(camera),
        sfu=camera.sfu,
        renditions=camera.renditions,
    )
