"""The HTTP application: dashboard, health, metrics, status; joined by the endpoints of `admin` and `viewing`.

It knows the relay only through `RelayView`, so tests and the demo can substitute anything.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.errors import RelayError
from relay_common.secrets import Secret
from relay_supervisor.events import EventHub, TooManyClients
from relay_supervisor.http import admin, openapi, sharing, viewing, whep
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.event_stream import EventStream
from relay_supervisor.http.guard import Guard
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import Links, ViewerSettings
from relay_supervisor.http.metrics import RelayCollector, Telemetry
from relay_supervisor.http.probes import livez, readyz
from relay_supervisor.http.replies import (
    ASSETS,
    ApiError,
    camera_in,
    flag,
    json_reply,
    on_api_error,
    on_http_exception,
    on_relay_error,
)
from relay_supervisor.http.signing_in import sign_in, sign_in_by_form
from relay_supervisor.http.viewing import LocalWay, local_way
from relay_supervisor.status.health import Health
from relay_supervisor.status.model import CameraStatus, RelayStatus


class SharedViewers(viewing.ViewService, sharing.LinkViews, Protocol):
    """Views at the SFU."""


class SharedLocal(whep.LocalService, sharing.LinkViews, Protocol):
    """Viewers without the SFU."""


class RelayView(Protocol):
    """The relay as the HTTP interface sees it. Verbs raise RelayError, which becomes the response."""

    @property
    def events(self) -> EventHub: ...

    @property
    def viewers(self) -> SharedViewers: ...

    @property
    def local(self) -> SharedLocal: ...

    def status(self) -> RelayStatus:
        """The status of everything, now."""
        ...

    def health(self) -> Health:
        """The verdict of `relay_supervisor.status.health.judge`."""
        ...

    def telemetry(self) -> Telemetry:
        """Counters that are not in the status."""
        ...

    @property
    def verbs(self) -> admin.AdminVerbs:
        """Operators' commands."""
        ...

    async def restart(self, camera: str) -> None:
        """End the camera's worker and start another."""
        ...

    async def keyframe(self, camera: str) -> None:
        """Ask the camera for a keyframe."""
        ...


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the interface; `token` None: open, on loopback only."""

    token: Secret | None = None
    viewers: ViewerSettings = ViewerSettings()
    trusted_proxies: tuple[str, ...] = ()
    base_path: str = ""


class CameraSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One camera in GET /api/cameras."""

    id: str
    name: str
    device: str
    protocol: str
    state: str
    reason: str
    enabled: bool
    viewable: bool
    codecs: list[str]
    width: int
    height: int
    local: LocalWay = LocalWay()
    sfu: bool = True
    """Whether it can be watched at Cloudflare."""
    renditions: str = "off"
    """The smaller picture that can be had of it now: `off`, `keyframes` or `smooth`."""
    account: str = ""
    """Which of several accounts has it, as in the status."""


class CameraSummaries(msgspec.Struct, frozen=True):
    """Answer of GET /api/cameras."""

    cameras: list[CameraSummary]


CALLS: Final = openapi.calls(CameraSummaries)
"""Every endpoint for programs."""


def create_app(
    relay: RelayView,
    settings: HttpSettings,
    clock: Clock,
    gatekeeper: Gatekeeper | None = None,
    book: LinkBook | None = None,
) -> Guard:
    """The ASGI application over `relay`; serve it with `relay_supervisor.http.server.HttpServer`.

    `gatekeeper` is for a caller that wants its counters; it has to hold the same token. `book` lists the links that are
    given out; without it they are forgotten with the application.
    """
    gatekeeper, book = gatekeeper or Gatekeeper(settings.token, clock), book or LinkBook(clock)
    links = Links(settings.viewers, clock, book)
    api = _Api(relay, gatekeeper, links, book)
    starlette = Starlette(
        routes=api.routes(),
        exception_handlers={
            ApiError: on_api_error,
            RelayError: on_relay_error,
            HTTPException: on_http_exception,
        },
    )
    proxies = TrustedProxies(settings.trusted_proxies)
    return Guard(starlette, gatekeeper, links, settings.viewers, proxies, settings.base_path, relay.local.allows)


