"""All worker processes: one for each wanted camera, started, watched, replaced and stopped.

The fleet takes no decisions about streams: it keeps a process running for each camera it is given, passes that
process's messages up, and sends messages down. Its rules are in `slot.py` and `replacement.py`. Events of a worker come
from three sides: the bus (`on_message`, `on_stats`), the kernel (a process ends) and `tick`, which checks every slot's
deadline four times a second.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, Protocol

from relay_common import protocol
from relay_common.causes import RestartCause
from relay_common.clock import Clock
from relay_common.pauses import PauseDetector
from relay_common.protocol import FromSupervisor, FromWorker, Hello, WorkerState
from relay_common.tasks import Tasks
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.bus import BusListener
from relay_supervisor.fleet.ending import TERM_TIME
from relay_supervisor.fleet.keeper import CONTESTED, FleetListener, SlotKeeper
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.launcher import Launcher
from relay_supervisor.fleet.replacement import PairEvent
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import Phase, Slot, SlotEvent
from relay_worker.process import shared_stack
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

TICK: Final = 0.25
"""Seconds between checks of all slots' deadlines."""
OVER_LIMIT: Final = 3
"""Consecutive stats reports over the memory limit that get a worker replaced: a snapshot takes memory briefly."""
LATELY: Final = 60.0
"""Seconds after a worker that was lost from sight counts as ended in which its camera's stream may end for that."""
REPLACE_PAUSE: Final = 120.0
"""Shortest interval in seconds between replacements of a camera's worker because of its memory."""


class FleetBus(Protocol):
    """The bus as the fleet needs it; implemented by `relay_supervisor.fleet.bus.Bus`."""

    keyring: Keyring

    @property
    def reading(self) -> bool: ...

    def send(self, instance: str, message: FromSupervisor) -> bool: ...

    def listen(self, listener: BusListener) -> None: ...


