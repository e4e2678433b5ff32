"""The supervisor: every part, put together, started and stopped in order.

Parts are created in order of dependency, lowest first, and get nothing afterwards. A part that needs events from one
below it registers there itself (`listen`). Creating them opens nothing; `start` opens files, locks and sockets, each
followed by how it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay_common import protocol
from relay_common.clock import Clock, SystemClock
from relay_common.cloudflare import SfuClient, TurnKey
from relay_common.config import Config
from relay_common.config_accounts import projects_of
from relay_common.config_cluster import bound_endpoints
from relay_common.secrets import Secret
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.overrides import Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.cameras.restored import restored
from relay_supervisor.cameras.watching import Watching
from relay_supervisor.cameras.worker_spec import bus_ends, worker_spec
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.fleet.launcher import Launcher
from relay_supervisor.fleet.pods.requirements import require_client
from relay_supervisor.fleet.processes.fork_server import configured_launcher
from relay_supervisor.google.leases.account import Account
from relay_supervisor.google.models import Listing
from relay_supervisor.http.interface import HttpInterface
from relay_supervisor.http.passed_on import ALONE, AmongReplicas
from relay_supervisor.local.service import LocalViewing
from relay_supervisor.local.sessions import credential_of
from relay_supervisor.memory import keep_small
from relay_supervisor.operations.verbs import Verbs
from relay_supervisor.otel import OtelExport
from relay_supervisor.renditions.service import Renditions
from relay_supervisor.report import Parts, Report
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.cloudflare import CloudflareSink, cloudflare_target
from relay_supervisor.sinks.ice_servers import IceServers
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.directories import private, runtime
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import STATE_FILE, Store
from relay_supervisor.supervise import Loops, once
from relay_supervisor.viewing.verdicts import Verdicts
from relay_supervisor.viewing.viewers import Viewers
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

VERIFY: Final = 60.0
"""Seconds within which every publication is checked once at the SFU."""


class Supervisor:
    """Relays the configured cameras from `start` to `stop`; implements the HTTP interface's `RelayView`.

    `launcher` makes what starts the workers, given the runtime directory; None for what the configuration says. `store`
    keeps the state; None for a file. `place` is that among several supervisors. `reread` reads the
    configuration again for a reload; None without a file. Raises ConfigError when the configuration cannot work.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        launcher: Callable[[Path], Launcher] | None = None,
        store: Store | None = None,
        place: AmongReplicas = ALONE,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        self._clock: Clock = clock or SystemClock()
        self._rng = random.Random()
        self._started = contextlib.AsyncExitStack()
        self._keep_workers = False
        self._loops, self._activities = Loops(self._clock), Loops(self._clock)
        """Loops that run until everything has been stopped, and those that end first."""
        self.accounts: list[Account] = []
        self._discoveries: list[Discovery] = []

        state, runtime_dir = config.paths.state(), config.paths.runtime()
        self._launcher = (launcher or self._make_launcher)(runtime_dir)
        self._otel = OtelExport(config.otel, self._clock, config.nest[0].account)
        self._locks = StateLock(state), StateLock(runtime_dir, key="runtime_dir", temporary=True)
        self._store = store or Store(state / STATE_FILE, self._clock)
        self.overrides = Overrides(state, place.overrides)
        self._registry = Registry(config.cameras, self.overrides)
        self.events = EventHub(self._clock, boot=secrets.token_hex(4), name_of=self._registry.name_of)
        self._client = self._make_client()
        self._broker = Broker(CloudflareSink(self._client), self._clock)
        self._sinks = Sinks(self._broker, cloudflare_target(config.cloudflare), self._clock)
        self._sinks.configure(config.whip)
        network = bound_endpoints(config.cluster)
        self._bus = Bus(runtime_dir, Keyring(state / KEY_FILE, place.key), self._loops, self._clock, network)
        self._ends = bus_ends(self._bus.ends(remote=self._launcher.remote), config.cluster)
        limit = config.workers.memory_limit_mb << 20
        self.fleet = Fleet(self._launcher, self._bus, self._clock, memory_limit=limit, commands=place.commands)
        self.director = Director(
            self._registry, self.accounts, self._sinks, self.fleet, self._store, self.events, self._spec, self._clock
        )
        self._watching = Watching(self._registry, self.director, self._clock)
        self._ice = self._make_ice_servers()
        self.viewers = self._make_viewers()
        self.local = self._make_local()
        self._renditions = Renditions(
            config.workers,
            self.director,
            self._clock,
            watching=lambda: self.viewers.having_small() + self.local.having_small() + self._sinks.having_small(),
            tell=functools.partial(self.events.publish, "state"),
        )
        self._verdicts = Verdicts(
            self.viewers.decoding,
            self._clock,
            live=self.director.live_reports,
            send=self.fleet.send,
            tell=functools.partial(self.events.publish, "state"),
        )
        self.verbs = self._make_verbs(reread)
        self._make_interface(place)

    def _make_launcher(self, runtime_dir: Path) -> Launcher:
        if not self.config.cluster.namespace:
            return configured_launcher(runtime_dir, self.config.workers)
        require_client(self.config.cluster)
        from relay_supervisor.fleet.pods.pod_launcher import PodLauncher  # with libraries that nothing else needs

        return PodLauncher(self.config.cluster, self._clock)

    def _make_client(self) -> SfuClient:
        at = self.config.cloudflare
        app_id, secret = (at.app_id, at.app_secret) if at.used else ("unused", Secret("unused"))
        client = SfuClient(app_id, secret, clock=self._clock, rng=self._rng, base_url=at.api_base_url)
        client.meter.on_call = self._otel.sfu_call
        return client

    def _make_ice_servers(self) -> IceServers:
        at = self.config.cloudflare
        key = TurnKey(at.turn.key_id, at.turn.api_token, base_url=at.api_base_url) if at.turn.key_id else None
        ice = IceServers(at.ice_servers, key, self._clock)
        ice.listen(self.fleet.tell)
        if ice.for_workers is not None:
            self.fleet.tell(ice.for_workers)
        return ice

    def _make_viewers(self) -> Viewers:
        return Viewers(
            self._client,
            self._broker,
            self._clock,
            rng=self._rng,
            ice=self._ice,
            on_asked=self._watching.asked_for,
            on_qualities=lambda: self._renditions.look(self._clock.now()),
            link_revoked=lambda link: self._http.given.revoked(link),
            enabled=self.config.cloudflare.used,
        )

    def _make_local(self) -> LocalViewing:
        return LocalViewing(
            self.config.local,
            registry=self._registry,
            director=self.director,
            store=self._store,
            clock=self._clock,
            on_asked=self._watching.asked_for,
            tell=self.events.publish,
            link_valid=lambda link: self._http.link_valid(link),
            credential=credential_of(self.config.http.token),
            decoding=self.viewers.decoding,
        )

    def _make_verbs(self, reread: Callable[[], Config] | None) -> Verbs:
        return Verbs(
            self.config,
            registry=self._registry,
            director=self.director,
            accounts=self.accounts,
            discoveries=self._discoveries,
            clock=self._clock,
            reread=reread,
            on_config=self._reconfigured,
        )

    def _make_interface(self, place: AmongReplicas) -> None:
        parts = Parts(
            clock=self._clock,
            store=self._store,
            registry=self._registry,
            client=self._client,
            sinks=self._sinks,
            bus=self._bus,
            fleet=self.fleet,
            director=self.director,
            viewers=self.viewers,
            local=self.local,
            renditions=self._renditions,
            verdicts=self._verdicts,
            verbs=self.verbs,
            accounts=self.accounts,
            discoveries=self._discoveries,
            loops=self._loops,
            activities=self._activities,
            seat=place.seat,
            tell=self.events.publish,
        )
        self._report = report = Report(parts)
        self.status, self.health, self.telemetry = report.status, report.health, report.telemetry
        self._http = HttpInterface(self, self.config, self._clock, self._loops, self._store, place)
        report.listen(self._http.counters)

    # --- start and stop --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every part; returns when the HTTP interface is serving.

        Cameras known to an earlier run start at once; others follow as they are discovered. When a part cannot be
        started, those already started are stopped again. Raises ConfigError when a directory, an address or a socket
        cannot be used, and RelayError when another supervisor holds the state.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, keep_workers: bool = False) -> None:
        """Stop everything that was started, in reverse order; with `keep_workers` media continues without us."""
        self._keep_workers = keep_workers
        self.verbs.close()
        await self._started.aclose()

    async def _start(self) -> None:
        # Each part is followed by how it is stopped: in reverse order, whatever happens to the others.
        started = self._started
        self._open_state()
        started.push_async_callback(self._launcher.close)
        await self._launcher.prepare()  # while nothing else has been started: it tells which workers live
        self._load()
        started.callback(self.verbs.logs.remove)
        self.verbs.logs.install()
        _report_mistakes(self.config)
        started.push_async_callback(self._bus.stop)
        await self._bus.start()
        started.push_async_callback(self._loops.aclose)
        stop_http = once(self._http.stop)
        started.push_async_callback(stop_http)
        await self._http.start()
        started.push_async_callback(self._otel.stop)
        self._otel.start(self._http.collector.collect)
        started.push_async_callback(self._client.aclose)
        started.push_async_callback(self._sinks.aclose, within=0.5)
        self._sinks.restore([restored(saved) for saved in self._store.publications()])
        started.push_async_callback(self._stop_accounts)
        self._loops.start("workers", self.fleet.run)
        started.push_async_callback(self._stop_workers)
        started.push_async_callback(self._ice.aclose)
        started.push_async_callback(self.viewers.aclose, within=0.5)
        started.push_async_callback(self.director.close)
        started.push_async_callback(self._activities.aclose)
        started.push_async_callback(stop_http)  # no more requests while everything else is being stopped
        for index in range(len(self.config.nest)):
            self._start_account(index)
        # Streams left by an earlier supervisor expire in minutes, and a listing may take longer to succeed.
        self.director.reconcile()
        self._start_activities()

    def _open_state(self) -> None:
        """Lock the directories, then open the state: nothing is read before the lock is held."""
        paths, started = self.config.paths, self._started
        private(paths.state(), "state_dir")
        runtime(paths.runtime())
        for lock in self._locks:
            lock.acquire()
            started.callback(lock.release)
        started.callback(self._store.close)
        self._store.open()
        if self._store.notice:
            log.warning("%s", self._store.notice)

    def _load(self) -> None:
        """Read what an earlier run left."""
        self.overrides.load()
        self.verbs.load()
        self.director.load()
        self.local.load()
        self._http.load()
        self._launcher.sweep(self.director.instances_left)

    def _start_account(self, index: int) -> None:
        name, several = projects_of(self.config.nest)[index], len(self.config.nest) > 1
        of_account = f" of {name}" if several else ""
        account = Account(
            self.config.nest[index],
            self.config.limits,
            self._clock,
            self._store,
            self.director.lease_effect,
            self.director.offers.offer,
            self._rng,
            name,
            self._otel.command,
        )
        self.accounts.append(account)
        account.start(self._loops.start, f"leases{of_account}")
        self._registry.restored(index, account.leases.devices)
        parts = (account.leases, self._registry, self.events, self._clock, self._rng, self._found)
        discovery = Discovery(index, *parts, name=name if several else "")
        self._discoveries.append(discovery)
        self._activities.start(f"discovery{of_account}", discovery.run)

    def _start_activities(self) -> None:
        start = self._activities.start
        start("events", functools.partial(self.events.run, self.status))
        start("viewers", self.viewers.watch)
        start("local viewers", self.local.watch)
        start("verdicts", self._verdicts.watch)
        start("renditions", self._renditions.watch)
        start("what is wrong", self._report.watch)
        start("cameras on demand", functools.partial(self._watching.run, self._watched))
        start("TURN credentials", self._ice.keep_workers)
        start("publications", functools.partial(self._broker.watch, VERIFY))
        start("memory", functools.partial(keep_small, self._clock))

    async def _stop_accounts(self) -> None:
        await asyncio.gather(*(account.stop(release=not self._keep_workers, within=0.5) for account in self.accounts))

    async def _stop_workers(self) -> None:
        if self._keep_workers:
            self.fleet.abandon()
            return
        await self.fleet.stop_all("the supervisor stops", within=1.5)
        await asyncio.gather(*(self._sinks.retire(camera, within=0.5) for camera in self.director.running))

    def _watched(self) -> set[str]:
        """Cameras that somebody watches, or that a sink wants even so."""
        awake = {c.id for c in self._registry if self._sinks.keeps_awake(c.name, c.device.id)}
        return self.viewers.watched() | self.local.watched() | awake

    # --- callbacks of the parts --------------------------------------------------------------------------------------

    def _reconfigured(self, config: Config) -> None:
        """Adopt a reloaded configuration."""
        self.config = config
        _report_mistakes(config)
        self.director.sinks_changed(self._sinks.configure(config.whip))
        self.local.configure(config.local)
        self._renditions.configure(config.workers)

    def _found(self, account: int, listing: Listing) -> None:
        """Handle a listing of an account's cameras."""
        self.director.listed(account, listing)
        self.fleet.cameras_known = self._registry.accounts == len(self.config.nest)

    def _spec(self, camera: Camera) -> WorkerSpec:
        return worker_spec(camera, self.config, self._sinks, self._ends)

    # --- for the HTTP interface (RelayView); `status`, `health` and `telemetry` come from the report ------------------

    @property
    def url(self) -> str:
        """URL of the dashboard."""
        return self._http.url

    async def restart(self, camera: str) -> None:
        """Replace a camera's worker."""
        await self.director.restart(camera)

    async def keyframe(self, camera: str) -> None:
        """Ask a camera for a keyframe."""
        self.fleet.send(self.director.find(camera).id, protocol.RequestKeyframe())


def _report_mistakes(config: Config) -> None:
    for mistake in config.whip_mistakes:
        log.error("a [[whip]] table is left out: %s", mistake)
