"""The WHIP client's edge: its exchanges over HTTP, each within a deadline."""

from __future__ import annotations

import ssl
from typing import Final

import httpx

from relay_common.bounded_http import BodyTooLarge, whole_body
from relay_common.clock import Clock
from relay_common.deadline import Deadline
from relay_common.spoken import spoken
from relay_common.whip.endpoint import WhipEndpoint, place_of
from relay_common.whip.errors import WhipError
from relay_common.whip.exchange import (
    MAX_BODY,
    Exchange,
    WhipPatch,
    WhipResponse,
    WhipSession,
    created,
    ending,
    publishing,
    restarted,
    restarting,
    trickling,
)

CALL_WITHIN: Final = 15.0
"""Seconds for one exchange with all its redirects, however slowly the answers trickle in."""
_CUT: Final = ("Server disconnected", "peer closed connection")
"""How the words of an error begin that tells of an answer's end."""
_TIMEOUT: Final = httpx.Timeout(CALL_WITHIN, connect=5.0)


class WhipClient:
    """Publishes at endpoints of one server; close it with `aclose()`. Every method raises WhipError.

    `ca_file` holds the authorities to trust in place of the system's; one that cannot be read raises OSError, one that
    holds none ssl.SSLError. `transport` is for tests.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ca_file: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._http = httpx.AsyncClient(
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=4),
            verify=ssl.create_default_context(cafile=ca_file or None),
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections; requests in flight fail."""
        await self._http.aclose()

    async def publish(self, endpoint: WhipEndpoint, offer: str) -> WhipSession:
        """Have the server answer `offer` in a new session; tried once."""
        exchange = publishing(endpoint, offer)
        response = await self._run(exchange)
        return created(exchange.request.url, response)

    async def trickle(self, endpoint: WhipEndpoint, resource: str, fragment: str, etag: str) -> None:
        """Tell the server of a session of more candidates, in an SDP fragment (RFC 8840)."""
        await self._run(trickling(endpoint, resource, fragment, etag))

    async def restart(self, endpoint: WhipEndpoint, resource: str, fragment: str) -> WhipPatch:
        """Restart ICE in a session; `fragment` is our end of the new one."""
        return restarted(await self._run(restarting(endpoint, resource, fragment)))

    async def end(self, endpoint: WhipEndpoint, resource: str) -> None:
        """End a session; one that the server no longer knows counts as ended."""
        try:
            await self._run(ending(endpoint, resource))
        except WhipError as error:
            if error.status not in (404, 410):
                raise

    async def _run(self, exchange: Exchange) -> WhipResponse:
        method = exchange.request.method
        try:
            async with Deadline(CALL_WITHIN):
                while True:
                    response = await self._send(exchange)
                    if (last := exchange.receive(response, self._clock.wall())) is not None:
                        return last
        except TimeoutError:
            raise WhipError(f"no complete answer to {method} within {CALL_WITHIN:g} s") from None
        except httpx.RemoteProtocolError as error:
            # Not its words, and not its traceback: they quote what came, which may repeat the token.
            cut = "closed the connection before its answer was complete"
            spoke = cut if str(error).startswith(_CUT) else "answered with something that is not HTTP"
            raise WhipError(f"{place_of(exchange.request.url)} {spoke} ({method})") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WhipError(
                f"{place_of(exchange.request.url)} could not be reached for {method}: {spoken(error)}"
            ) from error

    async def _send(self, exchange: Exchange) -> WhipResponse:
        request = exchange.request
        async with self._http.stream(
            request.method, request.url, headers=request.headers, content=request.body or None
        ) as response:
            try:
                body = await whole_body(response.aiter_raw(), MAX_BODY)
            except BodyTooLarge as error:
                raise WhipError(f"the server's answer to {request.method} is {error}") from None
        return WhipResponse(response.status_code, list(response.headers.multi_items()), body)
