"""`run` with workers in Pods and none that stand by: it begins nothing while another one of its identity commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from starlette.types import Receive, Scope, Send

from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.tasks import either
from relay_supervisor.app import Supervisor
from relay_supervisor.cluster.lone import LoneSeat, LoneState
from relay_supervisor.cluster.own_log import OwnLog
from relay_supervisor.commands.serving import Hangups, serve
from relay_supervisor.commands.systemd import ServiceManager
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.fleet.launcher import Launcher
from relay_supervisor.fleet.pods.api import ClusterApi
from relay_supervisor.fleet.pods.pod_launcher import PodLauncher
from relay_supervisor.http.passing import Commander, NotPassedOn, PassOn
from relay_supervisor.http.standby import StandbyInterface
from relay_supervisor.state.directories import private, runtime
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import STATE_FILE, Store


async def run_alone(
    config: Config,
    reread: Callable[[], Config],
    manager: ServiceManager,
    signalled: asyncio.Event,
    hangups: Hangups,
    clock: Clock,
) -> None:
    """Run the supervisor until a signal, or until it is asked to stop; wait while another one has its Lease.

    Raises RelayError when another one uses the state directory.
    """
    state = config.paths.state()
    private(state, "state_dir")
    runtime(config.paths.runtime())
    namesake = unseated = False
    while not signalled.is_set():
        lock = StateLock(state)
        lock.acquire()  # first: who shares the directory has the same key, and would be unseated
        api = ClusterApi(config.cluster.namespace)
        own = Keyring(state / KEY_FILE)
        own.open()
        key = own.secret.reveal().encode()
        seat = LoneSeat(api, config.cluster, key, clock, OwnLog(state), namesake=namesake)
        try:
            found = await seat.settled()
            # One that ended since another may command knows no better until the API server says who does.
            if found is LoneState.WAITS or (found is LoneState.UNKNOWN and unseated):
                manager.ready()
                await _wait(config, seat, signalled, clock)
            lock.release()
            if not signalled.is_set():
                config = await _relay(config, reread, manager, signalled, hangups, seat, clock)
        finally:
            lock.release()
            namesake, unseated = namesake or seat.namesake, unseated or seat.over.is_set()
            await seat.leave()
            await api.aclose()
    manager.stopping()


class _Elsewhere(PassOn):
    """Answers every request with who commands: there is no way to that one."""

    def __init__(self, seat: LoneSeat, clock: Clock) -> None:
        super().__init__(seat.name, lambda: Commander("", "", clock.now()), lambda: None, clock)
        self._seat = seat

    async def pass_on(self, scope: Scope, receive: Receive, send: Send, *, operator: bool) -> None:
        words = f"This supervisor, {self._seat.name}, waits: {self._seat.status().problem or 'it is about to command'}"
        raise NotPassedOn(503, "standing_by", words, self._seat.advice)


async def _wait(config: Config, seat: LoneSeat, signalled: asyncio.Event, clock: Clock) -> None:
    """Serve who commands, until this one does or a signal."""
    interface = StandbyInterface(config, clock, seat.status, _Elsewhere(seat, clock))
    await interface.start()
    try:
        await either(seat.won, signalled)
    finally:
        await interface.stop()


async def _relay(
    config: Config,
    reread: Callable[[], Config],
    manager: ServiceManager,
    signalled: asyncio.Event,
    hangups: Hangups,
    seat: LoneSeat,
    clock: Clock,
) -> Config:
    def launcher(runtime_dir: Path) -> Launcher:
        return PodLauncher(config.cluster, clock, lambda: seat.may_change)

    store = Store(config.paths.state() / STATE_FILE, clock, unsure_until=lambda: seat.unsure_until)
    supervisor = Supervisor(config, clock=clock, launcher=launcher, store=store, reread=reread)
    seat.watch()
    await serve(supervisor, manager, signalled, hangups, seat.over, alone=True)
    if supervisor.verbs.stop_requested.is_set():
        signalled.set()
    return supervisor.config
