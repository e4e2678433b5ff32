"""The simulated machine of the lane: its process table, the launcher, and the bus between supervisor and workers."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from relay_common import wire
from relay_common.proc import process_of, process_ref
from relay_common.protocol import FromSupervisor, FromWorker
from relay_supervisor.fleet.bus import BusListener
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.launcher import EnginePhase, Exit, Handle
from relay_supervisor.fleet.watched_end import WatchedEnd
from relay_worker.process.spec import WorkerSpec
from tests.simulation.loop import Process, SimulatedLoop

if TYPE_CHECKING:
    from tests.simulation.worker import SimulatedWorker

_PIDS: Final = range(100, 140)
"""Few, so that they are soon used again."""
_RESPITE: Final = 60.0
"""Seconds after a stop in which a worker may still be taken for hung."""
_CONNECTED: Final = 10.0
"""Seconds after its start by which a supervisor reaches every worker: what it sent before may be lost."""
FORK_TIMEOUT: Final = 45.0
"""Seconds until the real launcher gives a fork server up."""


@dataclass
class Entry:
    """A process in the kernel's table."""

    pid: int
    started: int
    process: Process
    worker: SimulatedWorker
    watchers: list[Watched] = field(default_factory=list)


class Watched(WatchedEnd):
    """A process as its supervisor watches it (`fleet.launcher.Handle`)."""

    where = reason = ""
    starved = 0.0

    def __init__(self, machine: Machine, entry: Entry, owner: Process, *, parent: bool) -> None:
        super().__init__(machine.loop)
        self.ref, self.number = process_ref(entry.pid, entry.started), entry.pid
        self._machine, self._entry, self._owner, self._parent = machine, entry, owner, parent
        entry.watchers.append(self)

    @property
    def phase(self) -> EnginePhase:
        return EnginePhase.GONE if self._over else EnginePhase.RUNNING

    def ask_to_end(self, within: float) -> None:
        self._signal(signal.SIGTERM)

    def end_now(self) -> None:
        self._signal(signal.SIGKILL)

    def dump(self) -> None:
        self._signal(signal.SIGUSR1)

    def dumped(self) -> str:
        return ""

    def _signal(self, number: signal.Signals) -> None:
        if not self._over:
            self._machine.signal(self._entry, number)

    def forget(self) -> None:
        if self in self._entry.watchers:
            self._entry.watchers.remove(self)
        self._unwatched()

    def gone(self, code: int) -> None:
        """The kernel says that it has ended; only its parent learns how."""
        self._owner.after(self._machine.rng.uniform(0, 0.1), self._collected, code if self._parent else None)

    def _collected(self, code: int | None) -> None:
        self._ended(Exit(code))


