"""What a supervisor serves that stands by for several accounts: all of them joined, and each by itself.

Below `/accounts/NAME` are the account's own page and API, complete, whichever supervisor commands it. Elsewhere status,
cameras and health are of all accounts, and what is about one camera is answered by its account. Metrics and health are
as this process knows them, with nobody asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

import httpx
import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.config_accounts import path_of
from relay_common.counters import joined
from relay_common.errors import RelayError, UnknownCamera
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.app import CameraSummaries, camera_summary
from relay_supervisor.http.auth import HEADERS, Gatekeeper
from relay_supervisor.http.base_path import BasePath
from relay_supervisor.http.guard import Guard
from relay_supervisor.http.hosting import Hosting
from relay_supervisor.http.joined import JoinedCollector, joined_health, joined_status
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import Links, ViewerSettings, viewer_settings
from relay_supervisor.http.probes import MOST_CONNECTIONS, create_probes, livez, readyz
from relay_supervisor.http.replies import (
    ASSETS,
    ApiError,
    error_reply,
    json_reply,
    on_api_error,
    on_http_exception,
    on_relay_error,
)
from relay_supervisor.http.server import HttpServer
from relay_supervisor.http.signing_in import sign_in, sign_in_by_form
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.net import check_listen, split_listen
from relay_supervisor.status.health import Health
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.supervise import Loops

KEPT: Final = 0.9
"""Seconds for which a joined status serves all that ask."""
_WITHIN: Final = 5.0
"""Seconds for an account's answer."""
_TYPED: Final = "typed, `relay-supervisor --account NAME …`"
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_FORWARDED_PREFIX: Final = b"x-forwarded-prefix"
_ROUTED: Final = ("path_params", "endpoint", "router", "app", "root_path")
"""What an application leaves in the scope of a request, which is another one's then."""


