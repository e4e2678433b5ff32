"""A bus with real sockets, what it passed on, and peers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from relay_common.protocol import FromWorker, Goodbye
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.bus_sockets import BusSockets
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_worker.process.control import Control
from relay_worker.process.spec import BusKeys, WorkerSpec
from tests.fixtures.bus_peer import Attempt, BusPeer


def spec_of(keys: BusKeys | None, control: str, stats: str) -> WorkerSpec:
    """A worker of camera c that connects there."""
    return WorkerSpec(camera="c", name="C", instance="c.1", control=control, stats=stats, keys=keys)


class Rig:
    """A bus, what it passed on, and peers."""

    def __init__(self, directory: Path, network: tuple[str, str] | None = None) -> None:
        self.directory = directory
        self.heard: list[tuple[str, str]] = []
        self.reports: list[str] = []
        self.bus = Bus(directory, Keyring(directory / KEY_FILE), network=network)
        self.bus.listen(self)
        self.peers: list[BusPeer] = []

    def on_message(self, instance: str, message: FromWorker) -> None:
        self.heard.append((instance, type(message).__name__))

    def on_stats(self, stats: WorkerStats) -> None:
        self.reports.append(stats.instance)

    def peer(self, keys: BusKeys | None = None, ends: BusSockets | None = None, **changes: Any) -> BusPeer:
        """A peer that connects with these keys, to the Unix sockets if not to others."""
        ends = ends or self.bus.keyed
        attempt = Attempt(ends.control_endpoint, ends.stats_endpoint)
        if keys is not None:
            attempt.supervisor, attempt.public, attempt.secret = keys.supervisor, keys.public, keys.secret.reveal()
        self.peers.append(BusPeer(msgspec.structs.replace(attempt, **changes)))
        return self.peers[-1]

    async def hear(self, worker: Control) -> None:
        """Wait until a message of this worker has arrived."""
        await self.until(lambda: self.heard, lambda: worker.send(Goodbye(reason="")))

    async def next(self, keys: BusKeys) -> Rig:
        """Stop this bus, unless that is done, and start the next supervisor's, which knows the worker by its keys."""
        await self.bus.stop()
        later = Rig(self.directory, self.bus.network and self.bus.network.endpoints)
        later.bus.keyring.admit("c.1", "c", keys.public)
        await later.bus.start()
        return later

    def refused(self) -> dict[str, int]:
        """What was refused, by kind."""
        counters = self.bus.refusals.counters()
        return {name.removeprefix("refused_"): count for name, count in counters.items() if count}

    def heard_from(self, instance: str) -> set[str]:
        return {message for who, message in self.heard if who == instance}

    async def until(self, condition: Callable[[], object], say: Callable[[], object] = bool) -> None:
        """Wait for a condition, calling `say` again and again."""
        async with asyncio.timeout(30.0):
            while not condition():
                say()
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for peer in self.peers:
            peer.close()
        await self.bus.stop()
