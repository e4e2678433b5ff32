"""The process of a slot: launched, adopted, monitored, ended, followed by another.

The half of the fleet that deals with processes and deadlines; its rules are in `slot.py` and `replacement.py`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Final, Protocol

from relay_common import ids, protocol
from relay_common.beat_messages import BEAT, SupervisorBeat
from relay_common.causes import RestartCause
from relay_common.clock import Clock
from relay_common.protocol import FromSupervisor, FromWorker, Hello
from relay_common.spoken import spoken
from relay_common.tasks import Tasks
from relay_supervisor.fleet.compiled_trust import may_be_compiled
from relay_supervisor.fleet.ending import TERM_TIME, Step, Termination, log_stacks
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.launcher import EngineError, Handle, Launcher
from relay_supervisor.fleet.replacement import PairEvent, Replacement
from relay_supervisor.fleet.silent_nodes import silent_node
from relay_supervisor.fleet.slot import Phase, Slot, SlotEvent
from relay_worker.process.spec import WorkerSpec

log = logging.getLogger(__name__)

SILENCE: Final = 4.0
"""Seconds without any message after which a worker counts as hung (a beat comes every second)."""
HELLO_TIMEOUT: Final = 20.0
"""Seconds a new process may take to say hello, even on a machine that starts twenty of them at once."""
HELLO_TIMEOUT_ELSEWHERE: Final = 60.0
"""The same on another machine, where nobody can tell a hung one from one that is given no processor."""
MOST_QUEUED: Final = 5.0
"""Most that a silent worker is granted for lack of a processor, as a multiple of its timeout."""
LAUNCH_TIMEOUT: Final = 150.0
"""Seconds for the launcher to start a process or report failure; it serves one camera after another."""
STOP_TIME: Final = 3.0
"""Seconds for a worker of another version to end in order."""
CONTESTED: Final = 10.0
"""Seconds from the last word of a worker elsewhere until it counts as ended where nobody can tell."""
ADOPT_TIMEOUT: Final = 10.0
"""Seconds between attempts to watch a worker that could not be watched, unless its hello comes first."""
_LAUNCHING: Final = (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)
"""Phases in which the launcher may not have answered yet: a hello may overtake its answer."""


class FleetListener(Protocol):
    """Receiver of workers' events."""

    def worker_started(self, camera: str, instance: str, ref: str) -> None:
        """A worker was started, which its launcher knows by `ref`; `worker_ready` is yet to come."""

    def worker_ready(self, camera: str, hello: Hello) -> None:
        """A worker, new or adopted, is watched and has said hello; told again when it says so again."""

    def worker_message(self, camera: str, message: FromWorker) -> None:
        """A worker sent another message."""

    def worker_gone(self, camera: str, instance: str, reason: str, cause: RestartCause) -> None:
        """A worker ended, wanted or not."""


class NullListener:
    """The listener until another one is set."""

    def worker_started(self, camera: str, instance: str, ref: str) -> None:
        pass

    def worker_ready(self, camera: str, hello: Hello) -> None:
        pass

    def worker_message(self, camera: str, message: FromWorker) -> None:
        pass

    def worker_gone(self, camera: str, instance: str, reason: str, cause: RestartCause) -> None:
        pass