class AccountsInterface:
    """Serves the accounts of `hostings` at the addresses of `config`; `counters` are those of what spreads them. Raises
    ConfigError.
    """

    def __init__(
        self, config: Config, hostings: Mapping[str, Hosting], clock: Clock, counters: Callable[[], dict[str, int]]
    ) -> None:
        self._clock, self._hostings, self._replica = clock, hostings, config.cluster.replica
        self._counters = counters
        self._loops, self._asking = Loops(clock), asyncio.Lock()
        self._status: RelayStatus | None = None
        self._asked_at = -math.inf
        token, http = config.http.token or None, config.http
        host, port = check_listen(http.listen, token)
        viewers, proxies = viewer_settings(config, host), TrustedProxies(http.trusted_proxies)
        guarded = _Front(self, clock, Gatekeeper(token, clock), viewers, proxies, http.base_path)
        local = _Front(self, clock, Gatekeeper(None, clock), viewers, TrustedProxies(), operator=True)
        self._tcp = HttpServer(guarded, host, port, proxies=proxies)
        self._servers = [self._tcp, UnixServer(local, config.paths.socket(), self._loops)]
        if http.probe_listen:
            at = split_listen(http.probe_listen, "probe_listen")
            self._servers.append(HttpServer(create_probes(self.health), *at, most=MOST_CONNECTIONS, key="probe_listen"))

    @property
    def url(self) -> str:
        """URL of the page."""
        return self._tcp.url

    async def start(self) -> None:
        """Serve; raises ConfigError when an address or the socket cannot be bound."""
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        """Stop serving, within two seconds; accounts have ended their streams before."""
        await asyncio.gather(*(server.stop() for server in self._servers))
        await self._loops.aclose()

    def hosting(self, account: str) -> Hosting:
        """Where the account is served; raises ApiError when there is none of that name."""
        if (found := self._hostings.get(account)) is None:
            raise ApiError(404, "unknown_account", "There is no such account")
        return found

    async def status(self) -> RelayStatus:
        """The status of all accounts, of the last `KEPT` seconds."""
        async with self._asking:  # whoever comes meanwhile takes what this one finds
            if self._status is None or self._clock.now() >= self._asked_at + KEPT:
                found = await asyncio.gather(*map(self._ask, self._hostings.values()))
                parts = dict(zip(self._hostings, found, strict=True))
                self._asked_at = self._clock.now()
                self._status = joined_status(parts, self._replica, VERSION, self._clock.wall())
                self._status.counters |= joined(tcp=self._tcp.counters(), accounts=self._counters())
            return self._status

    def health(self) -> Health:
        """The verdict on all accounts, of each as it is known here."""
        away = "it changes hands"
        return joined_health(
            {
                name: one.served.health() if one.served is not None else one.problem or away
                for name, one in self._hostings.items()
            }
        )

    def collectors(self) -> dict[str, Collector]:
        """The metrics of this process, by account."""
        return {name: one.served.collector for name, one in self._hostings.items() if one.served is not None}

    async def account_of(self, camera: str) -> str:
        """The account that has a camera; raises UnknownCamera."""
        cameras = (await self.status()).cameras
        found = next((one.account for one in cameras if one.id == camera), None)
        if found is None:
            raise UnknownCamera(camera, (one.id for one in cameras))
        return found

    async def _ask(self, hosting: Hosting) -> RelayStatus | str:
        """An account's status, whoever commands it; or why it is not known."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await hosting.answer(scope, receive, send, operator=True)

        asked = httpx.Request("GET", "http://localhost/api/stats")
        try:
            async with asyncio.timeout(_WITHIN):
                # Without a client, which would log it.
                answered = await httpx.ASGITransport(app=answer).handle_async_request(asked)
                return msgspec.json.decode(await answered.aread(), type=RelayStatus)
        except ApiError as error:
            return error.message
        except TimeoutError:
            return f"whoever commands it has not answered for {_WITHIN:.0f} s"
        except UNDECODABLE:
            return "whoever commands it gives no status"


class _Front:
    """The application for clients that `gatekeeper` admits: operators all of them where `operator` says so."""

    def __init__(
        self,
        accounts: AccountsInterface,
        clock: Clock,
        gatekeeper: Gatekeeper,
        viewers: ViewerSettings,
        proxies: TrustedProxies,
        base: str = "",
        *,
        operator: bool = False,
    ) -> None:
        self._accounts, self._gatekeeper, self._operator = accounts, gatekeeper, operator
        self._base, self._base_path = base.rstrip("/"), BasePath(base, proxies)
        registry = self._registry = CollectorRegistry(auto_describe=False)
        registry.register(JoinedCollector(accounts.collectors))
        starlette = Starlette(
            routes=self._routes(),
            exception_handlers={
                ApiError: on_api_error,
                RelayError: on_relay_error,
                HTTPException: on_http_exception,
            },
        )
        links = Links(viewers, clock, LinkBook(clock))
        self._guard = Guard(starlette, gatekeeper, links, viewers, proxies, base)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is an account's own, it judges by itself."""
        if scope["type"] != "http":
            return
        entered = {**scope, "state": {}}
        self._base_path.enter(entered)
        account, slash, path = entered["path"].removeprefix("/accounts/").partition("/")
        if not entered["path"].startswith("/accounts/"):
            await self._guard(scope, receive, send)
            return
        try:
            if slash:
                await self._answered_by(account, entered, f"/{path}", receive, send)
                return
            at = f"{entered['state']['prefix']}{path_of(self._accounts.hosting(account).name)}/"
            refusal: Response = RedirectResponse(at, 308)
        except ApiError as error:
            refusal = _to_anybody(error)
        refusal.headers.update(HEADERS)
        await refusal(scope, receive, send)

    def _routes(self) -> list[Route]:
        return [
            Route("/", self._page),
            Route("/login", self._login, methods=["POST"]),
            Route("/static/{name}", self._static),
            Route("/livez", livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            Route("/api/stats", self._stats),
            Route("/api/seat", self._seat),
            Route("/api/cameras", self._cameras),
            Route("/watch/{id}", self._watch),
            Route("/api/cameras/{id}/{rest:path}", self._of_camera, methods=_METHODS),
            Route("/api/{rest:path}", self._of_an_account, methods=_METHODS),
        ]

    async def _answered_by(self, account: str, entered: Scope, path: str, receive: Receive, send: Send) -> None:
        """Have an account answer a request whose scope is without the base path; `path` is the account's."""
        hosting = self._accounts.hosting(account)
        mounted, prefix = f"{self._base}{path_of(account)}", entered["state"]["prefix"]
        whole = path if self._operator else f"{mounted}{path}"
        headers = [
            (name, f"{prefix}{path_of(account)}".encode() if name == _FORWARDED_PREFIX else value)
            for name, value in entered["headers"]
        ]
        kept = {key: value for key, value in entered.items() if key not in _ROUTED}
        scope = {**kept, "state": {}, "path": whole, "raw_path": quote(whole).encode(), "headers": headers}
        await hosting.answer(scope, receive, send, operator=self._operator)

    # --- all accounts ---------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None and not self._gatekeeper.open:
            return sign_in(self._gatekeeper, request, token)
        return ASSETS.reply("accounts.html", request)

    async def _login(self, request: Request) -> Response:
        return await sign_in_by_form(self._gatekeeper, request)

    async def _static(self, request: Request) -> Response:
        return ASSETS.reply(request.path_params["name"], request)

    async def _readyz(self, request: Request) -> Response:
        return readyz(self._accounts.health(), request, reasons=request.state.signed_in)

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _stats(self, request: Request) -> Response:
        return json_reply(await self._accounts.status())

    async def _seat(self, request: Request) -> Response:
        return json_reply((await self._accounts.status()).seat)

    async def _cameras(self, request: Request) -> Response:
        return json_reply(CameraSummaries([camera_summary(one) for one in (await self._accounts.status()).cameras]))

    # --- one of them ----------------------------------------------------------------------------------------------

    async def _watch(self, request: Request) -> Response:
        """A camera's page, where it was before accounts had names, is its account's: links stay valid."""
        account = await self._accounts.account_of(request.path_params["id"])
        query = f"?{request.url.query}" if request.url.query else ""
        at = f"{request.state.prefix}{path_of(account)}/watch/{request.path_params['id']}"
        return RedirectResponse(f"{at}{query}", 307)

    async def _of_camera(self, request: Request) -> ASGIApp:
        account = await self._accounts.account_of(request.path_params["id"])
        return self._at(account)

    async def _of_an_account(self, request: Request) -> Response:
        names = [one.name for one in (await self._accounts.status()).accounts]
        words = f"This is asked of one account: {path_of('NAME')}{request.scope['path']}"
        return error_reply(404, "name_an_account", words, f"NAME is one of {', '.join(names)}: {_TYPED}")

    def _at(self, account: str) -> ASGIApp:
        async def there(scope: Scope, receive: Receive, send: Send) -> None:
            await self._answered_by(account, scope, scope["path"], receive, send)

        return there


def _to_anybody(error: ApiError) -> Response:
    """What nobody has been asked about who it is: neither names nor reasons."""
    words = "There is no such account" if error.status == 404 else "The account cannot be asked here now"
    reply = error_reply(error.status, error.code, words, "Try again" if error.status == 503 else "")
    reply.headers["Cache-Control"] = "no-store"
    return reply
