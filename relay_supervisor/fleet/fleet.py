"""All worker processes: one for each wanted camera, started, watched, replaced and stopped.

The fleet decides nothing about streams: it keeps a process running for each camera it is told to, hands that
process's messages up, and sends messages down.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from relay_common import ids, protocol
from relay_common.clock import Clock
from relay_common.proc import start_ticks
from relay_common.protocol import FromSupervisor, FromWorker, Hello, WorkerState, WorkerStats
from relay_common.tasks import Tasks
from relay_supervisor.fleet.ending import end, take_down
from relay_supervisor.fleet.handle import Exit, WorkerProcess
from relay_supervisor.fleet.launcher import Launcher
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import Happening, Phase, Slot
from relay_worker.process.entry import stacks_file
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

SILENCE: Final = 4.0
"""Seconds without any message after which a worker counts as hung (a beat comes every second)."""
HELLO_PATIENCE: Final = 20.0
"""Seconds a new process may take to say hello, on a machine that starts twenty of them at once."""
OVER_LIMIT: Final = 3
"""Stats reports in a row over the memory limit after which a worker is replaced: a snapshot takes some for a moment."""
REPLACE_PAUSE: Final = 120.0
"""Least seconds between two replacements of a camera's worker for its memory."""


class FleetListener(Protocol):
    """Who is told what happens to workers."""

    def worker_ready(self, camera: str, hello: Hello) -> None:
        """A worker, new or adopted, has said hello."""

    def worker_message(self, camera: str, message: FromWorker) -> None:
        """A worker said something else."""

    def worker_gone(self, camera: str, instance: str, reason: str) -> None:
        """A worker ended, wanted or not."""


