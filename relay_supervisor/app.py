"""The supervisor: every part, put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

from relay_common import VERSION, protocol
from relay_common.clock import Clock, SystemClock
from relay_common.cloudflare import SfuClient
from relay_common.config import Config
from relay_common.counters import joined
from relay_supervisor.cameras.director import NOBODY_WATCHES, Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.overrides import Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.cameras.restored import restored
from relay_supervisor.cameras.status import camera_status, totals
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.fleet.launcher import ForkServerLauncher, Launcher
from relay_supervisor.google.leases.account import Account
from relay_supervisor.google.models import Listing
from relay_supervisor.http.interface import HttpInterface
from relay_supervisor.http.metrics import Telemetry
from relay_supervisor.net import is_loopback
from relay_supervisor.operations.verbs import Verbs
from relay_supervisor.otel import OtelExport
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.state.directories import private, runtime
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import Store
from relay_supervisor.status.health import Health, PartStatus, judge
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus
from relay_supervisor.supervise import Loops, once
from relay_supervisor.viewing.verdicts import Verdicts
from relay_supervisor.viewing.viewers import Viewers
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

VERIFY: Final = 60.0
"""Seconds within which every publication is checked once at the SFU."""
LET_GO: Final = 1.0
"""Seconds between two looks at who watches which camera on demand."""


class Supervisor:
    """Relays the configured cameras from `start` to `stop`. It is what the HTTP interface sees (`RelayView`).

    `reread` reads the configuration again when it is to be reloaded; None when there is no file behind it. Raises
    ConfigError when the configuration cannot work, and RelayError when another supervisor holds the state.
    """

    director: Director
    fleet: Fleet

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        launcher: Launcher | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        self._clock: Clock = clock or SystemClock()
        self._rng = random.Random()
        self._began = self._clock.now()
        self._events = EventHub(self._clock, boot=secrets.token_hex(4))
        self._http = HttpInterface(self, config, self._clock)
        self._otel = OtelExport(config.otel, self._clock)
        self._launcher: Launcher = launcher or ForkServerLauncher()
        self._started = contextlib.AsyncExitStack()
        self._keep_workers = False
        self._loops, self._activities = Loops(self._clock), Loops(self._clock)
        """What runs until everything has been stopped, and what ends first."""
        self.accounts: list[Account] = []
        self._discoveries: list[Discovery] = []

        state, self._runtime_dir = private(config.paths.state()), runtime(config.paths.runtime())
        self._lock = StateLock(state)
        self._lock.acquire()
        self._started.callback(self._lock.release)
        self._store = Store(state / "relay.sqlite3", self._clock)
        self._started.callback(self._store.close)
        self._registry = Registry(config.cameras, Overrides(state))

        # Parts that call one that is made after them do so through `self`.
        self._client = self._sfu_client()
        self._broker = Broker(
            self._client,
            self._clock,
            rng=self._rng,
            listener=lambda *change: self.director.publication_changed(*change),
        )
        self.director = Director(
            self._registry, self.accounts, self._broker, self._store, self._events, self._spec, self._clock.wall
        )
        self.director.demand.resumed(self.director.survivors, self._clock.now())
        self._bus = Bus(
            self._runtime_dir,
            lambda *said: self.fleet.on_message(*said),
            lambda stats: self.fleet.on_stats(stats),
            self._loops,
        )
        self.fleet = self.director.fleet = self._make_fleet()
        self._viewers = self._make_viewers()
        self._verdicts = self._make_verdicts()
        self.verbs = self._make_verbs(reread)
        self.director.on_worker_ready = self.verbs.worker_ready
        self.director.on_other_message = self.verbs.worker_message

    def _sfu_client(self) -> SfuClient:
        at = self.config.cloudflare
        client = SfuClient(at.app_id, at.app_secret, clock=self._clock, rng=self._rng, base_url=at.api_base_url)
        client.meter.on_call = self._otel.sfu_call
        return client

    def _make_fleet(self) -> Fleet:
        return Fleet(
            self._launcher,
            self._bus.send,
            self.director,
            self._clock,
            self._runtime_dir,
            memory_limit=self.config.workers.memory_limit_mb << 20,
            reading=lambda: self._bus.reading,
        )

    def _make_viewers(self) -> Viewers:
        urls = self.config.cloudflare.ice_servers
        return Viewers(
            self._client,
            self._broker,
            self._clock,
            rng=self._rng,
            ice_servers=[{"urls": urls}] if urls else [],
            on_asked=self._asked_for,
        )

    def _make_verdicts(self) -> Verdicts:
        return Verdicts(
            self._viewers.decoding,
            self._clock,
            live=lambda: {camera: self.fleet.live_stats(camera) for camera in self.director.running},
            send=self.fleet.send,
            tell=lambda camera, words: self._events.publish("state", words, camera),
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
            on_config=lambda changed: setattr(self, "config", changed),
        )

    # --- start and stop --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every part; returns when the HTTP interface serves.

        Cameras that an earlier run knew are taken up at once; others follow as they are discovered. When a part cannot
        be started, those that were are stopped again.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, keep_workers: bool = False) -> None:
        """Stop whatever was started, in reverse; with `keep_workers` media goes on without us."""
        self._keep_workers = keep_workers
        self.verbs.close()
        await self._started.aclose()

    async def _start(self) -> None:
        # Each part is followed by how it is stopped: in reverse, whatever happens to the others.
        started = self._started
        if self._store.notice:
            log.warning("%s", self._store.notice)
        self.verbs.logs.install()
        started.callback(self.verbs.logs.remove)
        started.push_async_callback(self._bus.stop)
        await self._bus.start()
        started.push_async_callback(self._loops.aclose)
        stop_http = once(self._http.stop)
        await self._http.start()
        started.push_async_callback(stop_http)
        await self._launcher.prepare()
        started.push_async_callback(self._otel.stop)
        self._otel.start(self._http.collector.collect)
        started.push_async_callback(self._client.aclose)
        started.push_async_callback(self._broker.aclose, within=0.5)
        self._broker.restore([restored(saved) for saved in self._store.publications()])
        started.push_async_callback(self._stop_accounts)
        self._loops.start("workers", self.fleet.run)
        started.push_async_callback(self._stop_workers)
        started.push_async_callback(self._viewers.aclose, within=0.5)
        started.push_async_callback(self.director.close)
        started.push_async_callback(self._activities.aclose)
        started.push_async_callback(stop_http)  # nothing may be asked for any more while all else is stopped
        for index in range(len(self.config.nest)):
            self._start_account(index)
        # Streams that an earlier supervisor left have minutes to live, and a listing may take longer to succeed.
        self.director.reconcile()
        self._activities.start("events", lambda: self._events.run(self.status))
        self._activities.start("viewers", self._viewers.watch)
        self._activities.start("verdicts", self._verdicts.watch)
        self._activities.start("cameras on demand", self._let_go)
        self._activities.start("publications", lambda: self._broker.watch(VERIFY))

    def _start_account(self, index: int) -> None:
        account = Account(
            self.config.nest[index],
            self.config.limits,
            self._clock,
            self._store,
            self.director.lease_effect,
            self.director.offers.offer,
            self._rng,
            self._account_name(index),
            self._otel.command,
        )
        self.accounts.append(account)
        account.start(self._loops.start)
        self._registry.restored(index, account.leases.devices)
        discovery = Discovery(index, account.leases, self._registry, self._events, self._clock, self._rng, self._found)
        self._discoveries.append(discovery)
        self._activities.start("discovery", discovery.run)

    async def _stop_accounts(self) -> None:
        release = not self._keep_workers
        await asyncio.gather(*(account.stop(release=release, within=0.5) for account in self.accounts))

    async def _stop_workers(self) -> None:
        if self._keep_workers:
            self.fleet.abandon()
            return
        await self.fleet.stop_all("the supervisor stops", within=1.5)
        await asyncio.gather(*(self._broker.retire(camera, within=0.5) for camera in self.director.running))

    def _account_name(self, index: int) -> str:
        """The project's id, numbered where several users granted the same project."""
        project = self.config.nest[index].project_id
        before = sum(nest.project_id == project for nest in self.config.nest[:index])
        return f"{project}#{before + 1}" if before else project

    def _found(self, account: int, listing: Listing) -> None:
        """An account's cameras were listed."""
        self.director.listed(account, listing)
        self.fleet.cameras_known = self._registry.accounts == len(self.config.nest)

    def _spec(self, camera: Camera) -> WorkerSpec:
        config = self.config
        return WorkerSpec(
            camera=camera.id,
            name=camera.name,
            instance="",
            control=self._bus.control_endpoint,
            stats=self._bus.stats_endpoint,
            audio=camera.settings.audio,
            ca_file=config.rtsp.ca_file,
            connect_timeout=config.rtsp.connect_timeout,
            read_timeout=config.rtsp.read_timeout,
            ice_servers=tuple(config.cloudflare.ice_servers),
            loopback=_is_local(config.cloudflare.api_base_url),
            camera_loopback=_is_local(config.nest[camera.account].api_base_url),
            log_level=config.log.level,
            log_format=config.log.format,
        )

    # --- cameras on demand -----------------------------------------------------------------------------------------

    def _asked_for(self, cameras: Collection[str]) -> None:
        asked = [camera for camera in self._registry if camera.id in cameras]
        if self.director.demand.watched(asked, self._clock.now()):
            self.director.reconcile()

    async def _let_go(self) -> None:
        while True:
            await self._clock.sleep(LET_GO)
            self._asked_for(self._viewers.watched())
            if self.director.demand.let_go(self._registry, self._clock.now()):
                self.director.reconcile()

    # --- what the HTTP interface sees (RelayView) --------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return self._http.url

    @property
    def events(self) -> EventHub:
        """Everything that happens, for people."""
        return self._events

    @property
    def viewers(self) -> Viewers:
        """Views of browsers."""
        return self._viewers

    def status(self) -> RelayStatus:
        """The whole relay, now."""
        now = self._clock.now()
        cameras = [self._camera_status(camera, now) for camera in self._registry]
        return RelayStatus(
            version=VERSION,
            at=self._clock.wall(),
            uptime=now - self._began,
            totals=totals(cameras, viewers=len(self._viewers)),
            budgets=[self._budget(index, account) for index, account in enumerate(self.accounts)],
            cameras=cameras,
            counters=self._counters(),
        )

    def _counters(self) -> dict[str, int]:
        accounts = {f"account_{index}": account.counters() for index, account in enumerate(self.accounts)}
        return joined(
            bus=self._bus.counters(),
            socket=self._http.counters(),
            sfu=self._client.counters(),
            publications=self._broker.counters(),
            loop=self.fleet.counters(),
            **accounts,
            views=self._viewers.counters(),
            verdicts=self._verdicts.counters(),
            loops=self._loops.counters(),
            activities=self._activities.counters(),
        )

    def _budget(self, index: int, account: Account) -> BudgetStatus:
        budget = account.leases.budget()
        budget.auth_warning = self.verbs.auth_warning(index)
        return budget

    def _camera_status(self, camera: Camera, now: float) -> CameraStatus:
        live, verdict = self._broker.locate(camera.id), self._verdicts.verdict(camera.id)
        return camera_status(
            camera,
            why_not=self._registry.why_not(camera),
            idle=NOBODY_WATCHES if self.director.demand.idle(camera) else "",
            lease=self.accounts[camera.account].leases.lease(camera.id),
            slot=self.fleet.slot(camera.id),
            publication=live.id if live is not None else "",
            now=now,
            picture=(verdict.decodable.value, verdict.stage, verdict.reason),
        )

    def health(self) -> Health:
        """Whether the relay works, and what is the reason if not."""
        parts = [PartStatus(name="store", ok=not self._store.problem, reason=self._store.problem)]
        parts += [
            PartStatus(name="leases", ok=account.running, reason="" if account.running else "its task has ended")
            for account in self.accounts
        ]
        problems = self._loops.problems | self._activities.problems
        parts += [PartStatus(name=name, ok=False, reason=reason) for name, reason in problems.items()]
        status = self.status()
        if not status.cameras:
            # Nothing is wanted because nothing is known: that is not "all well".
            parts += [PartStatus(name="discovery", ok=not d.problem, reason=d.problem) for d in self._discoveries]
        return judge(status, parts)

    def telemetry(self) -> Telemetry:
        """Counters that are not in the status."""
        told = Telemetry(sfu=self._client.meter, restarts=self.director.restart_causes, views=self._viewers.outcomes)
        for account in self.accounts:
            told.command_wait.add(account.leases.book.queue.waits)
        return told

    async def restart(self, camera: str) -> None:
        """Replace a camera's worker."""
        await self.director.restart(camera)

    async def keyframe(self, camera: str) -> None:
        """Ask a camera for a keyframe."""
        self.fleet.send(self.director.find(camera).id, protocol.RequestKeyframe())


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
