"""The simulation lane: leases, quota, fleet, adoption and bus under a schedule, faults and a clock of one seed.

    python -m tests.simulation 17            # replay a seed, with what happened
    python -m tests.simulation --seeds 10000 # search

The parts of the relay are the real ones (`control.py`); what is outside of it is simulated at its interfaces: Google's
API and the SFU's client (`outside.py`), the launcher, processes and the bus (`machine.py`), workers (`worker.py`), the
disk. For some minutes faults of a plan hit them, which the seed draws; then everything must recover.

Invariants: no quota is exceeded as Google counts; no two workers play one camera's stream; no worker that answers is
signalled; no exception ends a task or a callback; no slot and no lease waits without a deadline (`invariants.py`); and
every camera is live within `RECOVERED` seconds of the last fault.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from relay_common import ids
from relay_common.protocol import WorkerState
from relay_common.simulation.google.devices import Device as SimulatedDevice
from relay_worker.process.spec import WorkerSpec
from tests.simulation.control import ControlPlane, Disk
from tests.simulation.faults import Fault, draw_faults, draw_weathers
from tests.simulation.invariants import broken_leases, broken_slots
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.machine import Machine, SimulatedLauncher
from tests.simulation.outside import FAILURES, SFU_FAILURES, SimulatedGoogle, SimulatedSfu, Skies
from tests.simulation.worker import Scene, SimulatedWorker

HOMES: Final = ((2, 60.0), (2, 120.0), (3, 120.0), (3, 300.0), (4, 200.0), (6, 90.0), (8, 300.0))
"""Cameras, and how many seconds their streams live: with short ones quotas bind, and pauses outlast them."""
RECOVERED: Final = 900.0
"""Seconds from the last fault within which every camera must be live."""
STEADY: Final = 5.0
_LOOK: Final = 1.0
_TRACE: Final = 400


class Violation(Exception):
    """An invariant does not hold; the text names the seed and how to replay it."""


class Lane:
    """One seed's world."""

    def __init__(self, seed: int, *, echo: bool = False) -> None:
        self.seed, self._echo = seed, echo
        self.loop = SimulatedLoop(str(seed))
        self.loop.set_exception_handler(self._unhandled)
        rng = self._rng = random.Random(f"{seed}/lane")
        self.trace: list[str] = []
        self.violations: list[str] = []
        self._away = True
        self.world = Process(self.loop, "world")
        self.faults = draw_faults(rng)
        self.faults_end = max((fault.at + fault.lasts for fault in self.faults), default=0.0) + self.loop.now
        weathers = draw_weathers(rng, self.loop.now, FAILURES)
        troubles = draw_weathers(rng, self.loop.now, SFU_FAILURES)
        self.faults_end = max([self.faults_end, *(weather.ends for weather in [*weathers, *troubles])])
        cameras, life = rng.choice(HOMES)
        self.machine = Machine(self.loop, random.Random(f"{seed}/machine"))
        self.machine.violated = self.violated
        self.google = SimulatedGoogle(
            self.loop,
            self.world,
            Skies(self.loop, rng, weathers),
            random.Random(f"{seed}/google"),
            life,
            self.violated,
        )
        self.sfu = SimulatedSfu(self.loop, Skies(self.loop, rng, troubles), random.Random(f"{seed}/sfu"))
        self.scenes: dict[str, Scene] = {}
        self._most_streams = random.Random(f"{seed}/streams").randrange(2)
        """Streams that a camera gives at once; 0: any number, since nobody knows whether Google refuses others."""
        for number in range(cameras):
            self._add_camera(number)
        self.disk = Disk()
        self.launcher: SimulatedLauncher
        self.control: ControlPlane | None = None
        self.live_after = 0.0

    def _add_camera(self, number: int) -> None:
        device = SimulatedDevice(f"cam{number}", f"Camera {number}", max_streams=self._most_streams)
        if self._rng.random() < 0.3:
            device.protocol, device.answer = "WEB_RTC", lambda offer, path: f"{offer} {path}"
            device.renews_session_id, device.extendable = self._rng.random() < 0.5, self._rng.random() < 0.7
        self.google.backend.add(device)
        camera = ids.camera_id(f"enterprises/p/devices/{device.id}")
        self.scenes[camera] = Scene(device.name, self.violated)

    def camera(self, number: int) -> str:
        """The id of one camera; numbers beyond the last begin again."""
        return list(self.scenes)[number % len(self.scenes)]

    def device(self, number: int) -> SimulatedDevice:
        """A camera as Google has it."""
        return list(self.google.backend.devices.values())[number % len(self.scenes)]

    # --- what is seen -------------------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        line = f"{self.loop.now - 1000:10.3f}  {what}"
        self.trace.append(line)
        if self._echo:
            print(line)

    def violated(self, what: str) -> None:
        if what not in self.violations:
            self.note(f"VIOLATED: {what}")
            self.violations.append(what)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.violated(f"unhandled: {context.get('message')}: {type(error).__name__}: {error}")

    def emitted(self, record: logging.LogRecord) -> None:
        """A log record of the relay's: an internal error is a violation."""
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.violated(f"{record.getMessage()}: {type(error).__name__}: {error}")
        elif self._echo or record.levelno >= logging.ERROR:
            self.note(f"{record.name}: {record.getMessage()} {getattr(record, 'camera', '')}")

    # --- the supervisor -----------------------------------------------------------------------------------------

    def start_supervisor(self) -> None:
        process = Process(self.loop, "supervisor")
        rng = random.Random(self._rng.random())
        self.launcher = SimulatedLauncher(self.machine, process, self._make_worker)
        self.note("a supervisor starts")

        async def live() -> None:
            self.control = ControlPlane(
                process,
                self.loop,
                machine=self.machine,
                google=self.google,
                sfu=self.sfu,
                disk=self.disk,
                launcher=self.launcher,
                rng=rng,
            )
            await self.control.run()

        process.spawn(live())

    def kill_supervisor(self) -> None:
        if self.control is not None:
            self.control.process.kill()
            self.control, self.machine.bus = None, None

    async def leave(self) -> None:
        """The supervisor ends as for an upgrade."""
        control, self.control = self.control, None
        if control is None:
            return
        ended = control.process.spawn(control.leave())
        self.machine.bus = None
        await asyncio.wait([ended], timeout=10.0)
        control.process.kill()

    def _make_worker(self, spec: WorkerSpec, process: Process, pid: int, started: int) -> SimulatedWorker:
        self.note(f"worker {spec.instance} is forked with pid {pid}")
        return SimulatedWorker(
            spec,
            process,
            pid,
            started,
            machine=self.machine,
            google=self.google,
            sfu=self.sfu,
            scene=self.scenes[spec.camera],
            rng=random.Random(self._rng.random()),
        )

    # --- the run ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the seed; raises Violation."""
        with _watched(self):
            try:
                self.start_supervisor()
                self.loop.run_until_complete(self.loop.create_task(self._script(), context=self.world.context.copy()))
            finally:
                self.loop.end()
        if self.violations:
            lines = "\n".join([*self.trace[-_TRACE:], "", *self.violations])
            raise Violation(f"{lines}\nseed {self.seed}; replay: python -m tests.simulation {self.seed}")

    async def _script(self) -> None:
        for fault in self.faults:
            self.world.spawn(self._inflict(fault))
        while self.loop.now < self.faults_end and not self.violations:
            await asyncio.sleep(_LOOK)
            self._check()
        self.note("the last fault is over")
        since, steady = self.loop.now, 0.0
        while steady < STEADY and not self.violations:
            await asyncio.sleep(_LOOK)
            self._check()
            dark = self.dark()
            steady = 0.0 if dark else steady + _LOOK
            if self.loop.now - since > RECOVERED:
                self.violated(f"not live {RECOVERED:.0f} s after the last fault: {', '.join(dark)}")
        self.live_after = self.loop.now - since - STEADY

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        self.note(f"fault: {fault}")
        await fault.inflict(self)

    def _check(self) -> None:
        control = self.control
        if control is None or control.process.stopped:
            self._away = True
            return
        if self._away or not control.leases.book.leases:
            self._away = False  # resumed, or started, within this very look: its loop has yet to see what became due
            return
        for what in (*broken_slots(control, self.loop.now), *broken_leases(control, self.loop.now)):
            self.violated(what)

    def dark(self) -> list[str]:
        """Cameras that are not live, and why."""
        found = []
        for camera, scene in self.scenes.items():
            slot = self.control.fleet.slot(camera) if self.control is not None else None
            if slot is None or not slot.running or slot.state is not WorkerState.LIVE:
                found.append(f"{scene.name}: its worker is {slot.phase.value if slot else 'unknown'}")
            elif not scene.players or not scene.players[0].published:
                found.append(f"{scene.name}: {'not published' if scene.players else 'nobody plays'}")
        return found


@contextmanager
def _watched(lane: Lane) -> Iterator[None]:
    """Let the lane see the log of the relay's modules."""
    handler = _Handler(lane.emitted)
    loggers = [logging.getLogger(name) for name in ("relay_supervisor", "relay_common")]
    levels = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if lane._echo else logging.ERROR)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _Handler(logging.Handler):
    def __init__(self, emit: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit(record)


run_seed: Final = functools.partial(lambda seed: Lane(seed).run())
