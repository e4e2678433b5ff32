"""The token endpoint: authorization codes, a refresh token, access tokens that expire."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relay_common.simulation.google.errors import Reply, error, oauth_error

SCOPE: Final = "https://www.googleapis.com/auth/sdm.service"
_REMEMBERED_TOKENS: Final = 1000


class Authorization(enum.Enum):
    """Result of checking an access token."""

    VALID = "valid"
    INVALID = "invalid"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True)
class Client:
    """The OAuth client and the user's grant."""

    client_id: str
    client_secret: str
    refresh_token: str
    authorization_code: str = "4/simulated-code"


class OAuth:
    """Grants access tokens for one client; `lifetime` in seconds.

    `revoked` makes every refresh fail with invalid_grant; `down` makes the endpoint answer 503; `forbidden` makes the
    API refuse good tokens with 403.
    """

    def __init__(self, client: Client, *, lifetime: float = 3599.0, seed: int = 0) -> None:
        self.client, self.lifetime = client, lifetime
        self.revoked = self.down = self.forbidden = False
        self.refreshes = 0
        self._rng = random.Random(f"{seed}/oauth")
        self._tokens: dict[str, float] = {}

    def token(self, form: Mapping[str, str], now: float) -> Reply:
        """POST /token with grant_type refresh_token or authorization_code."""
        if self.down:
            return error(503, "The service is currently unavailable.")
        if (form.get("client_id"), form.get("client_secret")) != (self.client.client_id, self.client.client_secret):
            return oauth_error(401, "invalid_client", "The OAuth client was not found.")
        match form.get("grant_type"):
            case "refresh_token":
                if self.revoked or form.get("refresh_token") != self.client.refresh_token:
                    return oauth_error(400, "invalid_grant", "Token has been expired or revoked.")
                self.refreshes += 1
                return Reply(200, self._grant(now))
            case "authorization_code":
                if form.get("code") != self.client.authorization_code:
                    return oauth_error(400, "invalid_grant", "Malformed auth code.")
                self.revoked = False
                return Reply(200, {**self._grant(now), "refresh_token": self.client.refresh_token})
        return oauth_error(400, "unsupported_grant_type", "Invalid grant_type.")

    def check(self, token: str, now: float) -> Authorization:
        """Check `token` at `now`."""
        if self._tokens.get(token, 0.0) <= now:
            return Authorization.INVALID
        return Authorization.FORBIDDEN if self.forbidden else Authorization.VALID

    def expire_all(self) -> None:
        """Invalidate every access token now."""
        self._tokens.clear()

    def _grant(self, now: float) -> dict[str, object]:
        token = f"ya29.a0{self._rng.getrandbits(640):0160x}"
        if len(self._tokens) >= _REMEMBERED_TOKENS:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[token] = now + self.lifetime
        return {"access_token": token, "expires_in": int(self.lifetime), "scope": SCOPE, "token_type": "Bearer"}
