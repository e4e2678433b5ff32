"""HTTP endpoints for links to single cameras: made, listed and revoked by the operator."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import LinkError, Links
from relay_supervisor.http.replies import ApiError, camera_in, json_reply, read_json
from relay_supervisor.status.given_links import GivenLink, GivenLinks, Revoked
from relay_supervisor.status.model import RelayStatus


class LinkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /api/cameras/{id}/link."""

    seconds: Annotated[int, msgspec.Meta(ge=1, le=90 * 86400)] = 86400


class LinkViews(Protocol):
    """Views, some of which came by a link; implemented by `viewing.viewers` and `local.service`."""

    def of_link(self, link: str) -> int: ...

    def end_link(self, link: str) -> None: ...


class SharingRelay(Protocol):
    """The relay as these endpoints see it."""

    @property
    def viewers(self) -> LinkViews: ...

    @property
    def local(self) -> LinkViews: ...

    def status(self) -> RelayStatus: ...


def routes(relay: SharingRelay, links: Links, book: LinkBook) -> list[Route]:
    """The endpoints, for the application's list."""
    sharing = _Sharing(relay, links, book)
    return [
        Route("/api/cameras/{id}/link", sharing.make, methods=["POST"]),
        Route("/api/links", sharing.given, methods=["GET"]),
        Route("/api/links/{id}", sharing.revoke, methods=["DELETE"]),
    ]


class _Sharing:
    def __init__(self, relay: SharingRelay, links: Links, book: LinkBook) -> None:
        self._relay, self._links, self._book = relay, links, book

    async def make(self, request: Request) -> Response:
        camera = camera_in(self._relay.status(), request)
        wanted: LinkRequest = await read_json(request, LinkRequest)
        if not self._links.enabled:
            raise ApiError(
                409, "links_off", "Links to cameras are switched off here", 'Set viewers.access to "links" and restart'
            )
        try:
            return json_reply(self._links.make(camera.id, wanted.seconds, whep=camera.local.on))
        except LinkError as error:
            raise ApiError(409, error.code, error.message, error.hint) from error

    async def given(self, request: Request) -> Response:
        names = {camera.id: camera.name for camera in self._relay.status().cameras}
        links = [
            GivenLink(
                id=link.id,
                camera=link.camera,
                name=names.get(link.camera, ""),
                made_at=link.made_at,
                expires_at=link.expires,
                seen_at=link.seen_at,
                revoked_at=link.revoked_at,
                views=self._views(link.id),
            )
            for link in self._book.given()
        ]
        return json_reply(GivenLinks(links=links, enabled=self._links.enabled))

    async def revoke(self, request: Request) -> Response:
        name = request.path_params["id"]
        link = self._book.revoke(name)
        if link is None:
            raise ApiError(
                404,
                "unknown_link",
                "There is no link with that id",
                "`relay-supervisor links` or GET /api/links lists them",
            )
        views = self._views(name)
        self._relay.viewers.end_link(name)
        self._relay.local.end_link(name)
        return json_reply(Revoked(id=name, camera=link.camera, views=views, saved=self._book.saved))

    def _views(self, name: str) -> int:
        return self._relay.viewers.of_link(name) + self._relay.local.of_link(name)