class SlotKeeper:
    """Moves slots along their table. `slots` holds each camera's by its id, `by_instance` those with a process."""

    def __init__(
        self,
        launcher: Launcher,
        send: Callable[[str, FromSupervisor], bool],
        clock: Clock,
        keyring: Keyring,
        commands: Callable[[], bool] = lambda: True,
    ) -> None:
        self._launcher, self._send, self._clock, self._keyring = launcher, send, clock, keyring
        self._commands = commands
        self.listener: FleetListener = NullListener()
        self._launches = Tasks(log, "launching a worker failed")
        self.slots: dict[str, Slot] = {}
        self.by_instance: dict[str, Slot] = {}

    # --- deadlines ---------------------------------------------------------------------------------------------

    def look(self, slot: Slot, now: float) -> None:
        """Handle what is due in the slot (rule 2 of `slot.py`)."""
        if slot.process is not None and not slot.alive:
            self._exited(slot)
            return
        if self._launcher.remote and slot.running and now - slot.beaten_at >= BEAT and self._commands():
            slot.beaten_at = now
            self._send(slot.instance, SupervisorBeat())
        match slot.phase:
            case Phase.STARTING | Phase.RUNNING | Phase.STOPPING if slot.process is None:
                if now - slot.launched_at > LAUNCH_TIMEOUT:
                    self._give_up(slot, f"not started within {LAUNCH_TIMEOUT:.0f} s")
            case Phase.STARTING | Phase.RUNNING if slot.waits:
                slot.seen_at = now  # it has its time for a hello once it runs
            case Phase.RUNNING if slot.taken_away and slot.replacement is None and slot.wanted:
                slot.succeeded = slot.process  # one successor, whatever becomes of it; then as after any end
                self.replace(slot, f"its engine ends it{slot.engine_words}", RestartCause.TAKEN_AWAY)
            case Phase.STARTING:
                self._listen(slot, HELLO_TIMEOUT_ELSEWHERE if self._launcher.remote else HELLO_TIMEOUT, now)
            case Phase.RUNNING:
                # An adopted worker may not know yet that this supervisor exists.
                self._listen(slot, SILENCE if slot.hello is not None else HELLO_TIMEOUT, now)
            case Phase.HUNG | Phase.STOPPING if slot.ending is not None:
                if (step := slot.ending.due(now)) is not None:
                    self._end(slot, step)
            case Phase.BACKOFF if slot.wanted and now >= slot.next_start:
                if slot.survivor is None or not self._watch_again(slot, *slot.survivor):
                    self.launch(slot)

    def _listen(self, slot: Slot, timeout: float, now: float) -> None:
        silence = now - slot.seen_at
        if silence <= timeout / 2:  # so that of a healthy worker nothing is read
            return
        queued = min(slot.queued(), MOST_QUEUED * timeout)
        if silence - queued > timeout:
            slot.machine.fire(SlotEvent.SILENCE)
            waited = f", {queued:.1f} s of them for lack of a processor" if queued >= 1.0 else ""
            log.error("worker hangs: silent for %.1f s%s", silence, waited, extra=slot.context)
            hung = Termination.of_hung_elsewhere if self._launcher.remote else Termination.of_hung
            slot.ending = hung(now)
            assert slot.process is not None
            self._launcher.suspect(slot.process)
            self.look(slot, now)

    def turn_away(self, slot: Slot, version: int) -> None:
        """End a worker that speaks another version of the bus: it follows as after a death, later each time.

        The one after it may be of that version, too: a template or an image may name another release.
        """
        if slot.process is None or not slot.machine.can(SlotEvent.OTHER_VERSION):
            return  # it is not watched yet, and says hello again; or it is being ended already
        slot.machine.fire(SlotEvent.OTHER_VERSION)
        slot.farewell = f"it speaks version {version} of the bus, and this supervisor {protocol.PROTOCOL}"
        log.error("worker is ended: %s", slot.farewell, extra=slot.context)
        slot.ending = Termination.of_asked(self._clock.now(), STOP_TIME)
        self._send(slot.instance, protocol.Stop(reason=slot.farewell, within=STOP_TIME))

    def _end(self, slot: Slot, step: Step) -> None:
        """Carry out the next step of ending a process."""
        assert slot.process is not None
        match step:
            case Step.DUMP:
                self._send(slot.instance, protocol.DumpStacks())
                slot.process.dump()
            case Step.TERM:
                if slot.phase is Phase.HUNG:
                    log_stacks(slot.process, slot.context)
                else:
                    log.warning("worker did not stop: sending SIGTERM", extra=slot.context)
                slot.process.ask_to_end(TERM_TIME)
                if self._launcher.remote:  # its engine may not reach it, and the line to it may be mended any moment
                    self._send(slot.instance, protocol.Stop(reason="it was silent for too long", within=TERM_TIME))
            case Step.KILL:
                log.warning("worker did not end: sending SIGKILL", extra=slot.context)
                slot.process.end_now()
            case Step.GIVE_UP:
                self._give_up(slot, "cannot be killed")

    # --- processes ---------------------------------------------------------------------------------------------

    def launch(self, slot: Slot) -> None:
        """Start a process in the slot."""
        instance = ids.instance_id(slot.camera)
        keys = self._keyring.issue(instance, slot.camera)
        spec = dataclasses.replace(slot.template, instance=instance, keys=keys)
        if slot.policy.trust.lost:
            spec = dataclasses.replace(spec, data_path="python")
        slot.launch(spec.instance, self._clock.now())
        # Known before the process exists: its hello may overtake the launcher's answer.
        self.by_instance[spec.instance] = slot
        self._launches.spawn(self._start_process(slot, spec))

    def replace(self, slot: Slot, reason: str, cause: RestartCause) -> None:
        """Start the successor of the slot's worker, which goes on until that is up (`replacement.py`)."""
        log.warning("worker is replaced: %s", reason, extra=slot.context)
        slot.replaced_at = self._clock.now()
        slot.last_exit, slot.planned = reason, cause
        successor = Slot(slot.template, slot.policy, slot.replaced_at)
        slot.replacement = successor.replacement = Replacement(slot, successor)
        self.launch(successor)

    async def _start_process(self, slot: Slot, spec: WorkerSpec) -> None:
        try:
            process = await self._launcher.start(spec)
        except Exception as error:  # whatever the error, there is no process
            if slot.instance == spec.instance and slot.process is None and slot.phase in _LAUNCHING:
                why = str(error) if isinstance(error, EngineError) else spoken(error)
                self._give_up(slot, f"could not be started: {why}")
            return
        if slot.instance != spec.instance or slot.process is not None or slot.phase not in _LAUNCHING:
            log.warning("worker appeared after it had been given up: ending it", extra=slot.context)
            if slot.process is None or slot.process.ref != process.ref:
                process.end_now()
            process.forget()
            return
        log.info("worker started", extra={**slot.context, "pid": process.number})
        self._bind(slot, spec.instance, process)
        self.listener.worker_started(slot.camera, spec.instance, process.ref)
        if slot.phase is Phase.STOPPING:
            slot.ending = Termination.of_asked(self._clock.now(), 0.0)
        elif not slot.replaces:  # else it is ready when the one before it has ended
            self.tell_ready(slot)

    def tell_ready(self, slot: Slot) -> None:
        """Tell of a worker that has said hello, once it is watched: its stream must not be lost with its supervisor."""
        if slot.running and slot.hello is not None:
            self.listener.worker_ready(slot.camera, slot.hello)

    def adopt(self, slot: Slot, instance: str, ref: str) -> bool:
        """Adopt a worker by its ref; False when it has ended. Raises OSError when it cannot be watched at present."""
        process = self._launcher.recall(instance, ref)
        if process is None:
            return False
        slot.machine.fire(SlotEvent.ADOPT)
        self._bind(slot, instance, process)
        return True

    def await_hello(self, slot: Slot, instance: str, ref: str) -> None:
        """Wait for the hello of a live process that cannot be watched: it is another chance to adopt it."""
        now = self._clock.now()
        slot.launch("", now)
        slot.machine.fire(SlotEvent.GIVE_UP)
        slot.unbind()
        slot.survivor = instance, ref
        slot.next_start = now + ADOPT_TIMEOUT

    def _watch_again(self, slot: Slot, instance: str, ref: str) -> bool:
        """Try once more to adopt a silent survivor; False when it has ended.

        While it lives no other worker is started: the two would take the camera's stream from each other.
        """
        try:
            if not self.adopt(slot, instance, ref):
                slot.survivor = None
                return False
        except OSError:
            slot.next_start = self._clock.now() + ADOPT_TIMEOUT
        return True

    def abandon(self) -> None:
        """Stop watching all processes, and leave them running."""
        self._launches.cancel()
        for slot in self.by_instance.values():
            if slot.process is not None:
                slot.process.forget()

    def cancel_launches(self) -> None:
        """Stop waiting for launches."""
        self._launches.cancel()

    def _bind(self, slot: Slot, instance: str, process: Handle) -> None:
        slot.bind(instance, process, self._clock.now())
        slot.policy.started()
        self.by_instance[instance] = slot
        process.when_ended(lambda: self._exited(slot) if slot.process is process else None)

    def ask_to_stop(self, slot: Slot, reason: str, within: float) -> None:
        """Ask the slot's process, if it has one, to end in `within` seconds, and enforce it."""
        again = slot.phase is Phase.STOPPING
        if slot.machine.can(SlotEvent.STOP):
            slot.machine.fire(SlotEvent.STOP)
        slot.was_taken = False  # the next one is started because it is wanted again
        if slot.process is None:
            return
        ending = Termination.of_asked(self._clock.now(), within)
        # A process that is already being ended gets no more time than it had.
        if slot.ending is None or (again and ending.next_at < slot.ending.next_at):
            slot.ending = ending
        self._send(slot.instance, protocol.Stop(reason=reason, within=within))

    def _exited(self, slot: Slot) -> None:
        assert slot.process is not None
        exit_, asked = slot.process.exit, slot.phase is Phase.STOPPING
        taken = exit_ is not None and exit_.taken and not asked and slot.phase is not Phase.HUNG
        silent = silent_node(slot, self.slots.values(), self._clock.now()) if slot.phase is Phase.HUNG else ""
        if slot.farewell and exit_ is not None and exit_.clean and not taken:
            words = brief = f"{exit_} ({slot.farewell})"
        elif slot.phase is Phase.HUNG:
            words, brief = f"hung{slot.whereabouts}, {exit_}", silent or f"hung, {exit_}"
        elif taken and exit_ is not None:
            words, brief = str(exit_), exit_.words
        else:
            words, brief = f"{exit_}{slot.whereabouts}", str(exit_)
        level = logging.INFO if asked else logging.WARNING if taken else logging.ERROR
        log.log(level, "worker %s", f"{words}: {silent}" if silent else words, extra=slot.context)
        code = exit_.code if exit_ is not None else None
        cause = RestartCause.KILLED if code is not None and code < 0 else RestartCause.EXITED
        if asked or slot.phase is Phase.HUNG:
            cause = slot.planned if asked else RestartCause.HUNG
        elif taken:
            cause = RestartCause.TAKEN_AWAY
        slot.ended_by, slot.was_taken = brief, taken
        slot.node_failed = bool(silent) or (exit_ is not None and exit_.node_failed)
        compiled = may_be_compiled(slot.data_path, remote=self._launcher.remote)
        if compiled and slot.policy.trust.died(code, self._clock.now()):
            log.warning(
                "worker has crashed twice in ten minutes: from now on it does without the compiled data path",
                extra=slot.context,
            )
        self._over(slot, SlotEvent.EXIT, str(exit_) if asked else words, cause)

    def _give_up(self, slot: Slot, why: str) -> None:
        """Continue without a process: there is none, or it cannot be ended."""
        known = slot.process is None and slot.policy.logged_enough
        log.log(logging.DEBUG if known else logging.ERROR, "worker %s", why, extra=slot.context)
        if slot.process is not None:
            slot.process.forget()
        slot.ended_by, slot.was_taken, slot.node_failed = why, False, False
        self._over(slot, SlotEvent.GIVE_UP, why, RestartCause.FAILED)

    def _over(self, slot: Slot, event: SlotEvent, why: str, cause: RestartCause) -> None:
        """Settle what follows for a slot that has lost its process, then notify the listener."""
        instance, had_process = slot.instance, slot.process is not None
        exit_ = slot.process.exit if slot.process is not None else None
        if had_process and self._launcher.remote and (exit_ is None or exit_.code is None):
            slot.contested_until = slot.seen_at + CONTESTED
        self.by_instance.pop(instance, None)
        self._keyring.remove(instance)
        slot.machine.fire(event)
        slot.unbind()
        if slot.replaces:
            self._drop(slot)
            return  # it never took over: the old one continues
        # A planned replacement keeps its reason, not how the old worker ended.
        if not (slot.replaced and slot.phase is Phase.ABSENT):
            slot.last_exit = why
        reason = slot.last_exit
        promoted = self._promote(slot) if slot.replaced else None
        if promoted is None:
            self._follow(slot, had_process)
        if had_process:
            self.listener.worker_gone(slot.camera, instance, reason, cause)
        if promoted is not None:
            self.tell_ready(promoted)

    def _follow(self, slot: Slot, had_process: bool) -> None:
        """Start another worker, now or later, when one is wanted."""
        if slot.phase is Phase.BACKOFF:
            now, known = self._clock.now(), slot.policy.logged_enough
            if had_process and slot.was_taken:
                delay, known = slot.policy.taken_away(now), False
            elif had_process:
                delay, known = slot.policy.died(now, slot.last_exit), False
                slot.last_exit = slot.policy.words(now)
            else:
                delay = slot.policy.unstarted()
            slot.next_start = now + delay
            if delay:
                level = logging.DEBUG if known else logging.INFO
                log.log(level, "worker %s: next start in %.1f s", slot.last_exit, delay, extra=slot.context)
                return
        if slot.wanted:
            self.launch(slot)

    def _drop(self, successor: Slot) -> None:
        """A successor has ended: the worker that it was to replace continues."""
        assert successor.replacement is not None
        successor.replacement.fire(PairEvent.SUCCESSOR_ENDED)
        successor.replacement.predecessor.replacement = None
        successor.replacement = None

    def _promote(self, slot: Slot) -> Slot:
        """A worker that is being replaced has ended: make its successor the camera's worker."""
        assert slot.replacement is not None
        slot.replacement.fire(PairEvent.PREDECESSOR_ENDED)
        successor = slot.replacement.successor
        slot.replacement = successor.replacement = None
        self.slots[slot.camera] = successor
        successor.last_exit, successor.replaced_at = slot.last_exit, slot.replaced_at
        successor.ended_by, successor.was_taken = slot.ended_by, slot.was_taken
        successor.node_failed = slot.node_failed
        successor.contested_until = slot.contested_until
        successor.policy.restarts += 1
        return successor
