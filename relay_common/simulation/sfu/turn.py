"""Cloudflare's TURN keys: credentials that a real TURN server checks.

The server shares a secret with this (coturn's `use-auth-secret`, draft-uberti-behave-turn-rest): the user name begins
with the second at which it ends, and the password is its HMAC. So credentials end by themselves; a revoked one is only
noted here, because such a server cannot be told.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay_common.simulation.sfu.sessions import ApiError

_LONGEST: Final = 48 * 3600


@dataclass
class TurnKeys:
    """One TURN key and the server behind it; without a `key_id` there is none."""

    key_id: str = ""
    api_token: str = ""
    urls: list[str] = field(default_factory=list)
    secret: str = ""
    """Shared with the TURN server."""
    longest: float = _LONGEST
    """Longest life of a credential in seconds; tests shorten it."""
    issued: list[str] = field(default_factory=list)
    """User names, oldest first."""
    revoked: list[str] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)
    """Seconds for which each was asked for."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def change(self, wanted: dict[str, Any]) -> None:
        """Set fields by name; raises ValueError for an unknown one."""
        for name, value in wanted.items():
            if name not in ("key_id", "api_token", "urls", "secret", "longest"):
                raise ValueError(f"unknown: {name}")
            setattr(self, name, value)

    def describe(self) -> dict[str, Any]:
        """What has been issued and revoked."""
        return {"issued": self.issued, "revoked": self.revoked, "lives": self.lives}

    def routes(self) -> list[Route]:
        """The API's routes."""
        base = "/v1/turn/keys/{key}/credentials"
        return [
            Route(f"{base}/generate-ice-servers", self._generate, methods=["POST"]),
            Route(base + "/{username:path}/revoke", self._revoke, methods=["POST"]),
        ]

    def _authorise(self, request: Request) -> None:
        if not self.key_id or request.path_params["key"] != self.key_id:
            raise ApiError(404, "not_found", "There is no such TURN key")
        if request.headers.get("authorization") != f"Bearer {self.api_token}":
            raise ApiError(401, "unauthorized", "The API token is missing or wrong")

    async def _generate(self, request: Request) -> Response:
        self._authorise(request)
        try:
            ttl = json.loads(await request.body())["ttl"]
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(400, "decoding_error", f"The body has no ttl: {error}") from error
        if not isinstance(ttl, int) or not 0 < ttl <= _LONGEST:
            raise ApiError(400, "invalid_params", f"ttl must be 1 to {_LONGEST}")
        username = f"{int(time.time() + min(ttl, self.longest))}:{next(self._numbers)}"
        digest = hmac.digest(self.secret.encode(), username.encode(), hashlib.sha1)
        self.issued.append(username)
        self.lives.append(float(ttl))
        signed = {"urls": self.urls, "username": username, "credential": base64.b64encode(digest).decode()}
        # As the real one answers: STUN by itself, and port 53, which browsers refuse.
        stun = {"urls": ["stun:127.0.0.1:9", "stun:127.0.0.1:53"]}
        return JSONResponse({"iceServers": [stun, signed]}, status_code=201)

    async def _revoke(self, request: Request) -> Response:
        self._authorise(request)
        self.revoked.append(request.path_params["username"])
        return Response(status_code=204)