class _Api:
    def __init__(self, relay: RelayView, gatekeeper: Gatekeeper, links: Links, book: LinkBook) -> None:
        self._relay, self._gatekeeper, self._links, self._book = relay, gatekeeper, links, book
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(RelayCollector(relay.status, relay.telemetry, relay.events, gatekeeper))

    def routes(self) -> list[Route]:
        return [
            Route("/", self.dashboard),
            Route("/login", self.login, methods=["POST"]),
            Route("/static/{name}", self.static),
            Route("/livez", livez),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/api/openapi.json", self.description),
            Route("/api/cameras", self.cameras),
            Route("/api/cameras/{id}/restart", self.restart, methods=["POST"]),
            Route("/api/cameras/{id}/keyframe", self.keyframe, methods=["POST"]),
            Route("/api/stats", self.stats),
            Route("/api/seat", self.seat),
            Route("/api/events", self.events),
            *admin.routes(self._relay),
            *viewing.routes(self._relay),
            *whep.routes(self._relay),
            *sharing.routes(self._relay, self._links, self._book),
        ]

    # --- pages ----------------------------------------------------------------------------------------------------

    async def dashboard(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None and not self._gatekeeper.open:
            return sign_in(self._gatekeeper, request, token)
        return ASSETS.reply("index.html", request)

    async def login(self, request: Request) -> Response:
        return await sign_in_by_form(self._gatekeeper, request)

    async def static(self, request: Request) -> Response:
        return ASSETS.reply(request.path_params["name"], request)

    # --- status ---------------------------------------------------------------------------------------------------

    async def readyz(self, request: Request) -> Response:
        return readyz(self._relay.health(), request, reasons=request.state.signed_in)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def cameras(self, request: Request) -> Response:
        return json_reply(CameraSummaries([camera_summary(camera) for camera in self._relay.status().cameras]))

    async def description(self, request: Request) -> Response:
        described, prefix = openapi.describe(CALLS, VERSION), request.state.prefix
        return json_reply(described | ({"servers": [{"url": prefix}]} if prefix else {}))

    async def stats(self, request: Request) -> Response:
        return json_reply(self._relay.status())

    async def seat(self, request: Request) -> Response:
        return json_reply(self._relay.status().seat)

    async def events(self, request: Request) -> ASGIApp:
        last = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
        status = self._relay.status() if flag(request, "status", default=True) else None
        try:
            subscription = self._relay.events.subscribe(last, status)
        except TooManyClients as error:
            raise ApiError(
                503, "too_many_clients", "Too many event streams are open", "Close other pages and try again"
            ) from error
        return EventStream(self._relay.events, subscription)

    # --- verbs ----------------------------------------------------------------------------------------------------

    async def restart(self, request: Request) -> Response:
        camera = camera_in(self._relay.status(), request)
        await self._relay.restart(camera.id)
        return json_reply({"ok": True})

    async def keyframe(self, request: Request) -> Response:
        camera = camera_in(self._relay.status(), request)
        await self._relay.keyframe(camera.id)
        return json_reply({"ok": True})


def camera_summary(camera: CameraStatus) -> CameraSummary:
    """What the list of cameras says of one."""
    return CameraSummary(
        id=camera.id,
        name=camera.name,
        device=camera.device,
        protocol=camera.lease.protocol,
        state=camera.state,
        reason=camera.reason,
        enabled=camera.enabled,
        viewable=camera.viewable,
        codecs=[codec for codec in (camera.video.codec, camera.audio.codec) if codec],
        width=camera.video.width,
        height=camera.video.height,
        local=local_way(camera),
        sfu=camera.sfu,
        renditions=camera.renditions,
        account=camera.account,
    )
