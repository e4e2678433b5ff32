"""A fleet on a manual clock, whose launcher and processes do what a test tells them."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from relay_common import protocol
from relay_common.causes import RestartCause
from relay_common.clock import ManualClock
from relay_common.proc import process_ref
from relay_common.protocol import FromSupervisor, FromWorker, Hello, WorkerState
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.bus import BusListener
from relay_supervisor.fleet.fleet import TICK, Fleet
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.launcher import EnginePhase, Exit, Handle
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import Phase, Slot
from relay_worker.process.spec import WorkerSpec

SPEC = WorkerSpec(camera="cam", name="Cam", instance="", control="ipc:///nowhere", stats="ipc:///nowhere")


class Process:
    """Stands for a worker (a `Handle`): it ends when the test says so. `signals` is what it was asked, as signals."""

    def __init__(self, pid: int, started: int = 1) -> None:
        self.ref, self.number = process_ref(pid, started), pid
        self.where = self.reason = ""
        self.engine = EnginePhase.RUNNING
        self.signals: list[signal.Signals] = []
        self.exit: Exit | None = None
        self.forgotten = False
        self.starved = 0.0
        self.unreadable: OSError | None = None
        """Why its stacks cannot be read."""
        self._told: list[Callable[[], None]] = []

    @property
    def phase(self) -> EnginePhase:
        return self.engine if self.exit is None and not self.forgotten else EnginePhase.GONE

    async def wait(self) -> Exit:
        raise NotImplementedError

    def when_ended(self, callback: Callable[[], None]) -> None:
        self._told.append(callback)

    def ask_to_end(self, within: float) -> None:
        self.signals.append(signal.SIGTERM)

    def end_now(self) -> None:
        self.signals.append(signal.SIGKILL)

    def dump(self) -> None:
        self.signals.append(signal.SIGUSR1)

    def dumped(self) -> str:
        if self.unreadable is not None:
            raise self.unreadable
        return ""

    def forget(self) -> None:
        self.forgotten = True

    def end(self, code: int | None = 0, *, unseen: bool = False, taken: str = "") -> None:
        """It ends, or is said to have (None); with `unseen` the kernel's notice gets lost.

        `taken` is why its engine took it away, if it did.
        """
        self.exit = Exit(code, taken, taken=bool(taken))
        if not unseen:
            for told in self._told:
                told()


class Launcher:
    """Answers when the test says so; `adoptable` is the worker that lives, or what `recall` raises for any."""

    remote = False

    def __init__(self) -> None:
        self.specs: list[WorkerSpec] = []
        self.waiting: list[asyncio.Future[Process]] = []
        self.suspected: list[Handle] = []
        self.heard_of: list[Handle] = []
        self.adoptable: Process | OSError | None = None
        self._pids = itertools.count(100)

    async def prepare(self) -> None: ...

    async def start(self, spec: WorkerSpec) -> Handle:
        self.specs.append(spec)
        answer: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        return await answer

    def recall(self, instance: str, ref: str) -> Handle | None:
        if isinstance(self.adoptable, OSError):
            raise self.adoptable
        return self.adoptable if self.adoptable is not None and self.adoptable.ref == ref else None

    def living(self, refs: Mapping[str, str]) -> list[str]:
        return list(refs)

    def suspect(self, handle: Handle) -> None:
        self.suspected.append(handle)

    def heard(self, handle: Handle) -> None:
        self.heard_of.append(handle)

    def sweep(self, instances: Collection[str]) -> None: ...

    async def close(self) -> None: ...

    async def answer(self, error: BaseException | None = None, engine: EnginePhase = EnginePhase.RUNNING) -> Process:
        """Start what was asked for first, or fail to; its engine has it in that phase."""
        process = Process(next(self._pids))
        process.engine = engine
        waiting = self.waiting.pop(0)
        if error is None:
            waiting.set_result(process)
        else:
            waiting.set_exception(error)
        await settle()
        return process


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Rig:
    """The fleet, and all that it said to whom."""

    def __init__(self, memory_limit: int = 0) -> None:
        self.clock, self.launcher = ManualClock(), Launcher()
        self.sent: list[tuple[str, FromSupervisor]] = []
        self.told: list[tuple[str, str]] = []
        self.started: list[str] = []
        self.causes: list[RestartCause] = []
        self.reading, self.keyring = True, Keyring()
        self.commands = True
        self.fleet = Fleet(
            self.launcher,
            self,
            self.clock,
            lambda: RestartPolicy(intensity=3, base=2.0, ceiling=30.0, rng=random.Random(1)),
            memory_limit,
            lambda: self.commands,
        )
        self.fleet.listen(self)

    # the bus

    def send(self, instance: str, message: FromSupervisor) -> bool:
        self.sent.append((instance, message))
        return True

    def listen(self, listener: BusListener) -> None:
        pass

    # what the fleet tells

    def worker_started(self, camera: str, instance: str, ref: str) -> None:
        self.started.append(ref)

    def worker_ready(self, camera: str, hello: Hello) -> None:
        self.told.append(("ready", hello.instance))

    def worker_message(self, camera: str, message: FromWorker) -> None:
        self.told.append(("message", type(message).__name__))

    def worker_gone(self, camera: str, instance: str, reason: str, cause: RestartCause) -> None:
        self.told.append(("gone", reason))
        self.causes.append(cause)

    # what a test does

    @property
    def slot(self) -> Slot:
        slot = self.fleet.slot("cam")
        assert slot is not None
        return slot

    @property
    def phase(self) -> Phase:
        return self.slot.phase

    async def launch(self) -> Process:
        """Want the camera, and have its process started."""
        self.fleet.start(SPEC)
        await settle()
        return await self.launcher.answer()

    async def run(self) -> Process:
        """Want the camera, and have its worker run."""
        process = await self.launch()
        self.hello()
        assert self.phase is Phase.RUNNING
        return process

    def hello(self, instance: str = "", **fields: Any) -> None:
        """The worker of that instance (the newest launched) says hello."""
        name = instance or self.launcher.specs[-1].instance
        said = Hello(
            protocol=protocol.PROTOCOL,
            instance=name,
            camera="cam",
            pid=os.getpid(),
            started=1,
            state=WorkerState.STARTING,
            preloaded=True,
        )
        self.fleet.on_message(name, msgspec.structs.replace(said, **fields))

    def beat(self, slot: Slot | None = None) -> None:
        self.fleet.on_message((slot or self.slot).instance, protocol.Heartbeat(state=WorkerState.LIVE))

    def report(self, mebibytes: int) -> None:
        stats = WorkerStats(
            instance=self.slot.instance, camera="cam", sequence=1, at=0.0, uptime=1.0, state=WorkerState.LIVE
        )
        stats.rss = mebibytes << 20
        self.fleet.on_stats(stats)

    async def wait(self, seconds: float, *, beats: bool = False) -> None:
        """Time passes, with the fleet's ticks; the workers beat meanwhile, or do not."""
        end = self.clock.now() + seconds
        while self.clock.now() < end - 1e-9:
            await self.clock.advance(min(TICK, end - self.clock.now()))
            if beats:
                self.beat()
            self.fleet.tick(self.clock.now())
            await settle()

    async def away(self, seconds: float) -> None:
        """The supervisor stands still for so long, and looks at its slots when it is back."""
        await self.clock.advance(seconds)
        self.fleet.tick(self.clock.now())
        await settle()

    def welcomes(self) -> list[protocol.Welcome]:
        """All that were said."""
        return [message for _, message in self.sent if isinstance(message, protocol.Welcome)]

    def messages(self, kind: type, instance: str = "") -> int:
        """How many messages of that type went to that instance (to any)."""
        return sum(isinstance(message, kind) and instance in ("", to) for to, message in self.sent)
