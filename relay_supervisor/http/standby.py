"""What a supervisor serves that stands by for another: health, who commands, and a refusal of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.config import Config
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.guard import Guard
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import Links, ViewerSettings, viewer_settings
from relay_supervisor.http.metrics import relay_families
from relay_supervisor.http.probes import MOST_CONNECTIONS, create_probes, livez, readyz
from relay_supervisor.http.replies import error_reply, json_reply
from relay_supervisor.http.server import HttpServer
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.net import check_listen, split_listen
from relay_supervisor.status.health import Health, Reason
from relay_supervisor.status.model import RelayStatus, SeatStatus, Totals
from relay_supervisor.supervise import Loops

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class StandbyInterface:
    """Serves at the addresses where the supervisor will when it commands. Raises ConfigError."""

    def __init__(self, config: Config, clock: Clock, seat: Callable[[], SeatStatus]) -> None:
        self._clock, self._seat, self._began = clock, seat, clock.now()
        self._loops = Loops(clock)
        token, http = config.http.token or None, config.http
        host, port = check_listen(http.listen, token)
        viewers, proxies = viewer_settings(config, host), TrustedProxies(http.trusted_proxies)
        self._servers = [
            HttpServer(self._app(Gatekeeper(token, clock), viewers, proxies, http.base_path), host, port),
            UnixServer(self._app(Gatekeeper(None, clock), viewers, proxies), config.paths.socket(), self._loops),
        ]
        if http.probe_listen:
            at = split_listen(http.probe_listen, "probe_listen")
            probes = create_probes(self.health)
            self._servers.append(HttpServer(probes, *at, most=MOST_CONNECTIONS, key="probe_listen"))

    async def start(self) -> None:
        """Serve; raises ConfigError when an address or the socket cannot be bound."""
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        """Stop serving, within two seconds."""
        await asyncio.gather(*(server.stop() for server in self._servers))
        await self._loops.aclose()

    def status(self) -> RelayStatus:
        """The status of a relay that another supervisor runs."""
        now = self._clock
        return RelayStatus(
            version=VERSION,
            at=now.wall(),
            uptime=now.now() - self._began,
            totals=Totals(),
            budgets=[],
            cameras=[],
            seat=self._seat(),
        )

    def health(self) -> Health:
        """Ready is who could take over: it knows who commands."""
        problem = self._seat().problem
        reasons = [Reason(part="seat", reason=problem)] if problem else []
        return Health(ready=not problem, degraded=[], cameras=0, live=0, reasons=reasons)

    def _app(self, gatekeeper: Gatekeeper, viewers: ViewerSettings, proxies: TrustedProxies, base: str = "") -> Guard:
        async def ready(request: Request) -> Response:
            return readyz(self.health(), request, reasons=request.state.signed_in)

        async def metrics(request: Request) -> Response:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Families(self.status))
            return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def stats(request: Request) -> Response:
            return json_reply(self.status())

        async def elsewhere(request: Request) -> Response:
            seat = self._seat()
            who = f"{seat.holder} commands the cameras" if seat.holder else "nobody is known to command the cameras"
            return error_reply(503, "standing_by", f"This supervisor, {seat.replica}, stands by: {who}", "Ask that one")

        routes = [Route("/livez", livez), Route("/readyz", ready), Route("/metrics", metrics)]
        routes += [Route("/api/stats", stats), Route("/{path:path}", elsewhere, methods=_METHODS)]
        links = Links(viewers, self._clock, LinkBook(self._clock))
        return Guard(Starlette(routes=routes), gatekeeper, links, viewers, proxies, base)


class _Families(Collector):
    def __init__(self, status: Callable[[], RelayStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        return relay_families(self._status())
