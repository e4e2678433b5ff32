"""Where the relay is asked: over TCP by who has the token, at a Unix socket by who may open the file."""

from __future__ import annotations

import asyncio

from relay_common.clock import Clock
from relay_common.config import Config
from relay_supervisor.http.app import HttpSettings, RelayView, create_app
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.links import viewer_settings
from relay_supervisor.http.metrics import RelayCollector
from relay_supervisor.http.server import HttpServer
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.net import check_listen


class HttpInterface:
    """The same application at both places. Raises ConfigError when what is configured is not safe to serve."""

    def __init__(self, relay: RelayView, config: Config, clock: Clock) -> None:
        token = config.http.token or None
        host, port = check_listen(config.http.listen, token)
        viewers, close = viewer_settings(config, host), relay.events.close
        gatekeeper = Gatekeeper(token, clock)
        self.collector = RelayCollector(relay.status, relay.telemetry, relay.events, gatekeeper)
        """The metrics, for who exports them besides."""
        app = create_app(relay, HttpSettings(token=token, viewers=viewers), clock, gatekeeper)
        self._tcp = HttpServer(app, host, port, on_stop=close)
        # Whoever may open the socket needs no token.
        local = create_app(relay, HttpSettings(viewers=viewers), clock)
        self._local = UnixServer(local, config.paths.socket(), on_stop=close)

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return self._tcp.url

    async def start(self) -> None:
        """Serve; raises ConfigError when an address or the socket cannot be had."""
        await self._tcp.start()
        await self._local.start()

    async def stop(self) -> None:
        """Stop both, within two seconds."""
        await asyncio.gather(self._tcp.stop(), self._local.stop())

    def counters(self) -> dict[str, int]:
        """Counted since it began, by name."""
        return self._local.counters()
