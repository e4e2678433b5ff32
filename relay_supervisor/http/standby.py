"""What a supervisor serves that stands by: by itself its health, its metrics and who commands; all else by passing
requests on to that one.
"""

from __future__ import annotations

import asyncio
import functools
import html
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.counters import joined
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.guard import Guard
from relay_supervisor.http.hosting import Hosting, Served
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import Links, ViewerSettings, viewer_settings
from relay_supervisor.http.metrics import relay_families
from relay_supervisor.http.passing import NotPassedOn, PassOn
from relay_supervisor.http.probes import MOST_CONNECTIONS, create_probes, livez, readyz
from relay_supervisor.http.replies import ApiError, error_reply, json_reply, on_api_error, on_http_exception
from relay_supervisor.http.server import HttpServer
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.net import check_listen, split_listen
from relay_supervisor.status.health import Health, Reason
from relay_supervisor.status.model import RelayStatus, SeatStatus, Totals
from relay_supervisor.supervise import Loops

_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_AGAIN: Final = 5
"""Seconds after which a page asks again."""


class StandbyInterface:
    """Serves where the supervisor will when it commands, at its addresses or by `hosting`; `passing` reaches the one
    that does. Raises ConfigError.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        seat: Callable[[], SeatStatus],
        passing: PassOn,
        hosting: Hosting | None = None,
    ) -> None:
        self._clock, self._seat, self._passing, self._began = clock, seat, passing, clock.now()
        self._loops, self._hosting, self._families = Loops(clock), hosting, _Families(self.status, passing)
        token, http = config.http.token or None, config.http
        host, port = check_listen(http.listen, token)
        viewers, proxies = viewer_settings(config, host), TrustedProxies(http.trusted_proxies)
        guarded = self._app(Gatekeeper(token, clock), viewers, proxies, http.base_path)
        local = self._app(Gatekeeper(None, clock), viewers, TrustedProxies(), operator=True)
        self._served = Served(guarded, local, self._families, self.health, passing.end)
        self._servers: list[HttpServer] = []
        if hosting is not None:
            return
        self._servers += [
            HttpServer(guarded, host, port, on_stop=passing.end, proxies=proxies),
            UnixServer(local, config.paths.socket(), self._loops),
        ]
        if http.probe_listen:
            at = split_listen(http.probe_listen, "probe_listen")
            probes = create_probes(self.health)
            self._servers.append(HttpServer(probes, *at, most=MOST_CONNECTIONS, key="probe_listen"))

    async def start(self) -> None:
        """Serve; raises ConfigError when an address or the socket cannot be bound."""
        for server in self._servers:
            await server.start()
        if self._hosting is not None:
            self._hosting.begin(self._served)

    async def stop(self) -> None:
        """Stop serving, within two seconds."""
        if self._hosting is not None:
            await self._hosting.end()
        await asyncio.gather(*(server.stop() for server in self._servers))
        await self._passing.aclose()
        await self._loops.aclose()

    def status(self) -> RelayStatus:
        """The status of a relay that another supervisor runs, as far as this one knows it."""
        now = self._clock
        return RelayStatus(
            version=VERSION,
            at=now.wall(),
            uptime=now.now() - self._began,
            totals=Totals(),
            budgets=[],
            cameras=[],
            seat=self._seat(),
            counters=joined(passed_on=self._passing.counters()),
        )

    def health(self) -> Health:
        """Ready is who could take over: it knows who commands."""
        problem = self._seat().problem
        reasons = [Reason(part="seat", reason=problem)] if problem else []
        return Health(ready=not problem, degraded=[], cameras=0, live=0, reasons=reasons)

    def _app(
        self,
        gatekeeper: Gatekeeper,
        viewers: ViewerSettings,
        proxies: TrustedProxies,
        base: str = "",
        *,
        operator: bool = False,
    ) -> Guard:
        """The application for clients that `gatekeeper` admits: operators all of them where `operator` says so."""

        async def ready(request: Request) -> Response:
            return readyz(self.health(), request, reasons=request.state.signed_in)

        async def elsewhere(request: Request) -> ASGIApp:
            return functools.partial(self._passing.pass_on, operator=operator)

        own = [Route("/livez", livez), Route("/readyz", ready), Route("/metrics", self._metrics)]
        own += [Route("/api/seat", self._who), Route("/api/stop", self._not_here, methods=["POST"])]
        starlette = Starlette(
            routes=[*own, Route("/{path:path}", elsewhere, methods=_METHODS)],
            exception_handlers={
                NotPassedOn: self._unanswered,
                ApiError: on_api_error,
                HTTPException: on_http_exception,
            },
        )
        return Guard(starlette, gatekeeper, Links(viewers, self._clock, LinkBook(self._clock)), viewers, proxies, base)

    async def _metrics(self, request: Request) -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._families)
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _who(self, request: Request) -> Response:
        return json_reply(self._seat())

    async def _not_here(self, request: Request) -> Response:
        seat = self._seat()
        words = f"This supervisor, {seat.replica}, stands by: {seat.holder or 'nobody'} commands the cameras"
        return error_reply(503, "standing_by", words, "Ask that one; this one ends with SIGTERM")

    async def _unanswered(self, request: Request, error: Exception) -> Response:
        """What this one can say by itself where nobody could be asked: to guests without names."""
        assert isinstance(error, NotPassedOn)
        path, signed_in = request.scope["path"], request.state.signed_in
        if path == "/api/stats":
            return json_reply(self.status())
        message = error.message if signed_in else "The supervisor that commands the cameras does not answer"
        hint = error.hint if signed_in else "Try again in some seconds"
        if path == "/" or path.startswith("/watch/"):
            page = f"<!doctype html><title>Nest relay</title><p>{html.escape(message)}.<p>{html.escape(hint)}."
            return Response(page, 503, {"Refresh": str(_AGAIN)}, "text/html; charset=utf-8")
        reply = error_reply(error.status, error.code, message, hint)
        reply.headers["Retry-After"] = str(_AGAIN)
        return reply


class _Families(Collector):
    def __init__(self, status: Callable[[], RelayStatus], passing: PassOn) -> None:
        self._status, self._passing = status, passing

    def collect(self) -> Iterator[Metric]:
        yield from relay_families(self._status())
        passed = CounterMetricFamily(
            "relay_passed_on", "Requests passed on to the supervisor that commands.", labels=["outcome"]
        )
        for outcome, value in self._passing.counters().items():
            passed.add_metric([outcome], value)
        yield passed
        yield GaugeMetricFamily(
            "relay_passing_on", "Requests that are being passed on.", value=float(self._passing.under_way)
        )