class Machine:
    """One boot of a machine: processes come and go, pids are used again."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self.loop, self.rng = loop, rng
        self.kernel = Process(loop, "kernel")
        self.table: dict[int, Entry] = {}
        self.violated: Callable[[str], None] = lambda what: None
        self.bus: SimulatedBus | None = None
        self.descriptors_left = True
        self.clock_ahead = 0.0
        """Seconds by which its wall clock is ahead."""

    def of(self, ref: str) -> Entry | None:
        """The process that a launcher knows by `ref`, while it lives."""
        pid, started = process_of(ref)
        entry = self.table.get(pid)
        return entry if entry is not None and entry.started == started else None

    def fork(self, make: Callable[[Process, int, int], SimulatedWorker], name: str) -> Entry:
        pid = self.rng.choice([pid for pid in _PIDS if pid not in self.table])
        process = Process(self.loop, name)
        started = int(self.loop.now * 100)
        entry = self.table[pid] = Entry(pid, started, process, make(process, pid, started))
        process.spawn(entry.worker.run())
        return entry

    def end(self, entry: Entry, code: int) -> None:
        """The process ends, or is killed."""
        if self.table.get(entry.pid) is not entry:
            return
        del self.table[entry.pid]
        entry.process.kill()
        entry.worker.ended()
        for watcher in list(entry.watchers):
            watcher.gone(code)

    def signal(self, entry: Entry, number: signal.Signals) -> None:
        if self._answers(entry):
            self.violated(f"{number.name} for {entry.worker.instance}, which answers")
        if number is signal.SIGKILL:
            self.kernel.after(self.rng.uniform(0, 0.05), self.end, entry, -signal.SIGKILL)
        elif number is signal.SIGTERM:
            entry.process.after(self.rng.uniform(0, 0.05), entry.worker.terminate)

    def _answers(self, entry: Entry) -> bool:
        """Whether a worker has given no reason to be signalled: it is heard, and obeys when asked to end."""
        process, worker, now = entry.process, entry.worker, self.loop.now
        heard = worker.welcomed and self.bus is not None and now - self.bus.bound_at > _CONNECTED
        return heard and not process.stopped and not worker.leaving and now - process.resumed_at > _RESPITE

    def entry_of(self, instance: str) -> Entry | None:
        return next((entry for entry in self.table.values() if entry.worker.instance == instance), None)


class SimulatedLauncher:
    """Forks workers on the machine (`fleet.launcher.Launcher`); `fault`: "error", "hang", "lost" (no answer) or ""."""

    remote = False

    def __init__(
        self, machine: Machine, owner: Process, make: Callable[[WorkerSpec, Process, int, int], SimulatedWorker]
    ) -> None:
        self._machine, self._owner, self._make = machine, owner, make
        self._one_at_a_time = asyncio.Lock()
        self.fault = ""

    async def prepare(self) -> None:
        pass

    async def start(self, spec: WorkerSpec) -> Watched:
        machine, rng = self._machine, self._machine.rng
        if self.fault == "lost":
            await asyncio.sleep(1e6)
        async with self._one_at_a_time:
            await asyncio.sleep(rng.uniform(0.01, 0.3))
            if self.fault == "error":
                raise OSError("no more processes")
            if self.fault == "hang":
                await asyncio.sleep(FORK_TIMEOUT)
                raise TimeoutError("the fork server did not answer")
            entry = machine.fork(lambda process, pid, started: self._make(spec, process, pid, started), spec.camera)
            watched = Watched(machine, entry, self._owner, parent=True)
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        return watched

    def recall(self, instance: str, ref: str) -> Watched | None:
        entry = self._machine.of(ref)
        if entry is not None and not self._machine.descriptors_left:
            raise OSError(24, "Too many open files")
        return Watched(self._machine, entry, self._owner, parent=False) if entry is not None else None

    def living(self, refs: Mapping[str, str]) -> list[str]:
        found = {instance: entry.started for instance, ref in refs.items() if (entry := self._machine.of(ref))}
        return sorted(found, key=found.__getitem__)

    def suspect(self, handle: Handle) -> None:
        pass

    def heard(self, handle: Handle) -> None:
        pass

    def sweep(self, instances: Collection[str]) -> None:
        pass

    async def close(self) -> None:
        pass


class SimulatedBus:
    """One supervisor's end of the bus (`fleet.fleet.FleetBus`): frames arrive late, in the order of each peer.

    As on the real one, an instance that is not in the keyring is not heard.
    """

    def __init__(self, machine: Machine, owner: Process) -> None:
        self._machine, self.owner = machine, owner
        self.keyring = Keyring()
        self.reading = True
        self.latest = 0.01
        """Longest delivery in seconds."""
        self._listener: BusListener | None = None
        self._reader = wire.supervisor_reader()
        self._queues: dict[str, deque[bytes]] = {}
        self._unread: list[str] = []
        self.bound_at = machine.loop.now

    def listen(self, listener: BusListener) -> None:
        self._listener = listener

    def send(self, instance: str, message: FromSupervisor) -> bool:
        entry = self._machine.entry_of(instance)
        if entry is None or not entry.worker.connected_to(self):
            return False
        entry.worker.inbox.append(wire.encode(message))
        entry.process.after(self._machine.rng.uniform(0, self.latest), entry.worker.receive)
        return True

    def deliver(self, instance: str, message: FromWorker) -> None:
        """A worker sends."""
        self._queues.setdefault(instance, deque()).append(wire.encode(message))
        self.owner.after(
            self._machine.rng.uniform(0, self.latest), self._arrived, instance, self._machine.rng.randint(1, 4)
        )

    def _arrived(self, instance: str, turns: int) -> None:
        """Read after some turns of the loop, as from a socket whose reader has to be woken: a timer may be faster."""
        if turns:
            self._machine.loop.call_soon(self._arrived, instance, turns - 1, context=self.owner.context)
        else:
            self._receive(instance)

    def pause_reading(self) -> None:
        """The loop that reads the bus has failed, and is not back yet."""
        self.reading = False

    def read_again(self) -> None:
        self.reading = True
        unread, self._unread = self._unread, []
        for instance in unread:
            self._receive(instance)

    def _receive(self, instance: str) -> None:
        if not self.reading:
            self._unread.append(instance)
            return
        message = self._reader.decode(self._queues[instance].popleft())
        assert message is not None
        assert self._listener is not None
        if self.keyring.named(instance) is not None:
            self._listener.on_message(instance, message)
