"""The relay's control plane as the lane runs it: the real parts, on simulated time, disk, machine, Google and SFU."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import Any, Final

from relay_common.config import CamerasConfig, CameraSettings
from relay_common.protocol import SinkTarget
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.overrides import Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.cameras.restored import restored
from relay_supervisor.events import EventHub
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.models import Listing
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.cloudflare import CloudflareSink
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.mirror import Statement
from relay_supervisor.state.schema import migrate
from relay_supervisor.state.state_database import Row
from relay_supervisor.state.store import Store
from relay_supervisor.supervise import Loops
from relay_worker.process.spec import WorkerSpec
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.machine import Machine, SimulatedBus, SimulatedLauncher
from tests.simulation.outside import WALL, SimulatedGoogle, SimulatedSfu

ACCOUNT: Final = "p"
REDISCOVER: Final = 120.0
VERIFY: Final = 60.0


class SimulatedClock:
    """The loop's time as a `Clock`; its wall time is what somebody has set on the machine."""

    def __init__(self, loop: SimulatedLoop, machine: Machine) -> None:
        self._loop, self._machine = loop, machine

    def now(self) -> float:
        return self._loop.now

    def wall(self) -> float:
        return WALL + self._loop.now + self._machine.clock_ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class Disk:
    """What is in the state database's file."""

    def __init__(self) -> None:
        self.file = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.file)


class SimulatedDatabase:
    """`state.database.Database` for one supervisor: what it has not committed dies with it."""

    def __init__(self, disk: Disk, owner: Process, rng: random.Random) -> None:
        self._disk, self._owner, self._rng = disk, owner, rng
        self.problem = self.notice = ""
        self.full = False
        self._pending: dict[Row, Statement] = {}
        self._committing = False

    def open(self) -> None:
        pass

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._disk.file.execute(sql, parameters).fetchall()

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        self._pending[row] = (sql, parameters)
        if not self._committing:
            self._committing = True
            self._owner.after(self._rng.uniform(0.001, 0.03), self._commit)

    async def before_sending(self, *, extends: bool) -> None:
        await self.flush(1.0)

    def close(self) -> None:
        self._commit()

    def counters(self) -> dict[str, int]:
        return {}

    async def flush(self, timeout: float) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, 0.05))
        self._commit()

    def _commit(self) -> None:
        batch, self._pending = self._pending, {}
        self._committing = False
        for sql, parameters in batch.values():
            self._disk.file.execute(sql, parameters)


class SimulatedAccount:
    """The part of `leases.account.Account` that the director uses."""

    def __init__(self, leases: LeaseManager) -> None:
        self.leases = leases


class ControlPlane:
    """One supervisor: `app.Supervisor` without its HTTP interface, its viewers and its locks."""

    def __init__(
        self,
        process: Process,
        loop: SimulatedLoop,
        *,
        machine: Machine,
        google: SimulatedGoogle,
        sfu: SimulatedSfu,
        disk: Disk,
        launcher: SimulatedLauncher,
        rng: random.Random,
    ) -> None:
        self.process, self._machine = process, machine
        clock = self.clock = SimulatedClock(loop, machine)
        self.loops = Loops(clock)
        self._database = SimulatedDatabase(disk, process, rng)
        self.store = Store(self._database, clock, boot="one boot")
        # Battery cameras, too, are to be live all the time.
        always = {device.name: CameraSettings(mode="always") for device in google.backend.devices.values()}
        self.registry = Registry(CamerasConfig(rediscover=REDISCOVER, settings=always), Overrides())
        events = EventHub(clock, boot="x")
        names = iter(range(1_000_000))
        stamp = f"{loop.now:.3f}"
        at = CloudflareSink(sfu)  # type: ignore[arg-type]
        self.broker = Broker(at, clock, new_id=lambda: f"pub{next(names)}@{stamp}")
        self.sinks = Sinks(self.broker, SinkTarget(), clock)
        self.bus = SimulatedBus(machine, process)
        self.fleet = Fleet(
            launcher,
            self.bus,
            clock,
            policy=lambda: RestartPolicy(rng=rng),
            memory_limit=100 << 20,
        )
        self.accounts: list[SimulatedAccount] = []
        self.director = Director(
            self.registry,
            self.accounts,  # type: ignore[arg-type]
            self.sinks,
            self.fleet,
            self.store,
            events,
            self._spec,
            clock,
        )
        self.director.load()
        self.broker.restore([restored(saved) for saved in self.store.publications()])
        self.leases = LeaseManager(
            account=ACCOUNT,
            api=google,
            limits=limits_from(),
            clock=clock,
            on_effect=self.director.lease_effect,
            offer=self.director.offers.offer,
            store=self.store,
            rng=rng,
        )
        self.accounts.append(SimulatedAccount(self.leases))
        self.discovery = Discovery(0, self.leases, self.registry, events, clock, rng, self._found)

    async def run(self) -> None:
        """Start everything, as `app.Supervisor` does; what runs from then on are its loops."""
        self._machine.bus = self.bus
        self.loops.start("workers", self.fleet.run)
        self.loops.start("leases", self.leases.run)
        self.registry.restored(0, self.leases.devices)
        self.loops.start("discovery", self.discovery.run)
        self.director.reconcile()
        self.loops.start("publications", lambda: self.broker.watch(VERIFY))

    async def leave(self) -> None:
        """End, and leave the workers running (an upgrade)."""
        await self.director.close()
        self.fleet.abandon()
        await self.loops.aclose()
        self._database.close()

    def _found(self, account: int, listing: Listing) -> None:
        self.director.listed(account, listing)
        self.fleet.cameras_known = True

    @staticmethod
    def _spec(camera: Camera) -> WorkerSpec:
        return WorkerSpec(camera=camera.id, name=camera.name, instance="", control="", stats="")
