"""`run` with [cluster] replica: stands by for others, runs the supervisor while in command, and stands by again."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.config_cluster import passing_address
from relay_common.files import write_private
from relay_supervisor.app import Supervisor
from relay_supervisor.cluster.cluster_database import image_of
from relay_supervisor.cluster.peer_channel import PeerChannel
from relay_supervisor.cluster.peer_tls import peer_tls
from relay_supervisor.cluster.replica import Channel, Replica
from relay_supervisor.cluster.state_object import Deposed
from relay_supervisor.commands.serving import Hangups, serve
from relay_supervisor.commands.systemd import ServiceManager
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.fleet.launcher import Launcher
from relay_supervisor.fleet.pods.api import ClusterApi
from relay_supervisor.fleet.pods.pod_launcher import PodLauncher
from relay_supervisor.http.hosting import Hosting
from relay_supervisor.http.passed_on import AmongReplicas, PeerListen
from relay_supervisor.http.passing import Commander, PassOn
from relay_supervisor.http.standby import StandbyInterface
from relay_supervisor.state.directories import private, runtime
from relay_supervisor.state.store import STATE_FILE, Store

log = logging.getLogger(__name__)


class OfProcess(NamedTuple):
    """What all accounts of a process have in common."""

    manager: ServiceManager
    signalled: asyncio.Event
    """Set when the process is to end."""
    hangups: Hangups
    clock: Clock


class OfAccount(NamedTuple):
    """The place of one of several accounts in a process."""

    hosting: Hosting
    joins: Callable[[Replica], None]
    """Told of each one that stands by for it, before it does."""


async def stand_by(
    config: Config, reread: Callable[[], Config], process: OfProcess, account: OfAccount | None = None
) -> None:
    """Stand by and command in turns, until a signal or until it is asked to stop.

    `account` is for one of several. Raises ConfigError when no cluster is configured, or when an address cannot be
    listened on.
    """
    signalled, clock, state = process.signalled, process.clock, config.paths.state()
    private(state, "state_dir")
    runtime(config.paths.runtime())
    process.manager.ready()
    namesake, before = False, None
    while not signalled.is_set():
        own = Keyring(state / KEY_FILE)  # the relay's, as this one knew it last, or that of a supervisor that was alone
        own.open()
        api = ClusterApi(config.cluster.namespace)
        replica = Replica(
            api,
            config.cluster,
            clock,
            _channel(config, clock),
            namesake=namesake,
            among_accounts=account is not None,
            remembered=own.secret.reveal(),
            remember=functools.partial(_remember, state / KEY_FILE),
            before=before,
        )
        if account is not None:
            account.joins(replica)
        hosting = account.hosting if account is not None else None
        try:
            store = await _command(config, replica, own, process, hosting)
            if store is not None:
                config = await _relay(config, reread, process, replica, store, hosting)
            elif signalled.is_set():
                process.manager.stopping()
        finally:
            namesake = namesake or replica.seat.namesake
            before = await replica.leave()
            await api.aclose()


async def _command(
    config: Config, replica: Replica, own: Keyring, process: OfProcess, hosting: Hosting | None
) -> Store | None:
    """Wait until this one is to command; its store, None after a signal or when another was faster."""
    passing = _passing(config, process.clock, replica)
    interface = StandbyInterface(config, process.clock, replica.status, passing, hosting)
    state = config.paths.state()
    replica.begin()
    await interface.start()
    begin_with = own.secret.reveal().encode(), functools.partial(image_of, state / STATE_FILE)
    taking = asyncio.ensure_future(replica.take(*begin_with))
    stopping = asyncio.ensure_future(process.signalled.wait())
    try:
        await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            return None
        key, store = await taking
        _remember(state / KEY_FILE, key.decode())
        return store
    except Deposed as error:
        log.warning("standing by again: %s", error)
        return None
    finally:
        for one in (taking, stopping):
            one.cancel()
        await interface.stop()


async def _relay(
    config: Config,
    reread: Callable[[], Config],
    process: OfProcess,
    replica: Replica,
    store: Store,
    hosting: Hosting | None,
) -> Config:
    """Run the supervisor until it must not command any more, or until it is to end; its configuration then."""

    def launcher(runtime_dir: Path) -> Launcher:
        return PodLauncher(config.cluster, process.clock, lambda: replica.in_command)

    async def overrides() -> bytes:
        return supervisor.overrides.text()

    at = passing_address(config.cluster)
    peers = PeerListen(*at, peer_tls(replica.key).server) if at is not None else None
    # Not by way of the disk, which may be full: workers that an earlier one has started know the key.
    place = AmongReplicas(replica.status, peers, replica.key, replica.overrides, hosting)
    supervisor = Supervisor(config, clock=process.clock, launcher=launcher, store=store, place=place, reread=reread)
    replica.follow(overrides)
    await serve(supervisor, process.manager, process.signalled, process.hangups, replica.over)
    if supervisor.verbs.stop_requested.is_set():
        process.signalled.set()
    return supervisor.config


def _channel(config: Config, clock: Clock) -> Channel:
    cluster = config.cluster

    def channel(key: str, promises: Callable[[str, str], bool]) -> PeerChannel:
        return PeerChannel(cluster.identity, key, cluster.peer_listen, promises, clock)

    return channel


def _passing(config: Config, clock: Clock, replica: Replica) -> PassOn:
    """What passes requests on to the one that commands."""

    def commander() -> Commander:
        seat = replica.seat
        return Commander(seat.holder, seat.serves, seat.heard_at, seat.known)

    @functools.lru_cache(maxsize=1)
    def secured(key: str) -> ssl.SSLContext:
        return peer_tls(key).client

    def context() -> ssl.SSLContext | None:
        return secured(replica.key) if replica.key else None

    return PassOn(config.cluster.replica, commander, context, clock)


def _remember(file: Path, key: str) -> None:
    try:
        write_private(file, key.encode() + b"\n")
    except OSError as error:
        words = "%s cannot be written: %s; started anew without the API server, this supervisor could promise nothing"
        log.warning(words, file, error.strerror)
