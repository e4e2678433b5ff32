"""Requests that a supervisor which stands by passes on to the one that commands, and the answers as they come.

Over TLS with the relay's key (`cluster/peer_tls.py`), as they were sent, token and links included: whoever commands
checks those once more, for the client's own address, which goes along. A request goes one step and no further: only
the one in command takes any, and what was passed on already is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from relay_common.clock import Clock
from relay_common.spoken import spoken
from relay_supervisor.http.addresses import peer_of
from relay_supervisor.http.event_stream import client_gone
from relay_supervisor.http.replies import MAX_BODY, ApiError, read_body
from relay_supervisor.net import given_up_after

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST: Final = 128
"""Requests that are passed on at once: event streams are such for as long as they are open."""
_KEPT_FREE: Final = 4
"""The part of them, as one in so many, that is kept for whoever has shown the token: guests may be many, and slow."""
CONNECTED_WITHIN: Final = 2.0
ANSWERED_WITHIN: Final = 120.0
"""Seconds for an answer to begin or go on. A capture takes 90, and event streams say something every 15."""
_TAKEN_WITHIN: Final = 10
_GIVEN_UP: Final = given_up_after(_TAKEN_WITHIN)
_IDLE: Final = 5.0
"""Seconds that a connection is kept without a request: less than the other end keeps it."""
_KEPT: Final = 8
_LONGEST_FORM: Final = 8 * 1024

THROUGH: Final = b"relay-passed-on-by"
"""Who passes the request on. With it a request is passed on no further."""
CLIENT: Final = b"relay-client"
"""The address that the client had there."""
OPERATOR: Final = b"relay-operator"
"""It came over the Unix socket there, which only the operator can open."""
OF_THE_WAY: Final = frozenset({THROUGH, CLIENT, OPERATOR})
_OF_A_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"expect", b"content-length", b"date"}
)
"""Headers that are each connection's own (RFC 9110, 7.6.1), and those that its ends write themselves."""


class Commander(NamedTuple):
    """Who commands, as far as it is known: its name ("": nobody), where it takes requests ("": nowhere), when its Lease
    was last seen to change (monotonic seconds; inf: never), and whether it knows that this one stands by.
    """

    name: str
    address: str
    heard_at: float
    knows: bool = True


class NotPassedOn(ApiError):
    """Nobody could be asked: nothing has happened yet."""


