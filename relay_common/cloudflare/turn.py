"""Credentials for Cloudflare's TURN service, issued and revoked with a TURN key.

https://developers.cloudflare.com/realtime/turn/generate-credentials/: a key's token makes credentials that end after
`ttl` seconds, 48 hours at most; the token itself is for no client. A call is tried once: whoever asks has a way without
TURN, and asks again for the next view.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from relay_common.authorities import public_authorities
from relay_common.cloudflare.exchange import BASE_URL, exchange
from relay_common.errors import ConfigError, Remedy, RemoteError
from relay_common.protocol import TurnServer
from relay_common.secrets import Secret
from relay_common.spoken import spoken
from relay_common.undecodable import UNDECODABLE

LONGEST: Final = 48 * 3600.0
"""Longest life of a credential, in seconds."""
TCP_PORTS: Final = (80, 443, 3478, 5349)
"""Ports at which turn.cloudflare.com is reached over TCP and TLS."""
_WITHIN: Final = 3.0
"""Seconds for one call: a view waits for it."""
_BLOCKED_PORT: Final = ":53"
"""Browsers refuse port 53; the documentation asks for it to be left out."""


class TurnError(RemoteError):
    """Cloudflare issued no credentials."""


class _Wanted(msgspec.Struct):
    ttl: int


class _Server(msgspec.Struct):
    urls: list[str] | str = []
    username: str = ""
    credential: str = ""


class _Issued(msgspec.Struct, rename="camel"):
    ice_servers: list[_Server] | _Server = []


class TurnKey:
    """A TURN key; close it with `aclose()`. Raises ConfigError for a key or token that cannot be sent."""

    def __init__(
        self,
        key_id: str,
        api_token: Secret,
        *,
        base_url: str = BASE_URL,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        require_usable_key(key_id, api_token)
        self._http = httpx.AsyncClient(
            base_url=f"{base_url.rstrip('/')}/turn/keys/{quote(key_id, safe='')}/credentials/",
            headers={"Authorization": f"Bearer {api_token.reveal()}"},
            timeout=_WITHIN,
            transport=transport,
            verify=public_authorities(),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections; requests in flight fail."""
        await self._http.aclose()

    async def issue(self, ttl: float) -> list[TurnServer]:
        """STUN and TURN servers with a credential that ends in `ttl` seconds. Raises TurnError."""
        seconds = max(1, int(min(ttl, LONGEST)))
        content = await self._call("generate-ice-servers", msgspec.json.encode(_Wanted(ttl=seconds)))
        try:
            found = msgspec.json.decode(content, type=_Issued).ice_servers
        except UNDECODABLE:
            raise TurnError(
                "Cloudflare TURN's answer is not the JSON that the API describes", remedy=Remedy.RETRY
            ) from None
        servers = [
            TurnServer(urls=urls, username=one.username, credential=one.credential)
            for one in (found if isinstance(found, list) else [found])
            if (urls := _usable([one.urls] if isinstance(one.urls, str) else one.urls, signed=bool(one.credential)))
        ]
        if not any(server.credential for server in servers):
            raise TurnError("Cloudflare TURN's answer has no credential", remedy=Remedy.RETRY)
        return servers

    async def revoke(self, username: str) -> None:
        """End a credential before its time. Raises TurnError."""
        await self._call(f"{quote(username, safe='')}/revoke", None)

    async def _call(self, path: str, body: bytes | None) -> bytes:
        try:
            status, _, content = await exchange(self._http, "POST", path, body, within=_WITHIN)
        except httpx.HTTPError as error:
            raise TurnError(
                f"Cloudflare TURN could not be reached: {spoken(error)}",
                hint="Check the network; viewers whose network blocks UDP see nothing until it answers",
                remedy=Remedy.RETRY,
            ) from error
        if 200 <= status < 300:
            return content
        refused = status in (401, 403, 404)
        # Not the body: what a service says about credentials is for no log.
        raise TurnError(
            f"Cloudflare TURN answered {status}",
            hint="Compare [cloudflare.turn] key_id and api_token with dash.cloudflare.com, Realtime > TURN"
            if refused
            else "",
            remedy=Remedy.FATAL if refused else Remedy.RETRY,
        )


def require_usable_key(key_id: str, api_token: Secret) -> None:
    """Raise the ConfigError of a key that would be made with these."""
    token = api_token.reveal()
    # An HTTP library would quote an invalid header in its error message, including the token.
    if not key_id or not token or not all("!" <= c <= "~" for c in token):
        raise ConfigError(
            "[cloudflare.turn] key_id or api_token is empty, or the token holds characters that cannot be sent",
            hint="Copy both again from the TURN key's page, without spaces or line ends",
        )


def _usable(urls: list[str], *, signed: bool) -> list[str]:
    """The URLs that a browser takes: TURN without a credential would make it refuse all of them."""
    schemes = ("stun:", "stuns:", "turn:", "turns:") if signed else ("stun:", "stuns:")
    return [url for url in urls if url.startswith(schemes) and not url.partition("?")[0].endswith(_BLOCKED_PORT)]
