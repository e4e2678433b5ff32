"""The door in front of the application: headers on every answer, and who gets in (ASGI middleware)."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_supervisor.http.auth import COOKIE, HEADERS, Gatekeeper, same_origin
from relay_supervisor.http.replies import error_reply, sign_in_page

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PUBLIC: Final = frozenset({"/livez", "/readyz", "/login", "/static/style.css", "/static/icon.svg"})
"""Served without signing in: probes (which then give no details) and what the sign-in page is made of."""


class Guard:
    """Checks Host, origin and credentials as `gatekeeper` says, then lets `app` answer.

    `scope["state"]["signed_in"]` tells the application whether the client has shown a credential (or needs none).
    """

    def __init__(self, app: ASGIApp, gatekeeper: Gatekeeper) -> None:
        self._app, self._gatekeeper = app, gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._check(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

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
        if scope["method"] not in _SAFE and not same_origin(host, origin, site):
            return error_reply(403, "cross_origin", "Another site may not change anything here", "")
        signed_in, wait = self._credentials(scope, headers)
        scope.setdefault("state", {})["signed_in"] = signed_in
        path = scope["path"]
        if signed_in or path in _PUBLIC or (path == "/" and "token" in Request(scope).query_params):
            return None
        if wait:
            reply = error_reply(429, "too_many_failures", "Too many wrong tokens from this address", "Wait a minute")
            reply.headers["Retry-After"] = str(int(wait) + 1)
            return reply
        if path == "/":
            return sign_in_page(401)
        reply = error_reply(
            401, "unauthorized", "A token is needed", "Send it as Authorization: Bearer, or sign in on the page"
        )
        reply.headers["WWW-Authenticate"] = 'Bearer realm="relay"'
        return reply

    def _credentials(self, scope: Scope, headers: Headers) -> tuple[bool, float]:
        """(whether the client is let in, seconds for which its address is locked out)."""
        if self._gatekeeper.open or self._gatekeeper.cookie_valid(_cookie(headers.get("cookie", ""))):
            return True, 0.0
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return False, 0.0
        wait = self._gatekeeper.check_token(token.strip(), address(scope))
        return wait is None, wait or 0.0


def address(scope: Scope) -> str:
    """The client's address; empty on a Unix socket."""
    client = scope.get("client")
    return client[0] if client else ""


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
