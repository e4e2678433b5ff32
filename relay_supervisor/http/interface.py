"""The relay's HTTP servers: TCP for clients with the token, a Unix socket for whoever may open it, and probes."""

from __future__ import annotations

import asyncio

from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.counters import joined
from relay_supervisor.http.addresses import TrustedProxies
from relay_supervisor.http.app import HttpSettings, RelayView, create_app
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.hosting import Served
from relay_supervisor.http.link_book import LinkBook
from relay_supervisor.http.links import LinkError, Links, key_name, viewer_settings
from relay_supervisor.http.metrics import RelayCollector
from relay_supervisor.http.passed_on import ALONE, AmongReplicas, PassedOn, PeerServer
from relay_supervisor.http.probes import MOST_CONNECTIONS, create_probes
from relay_supervisor.http.server import HttpServer
from relay_supervisor.http.unix import UnixServer
from relay_supervisor.net import check_listen, split_listen
from relay_supervisor.state.links import LinkRows
from relay_supervisor.state.store import LinkCredential, Store
from relay_supervisor.supervise import Loops


class HttpInterface:
    """The same application on TCP and on the Unix socket, and the probes at `http.probe_listen`; or where `place` says,
    beside other accounts. For the clients of other supervisors it is there as well.

    Raises ConfigError when the configuration is not safe to serve.
    """

    def __init__(
        self,
        relay: RelayView,
        config: Config,
        clock: Clock,
        loops: Loops,
        store: Store,
        place: AmongReplicas = ALONE,
    ) -> None:
        token, http = config.http.token or None, config.http
        host, port = check_listen(http.listen, token)
        viewers, close = viewer_settings(config, host), relay.events.close
        self.given, self._link_key = LinkBook(clock, LinkRows(store)), key_name(viewers.link_secret)
        """Links that were given out."""
        gatekeeper, self._links = Gatekeeper(token, clock), Links(viewers, clock, self.given)
        self.collector = RelayCollector(relay.status, relay.telemetry, relay.events, gatekeeper)
        """The metrics, for other exporters."""
        settings = HttpSettings(
            token=token, viewers=viewers, trusted_proxies=tuple(http.trusted_proxies), base_path=http.base_path
        )
        self._guard = create_app(relay, settings, clock, gatekeeper, self.given)
        # Whoever may open the socket needs no token.
        local = create_app(relay, HttpSettings(viewers=viewers), clock, None, self.given)
        passed, at = PassedOn(self._guard, local), place.peers
        self._peers = PeerServer(passed, at, clock, on_stop=close) if at is not None else None
        self._loops, self._hosting = loops, place.hosting
        self._served = Served(self._guard, local, self.collector, relay.health, close)
        self._tcp: HttpServer | None = None
        self._local: UnixServer | None = None
        self._probes: HttpServer | None = None
        if place.hosting is None:
            self._tcp = HttpServer(self._guard, host, port, on_stop=close, proxies=TrustedProxies(http.trusted_proxies))
            self._local = UnixServer(local, config.paths.socket(), loops, on_stop=close)
            if http.probe_listen:
                at_probes = split_listen(http.probe_listen, "probe_listen")
                self._probes = HttpServer(
                    create_probes(relay.health), *at_probes, most=MOST_CONNECTIONS, key="probe_listen"
                )

    def load(self) -> None:
        """Read which links were given out; the store is open."""
        self.given.load(self._link_key)

    def link_valid(self, link: LinkCredential) -> bool:
        """Whether a link may still be used; to ask is no use of it."""
        try:
            self._links.judge(link.camera, link.expires, link.signature)
        except LinkError:
            return False
        return True

    @property
    def url(self) -> str:
        """URL of the dashboard; "" where it is one of several."""
        return self._tcp.url if self._tcp is not None else ""

    async def start(self) -> None:
        """Serve; raises ConfigError when an address or the socket cannot be bound."""
        for server in (self._tcp, self._local, self._probes):
            if server is not None:
                await server.start()
        if self._hosting is not None:
            self._hosting.begin(self._served)
        if self._peers is not None:
            self._peers.begin(self._loops)

    async def stop(self) -> None:
        """Stop all of them, within two seconds."""
        if self._hosting is not None:
            await self._hosting.end()
        servers = (self._tcp, self._local, self._probes, self._peers)
        await asyncio.gather(*(server.stop() for server in servers if server is not None))

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        guard, counts = self._guard.counters(), self._local.counters() if self._local is not None else {}
        counts |= joined(tcp=(self._tcp.counters() if self._tcp is not None else {}) | guard)
        probes = joined(probes=self._probes.counters()) if self._probes is not None else {}
        peers = joined(peers=self._peers.counters()) if self._peers is not None else {}
        return counts | probes | peers | joined(links=self.given.counters())
