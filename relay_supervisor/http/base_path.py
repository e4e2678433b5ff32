"""The path under which a reverse proxy serves the relay, such as `/cameras`: stripped from what is asked for. And
whether the proxy is reached over TLS.

A proxy may leave it in the path that it passes on, which needs `http.base_path`, or strip it itself and tell it in
`X-Forwarded-Prefix`, which is believed from `http.trusted_proxies` alone. The pages need neither, as they address
everything relative to themselves. Sign-in does, for its redirect and the path of its cookie, which is for TLS alone
where such a proxy says `X-Forwarded-Proto: https`.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import URL
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Scope

from relay_common.errors import ConfigError
from relay_supervisor.http.addresses import TrustedProxies, peer_of

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
"""No empty segment, as `//host` would be another site's address, and none that begins with a dot."""

_LONGEST: Final = 200
_OURS: Final = frozenset({"api", "livez", "login", "metrics", "readyz", "static", "watch", "whep"})
"""First segments of the relay's own paths: with one of them as base path, a request would have two meanings."""


def base_path(text: str) -> str:
    """`text` of `http.base_path` as a prefix without a slash at its end; raises ConfigError for what is no path."""
    path = text.rstrip("/")
    if not path:
        return ""
    if not _PATH.fullmatch(path) or len(path) > _LONGEST:
        raise ConfigError(
            f"[http] base_path is {text!r}, which is no path",
            hint='Write for example "/cameras": a slash, then letters, digits, "-", "_", "." or "~"',
        )
    if path.split("/")[1] in _OURS:
        raise ConfigError(
            f"[http] base_path is {text!r}, and the relay itself has something at that path",
            hint='Choose another, for example "/cameras"',
        )
    return path


class BasePath:
    """Where the relay appears to clients: `configured` (http.base_path), or what `proxies` say."""

    def __init__(self, configured: str, proxies: TrustedProxies) -> None:
        """Raises ConfigError when `configured` is no path."""
        self._configured, self._proxies = base_path(configured), proxies

    def enter(self, scope: Scope) -> ASGIApp | None:
        """Strip the base path from `scope`, and set `state["prefix"]` and `scheme` to those that clients see.

        Returns the redirect to the dashboard when the path is the base path without its last slash.
        """
        scheme = (self._header(scope, b"x-forwarded-proto") or "").lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        prefix = self._forwarded(scope)
        scope["state"]["prefix"] = self._configured if prefix is None else prefix
        path: str = scope["path"]
        if not self._configured:
            return None
        if path == self._configured:
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse(str(URL(path=f"{scope['state']['prefix']}/", query=query)), status_code=308)
        if path.startswith(f"{self._configured}/"):
            scope["path"] = path.removeprefix(self._configured)
        return None

    def _forwarded(self, scope: Scope) -> str | None:
        """The value of the last X-Forwarded-Prefix, if a trusted proxy sent one that is a path."""
        value = self._header(scope, b"x-forwarded-prefix")
        if value is None:
            return None
        path = value.rstrip("/")
        return path if not path or (_PATH.fullmatch(path) and len(path) <= _LONGEST) else None

    def _header(self, scope: Scope, name: bytes) -> str | None:
        """The last value of a header, if a trusted proxy sent one."""
        values = [value for known, value in scope["headers"] if known == name]
        return values[-1].decode("latin-1").strip() if values and peer_of(scope) in self._proxies else None