class Fleet:
    """Keeps one worker running for each wanted camera; `memory_limit` is in bytes of resident set, 0: none.

    `run` must be running. While the bus is not being read, no worker's silence counts.
    """

    def __init__(
        self,
        launcher: Launcher,
        bus: FleetBus,
        clock: Clock,
        policy: Callable[[], RestartPolicy] = RestartPolicy,
        memory_limit: int = 0,
        commands: Callable[[], bool] = lambda: True,
    ) -> None:
        self._launcher, self._bus, self._send, self._clock = launcher, bus, bus.send, clock
        self._policy, self._memory_limit = policy, memory_limit
        self.keyring = bus.keyring
        self._keeper = SlotKeeper(launcher, bus.send, clock, bus.keyring, commands)
        self._slots, self._by_instance = self._keeper.slots, self._keeper.by_instance
        self._tasks = Tasks(log, "fleet task failed")
        self._pauses = PauseDetector(TICK)
        self._ticked_at = clock.now()
        self._back_at = math.inf
        self._abandoned = False
        self._announced: set[tuple[str, str]] = set()
        self._left: dict[str, str] = {}
        """Refs of the workers that an earlier supervisor left, by instance."""
        self._inherited: dict[str, float] = {}
        """Until when a camera is contested, from an earlier supervisor."""
        self._for_all: FromSupervisor | None = None
        self._life = secrets.token_hex(8)
        """What workers know this one by, and not an earlier or later one."""
        self.cameras_known = False
        """Until all cameras are known, workers of an earlier supervisor are left alone."""
        bus.listen(self)

    def listen(self, listener: FleetListener) -> None:
        """Pass workers' events to `listener`."""
        self._keeper.listener = listener

    def tell(self, message: FromSupervisor) -> None:
        """Send `message` to every worker, to later ones after their hello; it takes the place of an earlier one."""
        self._for_all = message
        for instance, slot in self._by_instance.items():
            if slot.running:
                self._send(instance, message)

    # --- wanted and unwanted -----------------------------------------------------------------------------------

    def slot(self, camera: str) -> Slot | None:
        """The slot of a camera's worker, if there is one."""
        return self._slots.get(camera)

    def live_stats(self, camera: str) -> WorkerStats | None:
        """The newest report of a camera's worker, while it is live."""
        slot = self._slots.get(camera)
        return slot.stats if slot is not None and slot.running and slot.state is WorkerState.LIVE else None

    def start(self, template: WorkerSpec) -> None:
        """Keep a worker running for `template.camera` from now on; its `instance` is filled in at each launch."""
        slot = self._slots.get(template.camera)
        if slot is None:
            slot = self._slots[template.camera] = Slot(template, self._policy(), self._clock.now())
        for one in _pair(slot):
            one.template, one.wanted = template, True
        if slot.phase is Phase.ABSENT:
            self._keeper.launch(slot)

    def left(self, refs: Mapping[str, str]) -> list[str]:
        """Take note of the workers that an earlier supervisor left, refs by instance.

        Returns those that live, the oldest first.
        """
        living = self._launcher.living(refs)
        self._left = {instance: refs[instance] for instance in living}
        return living

    def ref(self, instance: str) -> str:
        """What its launcher knows a watched worker by; "" for any other."""
        slot = self._by_instance.get(instance)
        return slot.process.ref if slot is not None and slot.process is not None else ""

    def expect(self, template: WorkerSpec, instance: str) -> bool:
        """Adopt a worker of an earlier supervisor (`left`), if it still lives."""
        ref = self._left.get(instance, "")
        slot = Slot(template, self._policy(), self._clock.now())
        try:
            if not ref or not self._keeper.adopt(slot, instance, ref):
                return False
        except OSError as error:
            # Starting a second one would cut off the first one's stream.
            log.error("worker cannot be watched yet: %s", error.strerror, extra=slot.context)
            self._keeper.await_hello(slot, instance, ref)
        self._slots[template.camera] = slot
        self._send(instance, protocol.Identify())  # it may have said hello before its camera was known here
        return True

    def stop(self, camera: str, reason: str, within: float = 3.0) -> Awaitable[None]:
        """End a camera's worker and keep it ended until `start` is called.

        The result completes when it is gone, or a little after its time has run out.
        """
        slot = self._slots.get(camera)
        both = list(_pair(slot)) if slot is not None else []
        for one in both:
            one.wanted = False
            self._keeper.ask_to_stop(one, reason, within)
        return self._tasks.spawn(_all_ended(both, within + 2 * TERM_TIME + 4 * TICK))

    async def stop_all(self, reason: str, within: float = 3.0) -> None:
        """End all workers at once, each in `within` seconds."""
        await asyncio.gather(*(self.stop(camera, reason, within) for camera in list(self._slots)))
        self._tasks.cancel()
        self._keeper.cancel_launches()

    def abandon(self) -> None:
        """Stop watching and leave all workers running, for another supervisor to adopt."""
        self._abandoned = True
        self._tasks.cancel()
        self._keeper.abandon()

    async def restart(self, camera: str, reason: str) -> None:
        """Replace a camera's worker: the old one ends first."""
        slot = self._slots.get(camera)
        if slot is not None and slot.wanted:
            ended = self.stop(camera, reason)
            slot.policy.restarts += 1
            self.start(slot.template)  # as soon as the old one is gone, unless it is stopped meanwhile
            await ended

    def replace(self, camera: str, reason: str, cause: RestartCause = RestartCause.OTHER) -> None:
        """Replace a camera's worker: the new one is started first, and plays once the old one has released the camera.

        Google serves a stream to one client at a time, so the picture pauses while the new worker connects, but not
        while it starts, and not at all if it does not start.
        """
        slot = self._slots.get(camera)
        if slot is None or not slot.running or slot.replacement is not None:
            return
        self._keeper.replace(slot, reason, cause)

    # --- messages ----------------------------------------------------------------------------------------------

    def send(self, camera: str, message: FromSupervisor) -> bool:
        """Send to a camera's worker; False when it has none, or one that cannot be reached or has not said hello.

        What an adopted one plays is known by its hello: told to play that stream, it would connect to the camera anew.
        """
        slot = self._slots.get(camera)
        known = slot is not None and slot.phase is Phase.RUNNING and slot.hello is not None
        return slot is not None and known and self._send(slot.instance, message)

    def contested(self, camera: str) -> float:
        """Seconds for which an earlier worker, lost from sight, may play a camera's stream; negative soon after."""
        left = self._contested_until(camera) - self._clock.now()
        return left if left > -CONTESTED else 0.0

    def lost_lately(self, camera: str) -> bool:
        """Whether a worker of a camera's was lost from sight within the last minute, with its machine."""
        return self._clock.now() - self._contested_until(camera) < LATELY

    def inherit(self, camera: str, seconds: float) -> None:
        """Take over from an earlier supervisor for how long a camera is contested."""
        if seconds > 0:
            until = self._clock.now() + min(seconds, CONTESTED)
            self._inherited[camera] = max(until, self._contested_until(camera))

    def _contested_until(self, camera: str) -> float:
        slot = self._slots.get(camera)
        return max(slot.contested_until if slot is not None else -math.inf, self._inherited.get(camera, -math.inf))

    def permit(self, camera: str, port: int) -> bool:
        """Whether a camera's worker may connect to TCP port `port`.

        If not, one that may replaces it, and `worker_ready` follows.
        """
        slot = self._slots.get(camera)
        allowed = slot.hello.tcp_ports if slot is not None and slot.hello is not None else None
        if slot is None or allowed is None or port in allowed:
            return True
        known = slot.template.tcp_ports
        if slot.replacement is None and known is not None and port not in known:
            slot.template = dataclasses.replace(slot.template, tcp_ports=(*known, port))
            self.replace(camera, f"stream at TCP port {port}, to which its confinement allows no connection")
        return slot.replacement is None

    def on_message(self, instance: str, message: FromWorker) -> None:
        """Handle a control message from the bus."""
        slot = self._by_instance.get(instance)
        if slot is None:
            self._stranger(instance, message)
            return
        self._heard(slot)
        if slot.hello is None and not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
        match message:
            case Hello():
                self._hello(slot, message)
            case protocol.Heartbeat():
                slot.state = message.state
            case protocol.StateChanged():
                slot.state = message.state
                self._keeper.listener.worker_message(slot.camera, message)
            case protocol.StackDump():
                log.warning("tasks of the worker:\n%s", message.text, extra=slot.context)
            case protocol.Goodbye():
                slot.farewell = slot.farewell or message.reason
            case _:
                self._keeper.listener.worker_message(slot.camera, message)

    def on_stats(self, stats: WorkerStats) -> None:
        """Handle a stats report from the bus."""
        slot = self._by_instance.get(stats.instance)
        if slot is None:
            return
        now = self._heard(slot)
        slot.stats, slot.stats_at = stats, now
        over = 0 < self._memory_limit < stats.rss
        slot.over_limit = slot.over_limit + 1 if over else 0
        if slot.over_limit >= OVER_LIMIT and now - slot.replaced_at >= REPLACE_PAUSE:
            taken, allowed = stats.rss / 2**20, self._memory_limit / 2**20
            reason = f"memory of {taken:.0f} MiB, over its limit of {allowed:.0f}"
            self.replace(slot.camera, reason, RestartCause.MEMORY)

    def _heard(self, slot: Slot) -> float:
        """A worker has spoken; returns the time."""
        slot.seen_at = now = self._clock.now()
        if slot.process is not None:
            self._launcher.heard(slot.process)
        return now

    def _hello(self, slot: Slot, hello: Hello) -> None:
        if hello.protocol != protocol.PROTOCOL:
            self._keeper.turn_away(slot, hello.protocol)
            return
        if not slot.machine.can(SlotEvent.HELLO):
            return
        slot.machine.fire(SlotEvent.HELLO)
        slot.hello, slot.state = hello, hello.state
        if not hello.preloaded and not self._launcher.remote:
            log.error("worker did not inherit the media stack: it uses more memory than it should", extra=slot.context)
        self._say_once("confinement of workers: %s", hello.confinement, hello.confinement.startswith("none"))
        self._say_once("objects that workers share: %s", hello.immortal_objects)
        failed = hello.rehearsal not in ("", shared_stack.REHEARSED)
        self._say_once("a worker's life before the first one is started: %s", hello.rehearsal, failed)
        self._send(slot.instance, protocol.Welcome(reports=True, beats=self._launcher.remote, supervisor=self._life))
        if self._for_all is not None:
            self._send(slot.instance, self._for_all)
        if slot.replacement is not None and slot.replaces:
            slot.replacement.fire(PairEvent.HELLO)
            self._keeper.ask_to_stop(slot.replacement.predecessor, "another worker takes over", 3.0)
        else:
            self._keeper.tell_ready(slot)

    def _say_once(self, text: str, words: str, weak: bool = False) -> None:
        """Log what workers say of themselves, unless one has said the same before; nothing where they say nothing."""
        if words and (text, words) not in self._announced:
            self._announced.add((text, words))
            log.log(logging.WARNING if weak else logging.INFO, text, words)

    def _stranger(self, instance: str, message: FromWorker) -> None:
        """Identify a worker that was not started here, then adopt it or tell it to stop."""
        if not isinstance(message, Hello):
            self._send(instance, protocol.Identify())
            return
        slot = self._slots.get(message.camera)
        if slot is None and not self.cameras_known:
            return
        ref = self._left.get(instance, "")
        adoptable = bool(ref) and slot is not None and slot.wanted and slot.machine.can(SlotEvent.ADOPT)
        try:
            if slot is not None and adoptable and self._keeper.adopt(slot, instance, ref):
                self._hello(slot, message)
                return
        except OSError as error:  # it says hello again
            log.error("worker cannot be adopted: %s", error.strerror, extra={"instance": instance})
            return
        self._send(instance, protocol.Stop(reason="not wanted by this supervisor"))

    # --- time --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Check every slot's deadline four times a second, until cancelled."""
        while True:
            self.tick(self._clock.now())
            await self._clock.sleep(TICK)

    def tick(self, now: float) -> None:
        """Handle what is due in any slot; `now` is the clock's.

        After this process was suspended, no worker is judged before the next tick: messages sent meanwhile are read
        first. Workers without one are asked to identify themselves.
        """
        if self._abandoned:
            return
        since, self._ticked_at = now - self._ticked_at, now
        if away := self._pauses.observe(now):
            log.warning("the supervisor was suspended for %.1f s, which counts against no worker", away)
            self._back_at = now
            for slot in self._all():
                slot.put_off(away)
            return
        back, self._back_at = self._back_at, math.inf
        for slot in self._all():
            if not self._bus.reading:
                slot.put_off(since)
            if slot.seen_at <= back < math.inf and slot.running:
                self._send(slot.instance, protocol.Identify())
            try:
                self._keeper.look(slot, now)
            except Exception:
                # One camera's failure must not keep the others from being checked.
                log.exception("checking a worker failed", extra=slot.context)

    def _all(self) -> Iterator[Slot]:
        for slot in list(self._slots.values()):
            yield from _pair(slot)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self._pauses.counters()


def _pair(slot: Slot) -> Iterator[Slot]:
    """The camera's worker, and its replacement if there is one."""
    yield slot
    if slot.replacement is not None:
        yield slot.replacement.successor


async def _all_ended(slots: list[Slot], within: float) -> None:
    if slots:
        waiting = [asyncio.ensure_future(slot.ended.wait()) for slot in slots]
        try:
            await asyncio.wait(waiting, timeout=within)
        finally:
            for one in waiting:
                one.cancel()
