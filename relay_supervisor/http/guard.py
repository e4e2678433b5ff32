"""Access control in front of the application, and headers on every response (ASGI middleware)."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_supervisor.http.addresses import TrustedProxies, forwarded_for, peer_of, share_of
from relay_supervisor.http.admission import MOST_OF_AN_ADDRESS, Share
from relay_supervisor.http.auth import COOKIE, HEADERS, Gatekeeper, cross_origin, page_headers, same_origin
from relay_supervisor.http.base_path import BasePath
from relay_supervisor.http.links import SCHEME, LinkError, Links, ViewerSettings, link_name
from relay_supervisor.http.replies import error_reply, sign_in_page, watch_page
from relay_supervisor.state.store import LinkCredential
from relay_supervisor.viewing.views import ALL_CAMERAS, OPERATOR, Visitor

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_WATCH_FILES: Final = (
    *("watch", "api", "choice", "codecs", "connection", "controls", "format", "group", "kept", "local", "numbers"),
    *("peer", "playback", "player", "published", "quality", "reasons", "renditions", "sight", "tile"),
)
_PUBLIC: Final = frozenset(
    {"/livez", "/readyz", "/login", "/static/style.css", "/static/icon.svg"}
    | {f"/static/{name}.js" for name in _WATCH_FILES}
)
"""Served without signing in: probes (which then give no details), and the files of the sign-in and camera pages."""
_PAGES: Final = "/watch/"
_WHEP: Final = "/whep/"
_VIEWER_PATHS: Final = (_PAGES, _WHEP, "/api/watch/", "/api/view/")
"""With /api/view, all that clients who may only watch can reach; there, `state.audience` says which cameras."""


class Guard:
    """Checks Host, origin and credentials as `gatekeeper`, `links` and `viewers` say, then lets `app` answer.

    `scope["state"]["signed_in"]` tells the application whether the client has shown the token (or needs none),
    `audience` which cameras it may see, `visitor` whose share its views count against, `address` its address, as
    reported by `proxies` if it uses one, and `prefix` where clients see the relay: `base_path`, or what such a proxy
    says; `link` is the link that it came with, if it did. `may_play` tells from which other origins pages may play at
    /whep: there they may show a token or a link, and no cookie counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        gatekeeper: Gatekeeper,
        links: Links,
        viewers: ViewerSettings,
        proxies: TrustedProxies | None = None,
        base_path: str = "",
        may_play: Callable[[str], bool] = lambda origin: False,
    ) -> None:
        self._app, self._gatekeeper, self._links = app, gatekeeper, links
        self._may_play = may_play
        self._proxies = proxies or TrustedProxies()
        self._base_path = BasePath(base_path, self._proxies)
        self._under_way = Share(MOST_OF_AN_ADDRESS)
        self.refused_requests = 0
        self._all_may_watch = viewers.access == "open"
        self._page_headers = page_headers(viewers.frame_ancestors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        state = scope.setdefault("state", {})
        elsewhere = self._base_path.enter(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                page = scope["path"].startswith(_PAGES)
                for name, value in (self._page_headers if page else HEADERS).items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if state.get("elsewhere"):
                    headers.update(cross_origin(state["elsewhere"]))
            await send(message)

        state["address"] = self._proxies.client(peer_of(scope), forwarded_for(scope))
        refusal = elsewhere or self._check(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
        elif state["visitor"].operator:
            await self._app(scope, receive, send_guarded)
        else:
            await self._serve_within_share(scope, receive, send_guarded)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"refused_requests": self.refused_requests}

    async def _serve_within_share(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a client other than the operator, unless 64 of its requests are under way already."""
        share = share_of(scope["state"]["address"])
        if not self._under_way.take(share):
            self.refused_requests += 1
            busy = error_reply(
                429, "too_many_requests", f"{MOST_OF_AN_ADDRESS} requests from your address are under way", "Wait"
            )
            await busy(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way.give_back(share)

    def _check(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._gatekeeper.host_allowed(host):
            return error_reply(
                421,
                "wrong_host",
                "This relay is not served under that name",
                "Use http://127.0.0.1 or http://localhost",
            )
        origin, site = headers.get("origin", ""), headers.get("sec-fetch-site", "")
        state, path = scope["state"], scope["path"]
        own = same_origin(host, origin, site)
        if not own and path.startswith(_WHEP) and self._may_play(origin):
            state["elsewhere"] = origin
        elif not own and (scope["method"] not in _SAFE or path.startswith(_WHEP)):
            return error_reply(403, "cross_origin", "Another site may not change anything here", "")
        state["signed_in"], state["audience"], state["link"] = False, ALL_CAMERAS, None
        state["visitor"] = Visitor(operator=False, address=share_of(state["address"]))
        link = _link(scope, headers)
        if link is not None:
            return self._check_link(scope, link)
        if path.startswith(_WHEP) and scope["method"] == "OPTIONS":
            return None  # browsers ask without credentials, and learn which methods there are
        signed_in, wait = self._credentials(scope, headers)
        state["signed_in"] = signed_in
        if signed_in:
            state["visitor"] = OPERATOR
        if signed_in or path in _PUBLIC or (path == "/" and "token" in Request(scope).query_params):
            return None
        if self._all_may_watch and _for_viewers(path):
            return None
        if wait:
            reply = error_reply(429, "too_many_failures", "Too many wrong tokens from this address", "Wait a minute")
            reply.headers["Retry-After"] = str(int(wait) + 1)
            return reply
        if path == "/":
            return sign_in_page(401)
        if path.startswith(_PAGES):
            return watch_page(401)
        reply = error_reply(
            401, "unauthorized", "A token is needed", "Send it as Authorization: Bearer, or sign in on the page"
        )
        reply.headers["WWW-Authenticate"] = 'Bearer realm="relay"'
        return reply

    def _check_link(self, scope: Scope, link: tuple[str, str, str]) -> ASGIApp | None:
        """Let the holder of a link reach only what viewers may, whatever other credentials the request carries."""
        path = scope["path"]
        try:
            audience = self._links.check(*link)
        except LinkError as error:
            # The page asks the API, and shows its error.
            return watch_page(403) if path.startswith(_PAGES) else error_reply(403, error.code, str(error), error.hint)
        state = scope["state"]
        state["visitor"] = Visitor(operator=False, address=state["visitor"].address, link=link_name(*link))
        state["audience"], state["link"] = audience, LinkCredential(*link)
        if _for_viewers(path) or path in _PUBLIC:
            return None
        return error_reply(
            403, "not_allowed", "A link shows one camera and opens nothing else", "Sign in with the token"
        )

    def _credentials(self, scope: Scope, headers: Headers) -> tuple[bool, float]:
        """(whether the client is admitted, seconds for which its address is locked out)."""
        cookie = "" if scope["state"].get("elsewhere") else _cookie(headers.get("cookie", ""))
        if self._gatekeeper.open or self._gatekeeper.cookie_valid(cookie):
            return True, 0.0
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return False, 0.0
        wait = self._gatekeeper.check_token(token.strip(), scope["state"]["address"])
        return wait is None, wait or 0.0


def _for_viewers(path: str) -> bool:
    return path == "/api/view" or path.startswith(_VIEWER_PATHS)


def _link(scope: Scope, headers: Headers) -> tuple[str, str, str] | None:
    """(camera, expires, signature) of a link, from the address of a camera's page or of its WHEP endpoint, or from a
    header of the page's calls.
    """
    path, query = scope["path"], QueryParams(scope["query_string"])
    if path.startswith((_PAGES, _WHEP)) and "signature" in query:
        return path.split("/")[2], query.get("expires", ""), query["signature"]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != SCHEME:
        return None
    camera, _, rest = value.strip().partition(".")
    expires, _, signature = rest.partition(".")
    return camera, expires, signature


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
