"""All worker processes: one for each wanted camera, started, watched, replaced and stopped.

The fleet decides nothing about streams: it keeps a process running for each camera it is told to, hands that
process's messages up, and sends messages down.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol

from relay_common import ids, protocol
from relay_common.clock import Clock
from relay_common.proc import start_ticks
from relay_common.protocol import FromSupervisor, FromWorker, Hello, WorkerState, WorkerStats
from relay_supervisor.workers.launcher import Launcher
from relay_supervisor.workers.process import Exit, WorkerProcess
from relay_supervisor.workers.restart import RestartPolicy
from relay_supervisor.workers.slot import Happening, Phase, Slot
from relay_worker.entry import stacks_file
from relay_worker.spec import WorkerSpec

log = logging.getLogger(__name__)

SILENCE = 4.0
"""Seconds without any message after which a worker counts as hung (a beat comes every second)."""
HELLO_PATIENCE = 20.0
"""Seconds a new process may take to say hello, on a machine that starts twenty of them at once."""
DUMP_TIME = 0.3
TERM_TIME = 1.0
"""Seconds between the steps of taking a hung worker down: stack dump, SIGTERM, SIGKILL."""


class FleetListener(Protocol):
    """Who is told what happens to workers."""

    def worker_ready(self, camera: str, hello: Hello) -> None:
        """A worker, new or adopted, has said hello."""

    def worker_message(self, camera: str, message: FromWorker) -> None:
        """A worker said something else."""

    def worker_gone(self, camera: str, instance: str, reason: str) -> None:
        """A worker ended, wanted or not."""


class Fleet:
    """Keeps one worker running for each wanted camera."""

    def __init__(
        self,
        launcher: Launcher,
        send: Callable[[str, FromSupervisor], bool],
        listener: FleetListener,
        clock: Clock,
        runtime_dir: Path,
        policy: Callable[[], RestartPolicy] = RestartPolicy,
    ) -> None:
        self._launcher, self._send, self._listener, self._clock = launcher, send, listener, clock
        self._runtime_dir, self._policy = runtime_dir, policy
        self._slots: dict[str, Slot] = {}
        self._by_instance: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- wanted and unwanted -----------------------------------------------------------------------------------

    def slot(self, camera: str) -> Slot | None:
        """What is known about a camera's worker."""
        return self._slots.get(camera)

    def start(self, template: WorkerSpec) -> None:
        """Keep a worker running for `template.camera` from now on; its `instance` is filled in at each launch."""
        slot = self._slots.get(template.camera)
        if slot is None:
            slot = self._slots[template.camera] = Slot(template, self._policy(), self._clock.now())
        slot.template, slot.wanted = template, True
        if slot.phase is Phase.ABSENT:
            self._launch(slot)

    def expect(self, template: WorkerSpec, instance: str, pid: int, started: int) -> bool:
        """Adopt a worker of an earlier supervisor, if the process with this pid and start time still lives."""
        if started == 0 or start_ticks(pid) != started:
            return False
        try:
            process = self._launcher.adopt(pid)
        except ProcessLookupError:
            return False
        slot = self._slots[template.camera] = Slot(template, self._policy(), self._clock.now())
        slot.machine.fire(Happening.ADOPT)
        slot.greeted = False
        self._bind(slot, instance, process)
        return True

    async def stop(self, camera: str, reason: str, within: float = 3.0) -> None:
        """End a camera's worker and keep it ended."""
        slot = self._slots.get(camera)
        if slot is None:
            return
        slot.wanted = False
        if slot.machine.can(Happening.STOP):
            slot.machine.fire(Happening.STOP)
        if slot.launching is not None:
            await asyncio.wait([slot.launching], timeout=within)
        process = slot.process
        if process is None:
            return
        self._send(slot.instance, protocol.Stop(reason=reason, within=within))
        for wait, number in ((within, signal.SIGTERM), (TERM_TIME, signal.SIGKILL)):
            if await self._ended(process, wait):
                return
            log.warning("worker did not stop: sending %s", number.name, extra=self._context(slot))
            process.send_signal(number)
        await self._ended(process, TERM_TIME)

    async def stop_all(self, reason: str, within: float = 3.0) -> None:
        """End all workers at once, each within its time."""
        await asyncio.gather(*(self.stop(camera, reason, within) for camera in list(self._slots)))
        for task in list(self._tasks):
            task.cancel()

    def abandon(self) -> None:
        """Stop watching and leave all workers running, for another supervisor to adopt."""
        for task in list(self._tasks):
            task.cancel()
        for slot in self._slots.values():
            if slot.process is not None:
                slot.process.forget()

    async def restart(self, camera: str, reason: str) -> None:
        """Replace a camera's worker."""
        slot = self._slots.get(camera)
        if slot is not None and slot.wanted:
            await self.stop(camera, reason)
            slot.policy.restarts += 1
            self.start(slot.template)

    # --- messages ----------------------------------------------------------------------------------------------

    def send(self, camera: str, message: FromSupervisor) -> bool:
        """Send to a camera's worker; False when it has none or cannot be reached."""
        slot = self._slots.get(camera)
        return slot is not None and slot.running and self._send(slot.instance, message)

    def on_message(self, instance: str, message: FromWorker) -> None:
        """Take a control message from the bus."""
        camera = self._by_instance.get(instance)
        if camera is None:
            self._stranger(instance, message)
            return
        slot = self._slots[camera]
        slot.seen_at = self._clock.now()
        if not slot.greeted and not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
        match message:
            case Hello():
                self._hello(slot, message)
            case protocol.Heartbeat():
                slot.state = message.state
            case protocol.StateChanged():
                slot.state = message.state
                self._listener.worker_message(camera, message)
            case protocol.StackDump():
                log.warning("stacks of worker:\n%s", message.text, extra=self._context(slot))
            case _:
                self._listener.worker_message(camera, message)

    def on_stats(self, stats: WorkerStats) -> None:
        """Take a stats report from the bus."""
        camera = self._by_instance.get(stats.instance)
        if camera is not None:
            slot = self._slots[camera]
            slot.stats, slot.stats_at, slot.seen_at = stats, self._clock.now(), self._clock.now()

    def _hello(self, slot: Slot, hello: Hello) -> None:
        if hello.protocol != protocol.PROTOCOL:
            log.error("worker speaks protocol %s: replacing it", hello.protocol, extra=self._context(slot))
            self._spawn(self.restart(slot.template.camera, "protocol version"))
            return
        if not slot.machine.can(Happening.HELLO):
            return
        slot.machine.fire(Happening.HELLO)
        slot.greeted = True
        slot.state = hello.state
        if not hello.preloaded:
            log.error("worker did not inherit the media stack: it uses more memory than it should")
        self._send(slot.instance, protocol.Welcome())
        self._listener.worker_ready(slot.template.camera, hello)

    def _stranger(self, instance: str, message: FromWorker) -> None:
        """A worker nobody started here: find out who it is, then adopt it or send it away."""
        if not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
            return
        slot = self._slots.get(message.camera)
        adoptable = slot is not None and slot.wanted and slot.machine.can(Happening.ADOPT)
        if slot is None or not adoptable or start_ticks(message.pid) != message.started:
            self._send(instance, protocol.Stop(reason="not wanted by this supervisor"))
            return
        slot.machine.fire(Happening.ADOPT)
        self._bind(slot, instance, self._launcher.adopt(message.pid))
        self._hello(slot, message)

    # --- processes ---------------------------------------------------------------------------------------------

    def _launch(self, slot: Slot) -> None:
        slot.machine.fire(Happening.LAUNCH)
        slot.state, slot.stats, slot.greeted = WorkerState.STARTING, None, False
        slot.seen_at = self._clock.now()
        slot.launching = self._spawn(self._start_process(slot))

    async def _start_process(self, slot: Slot) -> None:
        spec = dataclasses.replace(slot.template, instance=ids.instance_id(slot.template.camera))
        # Known before the process exists: its hello may overtake the launcher's answer.
        slot.instance = spec.instance
        self._by_instance[spec.instance] = spec.camera
        try:
            process = await self._launcher.start(spec)
        except (OSError, EOFError) as error:
            log.error("worker could not be started: %s", error, extra=self._context(slot))
            self._by_instance.pop(spec.instance, None)
            if slot.machine.can(Happening.GIVE_UP):
                slot.machine.fire(Happening.GIVE_UP)
                self._later(slot, f"could not be started: {error}")
            elif slot.machine.can(Happening.EXIT):
                slot.machine.fire(Happening.EXIT)
            return
        log.info("worker started", extra={**self._context(slot), "pid": process.pid})
        self._bind(slot, spec.instance, process)

    def _bind(self, slot: Slot, instance: str, process: WorkerProcess) -> None:
        slot.instance, slot.process, slot.seen_at = instance, process, self._clock.now()
        self._by_instance[instance] = slot.template.camera
        self._spawn(self._watch(slot, process, instance))

    async def _watch(self, slot: Slot, process: WorkerProcess, instance: str) -> None:
        """Until the process ends: see that it speaks; then see that it is replaced when it is still wanted."""
        ended = asyncio.ensure_future(process.wait())
        while not ended.done():
            patience = SILENCE if slot.greeted else HELLO_PATIENCE
            silence = self._clock.now() - slot.seen_at
            if silence > patience and slot.machine.can(Happening.SILENCE):
                slot.machine.fire(Happening.SILENCE)
                await self._take_down(slot, process, instance, silence)
            await asyncio.wait([ended], timeout=0.5)
        self._exited(slot, instance, ended.result())

    async def _take_down(self, slot: Slot, process: WorkerProcess, instance: str, silence: float) -> None:
        log.error("worker hangs: silent for %.1f s", silence, extra=self._context(slot))
        dump = stacks_file(self._runtime_dir, instance)
        process.send_signal(signal.SIGUSR1)
        if not await self._ended(process, DUMP_TIME):
            if dump.exists():
                log.error("stacks of the hung worker:\n%s", dump.read_text(errors="replace")[-8000:])
            process.send_signal(signal.SIGTERM)
            if not await self._ended(process, TERM_TIME):
                process.send_signal(signal.SIGKILL)

    def _exited(self, slot: Slot, instance: str, exit_: Exit) -> None:
        hung = slot.phase is Phase.HUNG
        self._by_instance.pop(instance, None)
        stacks_file(self._runtime_dir, instance).unlink(missing_ok=True)
        slot.process = None
        slot.last_exit = f"hung, {exit_}" if hung else str(exit_)
        wanted = slot.wanted
        slot.machine.fire(Happening.EXIT)
        level = logging.INFO if not wanted else logging.ERROR
        log.log(level, "worker %s", slot.last_exit, extra=self._context(slot))
        self._listener.worker_gone(slot.template.camera, instance, slot.last_exit)
        if slot.phase is Phase.BACKOFF:
            self._later(slot, slot.last_exit)

    def _later(self, slot: Slot, why: str) -> None:
        delay = slot.policy.died(self._clock.now())
        if delay:
            log.warning("worker %s: next start in %.1f s", why, delay, extra=self._context(slot))
        self._spawn(self._relaunch(slot, delay))

    async def _relaunch(self, slot: Slot, delay: float) -> None:
        if delay:
            await self._clock.sleep(delay)
        if slot.wanted and slot.phase is Phase.BACKOFF:
            self._launch(slot)

    @staticmethod
    async def _ended(process: WorkerProcess, within: float) -> bool:
        try:
            await asyncio.wait_for(process.wait(), within)
        except TimeoutError:
            return False
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fleet task failed", exc_info=error)

    @staticmethod
    def _context(slot: Slot) -> dict[str, str]:
        return {"camera": slot.template.name, "instance": slot.instance}