class PassOn:
    """Passes requests of `replica` on, at most `most` at once.

    `commander` tells who commands, and `context` how its connections are secured: None as long as that is not known,
    the same object as long as it does not change.
    """

    def __init__(
        self,
        replica: str,
        commander: Callable[[], Commander],
        context: Callable[[], ssl.SSLContext | None],
        clock: Clock,
        most: int = MOST,
    ) -> None:
        self._replica, self._commander, self._context, self._clock = replica, commander, context, clock
        self._most, self._began = most, clock.now()
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._secured_by: ssl.SSLContext | None = None
        self._ending = asyncio.Event()
        self.under_way = self.passed = self.refused = self.failed = self.broken = 0
        """Requests now; those since the start that got an answer, came in too large a number, got none, and got a part
        of one."""

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"answered": self.passed, "refused": self.refused, "failed": self.failed, "broken": self.broken}

    def end(self) -> None:
        """End the answers that are under way."""
        self._ending.set()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()

    async def pass_on(self, scope: Scope, receive: Receive, send: Send, *, operator: bool) -> None:
        """Have a request answered by the one that commands; raises ApiError before anything was answered."""
        request = Request(scope, receive)
        if THROUGH.decode() in request.headers:
            raise ApiError(508, "passed_on_twice", f"{self._replica} stands by, and takes nothing that was passed on")
        # First, as clients may take their time for it. What is for everybody has at most a form.
        most = MAX_BODY if scope["path"].startswith(("/api/", "/whep/")) else _LONGEST_FORM
        body = await read_body(request, most)
        guest = not scope["state"]["visitor"].operator
        if self.under_way >= self._most - (self._most // _KEPT_FREE if guest else 0):
            self.refused += 1
            raise ApiError(503, "too_many_passed_on", f"{self.under_way} requests are being passed on already", "Wait")
        self.under_way += 1
        ends = [asyncio.ensure_future(client_gone(receive)), asyncio.ensure_future(self._ending.wait())]
        begun = asyncio.Event()
        try:
            answer = await _unless(ends, self._asked(request, body, operator, begun), begun)
            if answer is not None:
                await self._forward(answer, send, ends)
            elif self._ending.is_set():
                raise ApiError(503, "stopping", f"{self._replica} stops standing by", "Ask again: it may command now")
        finally:
            self.under_way -= 1
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _asked(self, request: Request, body: bytes, operator: bool, begun: asyncio.Event) -> httpx.Response:
        """The answer, once it begins; `begun` is set when the request is being sent."""
        commander, transport = self._commander(), await self._secured()
        if not commander.name:
            raise self._nobody(commander)
        if not commander.address or transport is None:
            raise self._standing_by(commander, "has not said where it takes requests")
        try:
            host, _, port = commander.address.rpartition(":")
            url = httpx.URL(scheme="https", host=host.strip("[]"), port=int(port))
        except (ValueError, httpx.InvalidURL):  # it stands in an object that others may change
            where = f"is said to take requests at {commander.address[:80]!r}, which is no address with a port"
            raise self._standing_by(commander, where) from None
        asked = self._request(request, body, url, operator)

        async def trace(name: str, info: object) -> None:
            if name == "http11.send_request_headers.started":
                begun.set()

        asked.extensions["trace"] = trace
        try:
            answer = await transport.handle_async_request(asked)
        except (httpx.HTTPError, OSError) as error:
            self.failed += 1
            raise self._silent(commander, error) from error
        self.passed += 1
        return answer

    async def _secured(self) -> httpx.AsyncHTTPTransport | None:
        context, last = self._context(), self._transport
        if context is not None and context is not self._secured_by:
            limits = httpx.Limits(max_connections=self._most, max_keepalive_connections=_KEPT, keepalive_expiry=_IDLE)
            # Without a client: that would follow redirects, keep cookies and log addresses, which may hold a link.
            self._transport = httpx.AsyncHTTPTransport(verify=context, limits=limits, socket_options=_GIVEN_UP)
            self._secured_by = context
            if last is not None:  # the relay's key has been replaced, and nobody takes anything by the last one
                await last.aclose()
        return self._transport

    def _request(self, request: Request, body: bytes, url: httpx.URL, operator: bool) -> httpx.Request:
        scope = request.scope
        headers = [(name, value) for name, value in scope["headers"] if name not in _OF_A_CONNECTION | OF_THE_WAY]
        headers += [(THROUGH, self._replica.encode()), (CLIENT, peer_of(scope).encode())]
        headers += [(OPERATOR, b"1")] * operator
        # As it was sent: httpx would change its dots and quote it, which takes a tenth of a second for a long one.
        target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        timeouts = httpx.Timeout(ANSWERED_WITHIN, connect=CONNECTED_WITHIN, write=_TAKEN_WITHIN).as_dict()
        extensions = {"timeout": timeouts, "target": target}
        return httpx.Request(request.method, url, headers=headers, content=body, extensions=extensions)

    async def _forward(self, answer: httpx.Response, send: Send, ends: Sequence[asyncio.Future[Any]]) -> None:
        """Pass an answer back as it comes, unless one of `ends` comes first."""
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        kept = _OF_A_CONNECTION - {b"content-length"}
        headers = [(name, value) for name, value in headers if name not in kept]
        try:
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            whole = await _unless(ends, self._copy(answer, send))
        finally:
            await answer.aclose()
        # An event stream may end anywhere; of anything else the client has to see that it is torn.
        if whole or answer.headers.get("content-type", "").startswith("text/event-stream"):
            await send({"type": "http.response.body", "body": b""})
        elif whole is False:
            log.warning("an answer of whoever commands broke off in the middle: its client sees that it is torn")

    async def _copy(self, answer: httpx.Response, send: Send) -> bool:
        """Send what arrives; whether that was all."""
        try:
            async for part in answer.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except (httpx.HTTPError, OSError):
            self.broken += 1
            return False
        return True

    def _standing_by(self, commander: Commander, why: str) -> NotPassedOn:
        return NotPassedOn(
            503,
            "standing_by",
            f"This supervisor, {self._replica}, stands by: {commander.name} commands the cameras, and {why}",
            "Ask that one, or set cluster.peer_listen for all of them",
        )

    def _nobody(self, commander: Commander) -> NotPassedOn:
        return NotPassedOn(
            503,
            "nobody_commands",
            f"This supervisor, {self._replica}, stands by, and nobody has been known to command the cameras for "
            f"{self._silence(commander):.0f} s: pictures go on as long as their streams last",
            "Wait: another takes over within 20 s if the API server answers (/readyz says whether it does)",
        )

    def _silent(self, commander: Commander, error: Exception) -> NotPassedOn:
        return NotPassedOn(
            503,
            "commander_silent",
            f"This supervisor, {self._replica}, stands by, and {commander.name}, which commands the cameras, does not "
            f"answer it ({spoken(error)}); it was last heard of by its Lease "
            f"{self._silence(commander):.0f} s ago",
            f"Try again: if it is gone, this one takes over {_when(commander)}; if it is not, let supervisors reach "
            "each other at cluster.peer_listen's port and the next one",
        )

    def _silence(self, commander: Commander) -> float:
        since = self._began if math.isinf(commander.heard_at) else commander.heard_at
        return self._clock.now() - since


def _when(commander: Commander) -> str:
    """When this one takes over from it, in words."""
    if commander.knows:
        return "within 20 s of that"
    return (
        f"ten minutes after that, as {commander.name} may not know of it, or as soon as Kubernetes has no such Pod "
        f"(kubectl delete pod {commander.name} --force, where its node is off for sure)"
    )


async def _unless(
    ends: Sequence[asyncio.Future[Any]], work: Coroutine[Any, Any, T], begun: asyncio.Event | None = None
) -> T | None:
    """The result of `work`; None, and it is cancelled, when one of `ends` comes first.

    It is not cancelled before it has `begun`: httpcore 1.0 keeps a connection for good, as one of those that there may
    be, whose request is cancelled between the handshake and its first byte. Handshakes do not take long.
    """
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, *ends), return_when=asyncio.FIRST_COMPLETED)
        if begun is not None and not working.done():
            beginning = asyncio.ensure_future(begun.wait())
            await asyncio.wait((working, beginning), return_when=asyncio.FIRST_COMPLETED)
            beginning.cancel()
        return working.result() if working.done() else None
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