class Fleet:
    """Keeps one worker running for each wanted camera; `memory_limit` is in bytes of resident set, 0: none."""

    def __init__(
        self,
        launcher: Launcher,
        send: Callable[[str, FromSupervisor], bool],
        listener: FleetListener,
        clock: Clock,
        runtime_dir: Path,
        policy: Callable[[], RestartPolicy] = RestartPolicy,
        memory_limit: int = 0,
    ) -> None:
        self._launcher, self._send, self._listener, self._clock = launcher, send, listener, clock
        self._runtime_dir, self._policy, self._memory_limit = runtime_dir, policy, memory_limit
        self._slots: dict[str, Slot] = {}
        self._by_instance: dict[str, Slot] = {}
        self._tasks = Tasks(log, "fleet task failed")
        self.cameras_known = False
        """Until all cameras are known, workers of an earlier supervisor are left alone."""

    # --- wanted and unwanted -----------------------------------------------------------------------------------

    def slot(self, camera: str) -> Slot | None:
        """What is known about a camera's worker."""
        return self._slots.get(camera)

    def start(self, template: WorkerSpec) -> None:
        """Keep a worker running for `template.camera` from now on; its `instance` is filled in at each launch."""
        slot = self._slots.get(template.camera)
        if slot is None:
            slot = self._slots[template.camera] = Slot(template, self._policy(), self._clock.now())
        for one in (slot, slot.successor):
            if one is not None:
                one.template, one.wanted = template, True
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
        self._bind(slot, instance, process)
        return True

    def stop(self, camera: str, reason: str, within: float = 3.0) -> Awaitable[None]:
        """End a camera's worker and keep it ended until `start` says otherwise; it is gone when the result is done."""
        slot = self._slots.get(camera)
        both = [one for one in (slot, slot.successor) if one is not None] if slot is not None else []
        for one in both:
            one.wanted = False
            if one.machine.can(Happening.STOP):
                one.machine.fire(Happening.STOP)
        return self._tasks.spawn(self._end_all(both, reason, within))

    async def stop_all(self, reason: str, within: float = 3.0) -> None:
        """End all workers at once, each within its time."""
        await asyncio.gather(*(self.stop(camera, reason, within) for camera in list(self._slots)))
        self._tasks.cancel()

    def abandon(self) -> None:
        """Stop watching and leave all workers running, for another supervisor to adopt."""
        self._tasks.cancel()
        for slot in self._by_instance.values():
            if slot.process is not None:
                slot.process.forget()

    async def restart(self, camera: str, reason: str) -> None:
        """Replace a camera's worker: the old one ends first."""
        slot = self._slots.get(camera)
        if slot is not None and slot.wanted:
            ended = self.stop(camera, reason)
            slot.policy.restarts += 1
            self.start(slot.template)  # as soon as the old one is gone, unless somebody stops it meanwhile
            await ended

    def replace(self, camera: str, reason: str) -> None:
        """Replace a camera's worker: the new one is started first, and plays when the old one has let go of the camera.

        Google serves a stream to one client at a time, so the picture pauses for as long as the new worker takes to
        connect; but not for its start, and not at all when it does not start.
        """
        slot = self._slots.get(camera)
        if slot is None or not slot.running or slot.successor is not None:
            return
        log.warning("worker is replaced: %s", reason, extra=slot.context)
        slot.replaced_at = self._clock.now()
        slot.last_exit = reason
        slot.successor = successor = Slot(slot.template, slot.policy, slot.replaced_at)
        successor.predecessor = slot
        self._launch(successor)

    async def _end_all(self, slots: list[Slot], reason: str, within: float) -> None:
        await asyncio.gather(*(self._end(slot, reason, within) for slot in slots))

    async def _end(self, slot: Slot, reason: str, within: float = 3.0) -> None:
        if slot.machine.can(Happening.STOP):
            slot.machine.fire(Happening.STOP)
        if slot.launching is not None:
            await asyncio.wait([slot.launching], timeout=within)
        if slot.process is not None:
            self._send(slot.instance, protocol.Stop(reason=reason, within=within))
            await end(slot.process, within, slot.context)

    # --- messages ----------------------------------------------------------------------------------------------

    def send(self, camera: str, message: FromSupervisor) -> bool:
        """Send to a camera's worker; False when it has none or cannot be reached."""
        slot = self._slots.get(camera)
        return slot is not None and slot.running and self._send(slot.instance, message)

    def on_message(self, instance: str, message: FromWorker) -> None:
        """Take a control message from the bus."""
        slot = self._by_instance.get(instance)
        if slot is None:
            self._stranger(instance, message)
            return
        slot.seen_at = self._clock.now()
        if slot.hello is None and not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
        match message:
            case Hello():
                self._hello(slot, message)
            case protocol.Heartbeat():
                slot.state = message.state
            case protocol.StateChanged():
                slot.state = message.state
                self._listener.worker_message(slot.camera, message)
            case protocol.StackDump():
                log.warning("stacks of worker:\n%s", message.text, extra=slot.context)
            case _:
                self._listener.worker_message(slot.camera, message)

    def on_stats(self, stats: WorkerStats) -> None:
        """Take a stats report from the bus."""
        slot = self._by_instance.get(stats.instance)
        if slot is None:
            return
        now = self._clock.now()
        slot.stats, slot.stats_at, slot.seen_at = stats, now, now
        over = 0 < self._memory_limit < stats.rss
        slot.over_limit = slot.over_limit + 1 if over else 0
        if slot.over_limit >= OVER_LIMIT and now - slot.replaced_at >= REPLACE_PAUSE:
            taken, allowed = stats.rss / 2**20, self._memory_limit / 2**20
            self.replace(slot.camera, f"memory of {taken:.0f} MiB, over its limit of {allowed:.0f}")

    def _hello(self, slot: Slot, hello: Hello) -> None:
        if hello.protocol != protocol.PROTOCOL:
            log.error("worker speaks protocol %s: replacing it", hello.protocol, extra=slot.context)
            self._tasks.spawn(self.restart(slot.camera, "protocol version"))
            return
        if not slot.machine.can(Happening.HELLO):
            return
        slot.machine.fire(Happening.HELLO)
        slot.hello, slot.state = hello, hello.state
        if not hello.preloaded:
            log.error("worker did not inherit the media stack: it uses more memory than it should")
        self._send(slot.instance, protocol.Welcome())
        if slot.predecessor is None:
            self._listener.worker_ready(slot.camera, hello)
        else:
            self._tasks.spawn(self._end(slot.predecessor, "another worker takes over"))

    def _stranger(self, instance: str, message: FromWorker) -> None:
        """A worker nobody started here: find out who it is, then adopt it or send it away."""
        if not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
            return
        slot = self._slots.get(message.camera)
        if slot is None and not self.cameras_known:
            return
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
        slot.state, slot.stats, slot.hello, slot.over_limit = WorkerState.STARTING, None, None, 0
        slot.seen_at = self._clock.now()
        slot.launching = self._tasks.spawn(self._start_process(slot))

    async def _start_process(self, slot: Slot) -> None:
        spec = dataclasses.replace(slot.template, instance=ids.instance_id(slot.camera))
        # Known before the process exists: its hello may overtake the launcher's answer.
        slot.instance = spec.instance
        self._by_instance[spec.instance] = slot
        try:
            process = await self._launcher.start(spec)
        except (OSError, EOFError) as error:
            log.error("worker could not be started: %s", error, extra=slot.context)
            self._by_instance.pop(spec.instance, None)
            slot.machine.fire(Happening.GIVE_UP if slot.machine.can(Happening.GIVE_UP) else Happening.EXIT)
            self._gone(slot, f"could not be started: {error}")
            return
        log.info("worker started", extra={**slot.context, "pid": process.pid})
        self._bind(slot, spec.instance, process)

    def _bind(self, slot: Slot, instance: str, process: WorkerProcess) -> None:
        slot.instance, slot.process, slot.seen_at = instance, process, self._clock.now()
        self._by_instance[instance] = slot
        self._tasks.spawn(self._watch(slot, process, instance))

    async def _watch(self, slot: Slot, process: WorkerProcess, instance: str) -> None:
        """Until the process ends: see that it speaks; then see that it is replaced when it is still wanted."""
        ended = asyncio.ensure_future(process.wait())
        while not ended.done():
            patience = SILENCE if slot.hello is not None else HELLO_PATIENCE
            silence = self._clock.now() - slot.seen_at
            if silence > patience and slot.machine.can(Happening.SILENCE):
                slot.machine.fire(Happening.SILENCE)
                log.error("worker hangs: silent for %.1f s", silence, extra=slot.context)
                await take_down(process, stacks_file(self._runtime_dir, instance), slot.context)
            await asyncio.wait([ended], timeout=0.5)
        self._exited(slot, instance, ended.result())

    def _exited(self, slot: Slot, instance: str, exit_: Exit) -> None:
        self._by_instance.pop(instance, None)
        stacks_file(self._runtime_dir, instance).unlink(missing_ok=True)
        slot.process = None
        asked = slot.phase is Phase.STOPPING
        words = f"hung{slot.whereabouts}, {exit_}" if slot.phase is Phase.HUNG else f"{exit_}{slot.whereabouts}"
        slot.machine.fire(Happening.EXIT)
        log.log(logging.INFO if asked else logging.ERROR, "worker %s", words, extra=slot.context)
        if slot.predecessor is not None:
            self._part(slot)  # it never took over: the old one goes on
            return
        if slot.successor is None or not asked:
            slot.last_exit = str(exit_) if asked else words
        self._gone(slot, slot.last_exit)
        self._listener.worker_gone(slot.camera, instance, slot.last_exit)
        if slot.successor is not None:
            self._promote(slot, slot.successor)

    def _gone(self, slot: Slot, why: str) -> None:
        """A slot has no process any more: start another, now or later, when one is wanted."""
        if slot.predecessor is not None:
            self._part(slot)
        elif slot.successor is not None:
            return
        elif slot.phase is Phase.BACKOFF:
            now = self._clock.now()
            delay = slot.policy.died(now, why)
            slot.last_exit, slot.next_start = slot.policy.words(now), now + delay
            if delay:
                log.warning("worker %s: next start in %.1f s", slot.last_exit, delay, extra=slot.context)
            self._tasks.spawn(self._relaunch(slot, delay))
        elif slot.wanted:
            self._launch(slot)  # it was wanted again while it stopped

    def _promote(self, slot: Slot, successor: Slot) -> None:
        """The successor is the camera's worker from now on."""
        self._part(successor)
        self._slots[slot.camera] = successor
        successor.last_exit, successor.replaced_at = slot.last_exit, slot.replaced_at
        successor.policy.restarts += 1
        if successor.hello is not None and successor.running:
            self._listener.worker_ready(successor.camera, successor.hello)

    @staticmethod
    def _part(successor: Slot) -> None:
        assert successor.predecessor is not None
        successor.predecessor.successor = None
        successor.predecessor = None

    async def _relaunch(self, slot: Slot, delay: float) -> None:
        if delay:
            await self._clock.sleep(delay)
        if slot.wanted and slot.phase is Phase.BACKOFF:
            self._launch(slot)
