"""One camera's slot for a worker process: a state machine, and what is known about the process.

Rules of the slot and the fleet (`fleet.py`):

1. A slot has at most one process. It is ABSENT or in BACKOFF without one, and HUNG with one. STARTING and STOPPING may
   begin without one while the launcher has not answered yet; so may RUNNING, when the hello overtakes that answer.

2. Every phase but ABSENT has a deadline, and passing it is an event. Nothing waits forever: not for a launcher that
   never answers, not for a hello, not for a process that survives SIGKILL.

       phase      deadline                                        what happens then
       ABSENT     none: nothing runs, and nothing is wanted
       STARTING   LAUNCH_TIMEOUT, until the launcher answers      GIVE UP: to BACKOFF; the process is killed if it
                                                                  appears after all
                  HELLO_TIMEOUT, from then until the hello        SILENCE: to HUNG
                  (HELLO_TIMEOUT_ELSEWHERE on other machines)
                  none while its engine lets it wait
       RUNNING    SILENCE, since the worker's last message        SILENCE: to HUNG; without a process as STARTING
       HUNG       the next step of its `Termination`:             the step; after the last one GIVE UP: to BACKOFF
                  stacks, SIGTERM, SIGKILL, giving it up
       STOPPING   the next step of its `Termination`;             the step; after the last one GIVE UP: to ABSENT
                  LAUNCH_TIMEOUT while the launcher has not
                  answered
       BACKOFF    `next_start`                                    LAUNCH: to STARTING; ADOPT: to RUNNING, where an
                                                                  earlier supervisor's worker could not be watched

3. A process's deadlines count only time in which the supervisor ran and read its bus. After the supervisor itself was
   suspended, each is postponed by the length of the pause (`put_off`): the worker's messages are still unread, or the
   worker was suspended together with its supervisor.

   Nor does silence count while a process could run but got no processor, up to a limit (MOST_QUEUED): on a machine
   that is overloaded, ending those that are slow and starting them anew keeps all of them from ever being ready. Of
   another machine that is not known: a worker that is started there gets more time instead.

   A worker that its engine lets wait (for room on a node, for its image) cannot speak: its time for a hello begins when
   it runs. For how long it may wait is the engine's business, and said with its reason.

4. A process that ends is followed by another one if that is wanted. From RUNNING, STARTING and HUNG this leads through
   BACKOFF, where the restart policy sets the delay; from STOPPING, which was requested, to ABSENT, and on to STARTING
   at once if the camera has been wanted again meanwhile. One that its engine takes away while it runs (a node that is
   drained) gets its successor before it ends, as if it were replaced; where it ends sooner than that, its successor
   starts at once: the policy counts no death.

5. `running` means that a process is watched, is alive and has said hello; nothing else is ever shown as live.

6. While a worker is being replaced its camera has two slots, tied by a `Replacement` (`replacement.py`).
"""

from __future__ import annotations

import asyncio
import enum
import math

from relay_common.causes import RestartCause
from relay_common.fsm import Machine, Table
from relay_common.protocol import Hello, Stage, WorkerState
from relay_common.worker_stats import WorkerStats
from relay_supervisor.fleet.ending import Termination
from relay_supervisor.fleet.launcher import EnginePhase, Handle
from relay_supervisor.fleet.replacement import Replacement
from relay_supervisor.fleet.restart import RestartPolicy
from relay_worker.process.spec import WorkerSpec


class Phase(enum.Enum):
    """Phases of a worker process as the supervisor sees it."""

    ABSENT = "absent"
    STARTING = "starting"
    """Launched; its hello has not arrived."""
    RUNNING = "running"
    HUNG = "hung"
    """Silent for too long, or of another version of the bus: being ended."""
    STOPPING = "stopping"
    """Asked to stop."""
    BACKOFF = "backoff"
    """Died; waiting to be restarted."""


class SlotEvent(enum.Enum):
    """Events of a worker process."""

    LAUNCH = "launch"
    ADOPT = "adopt"
    HELLO = "hello"
    SILENCE = "silence"
    OTHER_VERSION = "other version"
    """It speaks another version of the bus's messages."""
    STOP = "stop"
    EXIT = "exit"
    GIVE_UP = "give up"
    """The launcher failed or did not answer, or a process survived SIGKILL."""


WORKER_TABLE: Table[Phase, SlotEvent] = Table(
    "worker",
    Phase.ABSENT,
    {
        (Phase.ABSENT, SlotEvent.LAUNCH): Phase.STARTING,
        (Phase.ABSENT, SlotEvent.ADOPT): Phase.RUNNING,
        (Phase.BACKOFF, SlotEvent.LAUNCH): Phase.STARTING,
        (Phase.BACKOFF, SlotEvent.ADOPT): Phase.RUNNING,
        (Phase.BACKOFF, SlotEvent.STOP): Phase.ABSENT,
        (Phase.STARTING, SlotEvent.HELLO): Phase.RUNNING,
        (Phase.STARTING, SlotEvent.SILENCE): Phase.HUNG,
        (Phase.STARTING, SlotEvent.OTHER_VERSION): Phase.HUNG,
        (Phase.STARTING, SlotEvent.STOP): Phase.STOPPING,
        (Phase.STARTING, SlotEvent.EXIT): Phase.BACKOFF,
        (Phase.STARTING, SlotEvent.GIVE_UP): Phase.BACKOFF,
        # A running worker says hello again when its supervisor's socket is back.
        (Phase.RUNNING, SlotEvent.HELLO): Phase.RUNNING,
        (Phase.RUNNING, SlotEvent.SILENCE): Phase.HUNG,
        (Phase.RUNNING, SlotEvent.OTHER_VERSION): Phase.HUNG,
        (Phase.RUNNING, SlotEvent.STOP): Phase.STOPPING,
        (Phase.RUNNING, SlotEvent.EXIT): Phase.BACKOFF,
        (Phase.RUNNING, SlotEvent.GIVE_UP): Phase.BACKOFF,
        (Phase.HUNG, SlotEvent.STOP): Phase.STOPPING,
        (Phase.HUNG, SlotEvent.EXIT): Phase.BACKOFF,
        (Phase.HUNG, SlotEvent.GIVE_UP): Phase.BACKOFF,
        (Phase.STOPPING, SlotEvent.EXIT): Phase.ABSENT,
        (Phase.STOPPING, SlotEvent.GIVE_UP): Phase.ABSENT,
    },
)


class Slot:
    """What the fleet knows about one camera's worker. Times are on the fleet's clock."""

    def __init__(self, template: WorkerSpec, policy: RestartPolicy, now: float) -> None:
        self.template = template
        self.policy = policy
        self.machine: Machine[Phase, SlotEvent] = Machine(WORKER_TABLE)
        self.process: Handle | None = None
        self.instance = ""
        self.launched_at = now
        self.ending: Termination | None = None
        """How the process is being ended, while it is HUNG or STOPPING."""
        self.ended: asyncio.Event = asyncio.Event()
        """Set whenever the slot has no process and none is being launched."""
        self.ended.set()
        self.hello: Hello | None = None
        """The process's hello; None until it has arrived."""
        self.state = WorkerState.STARTING
        self.stats: WorkerStats | None = None
        self.stats_at = now
        self.seen_at = now
        self.beaten_at = -math.inf
        """When its process was told last that its supervisor lives."""
        self._queued = (now, 0.0)
        """When it was last heard of, and how long its process had waited for a processor when that was asked first."""
        self.farewell = ""
        """Why it is ending, from its goodbye."""
        self.last_exit = ""
        """How the last one ended, doing what, and how often the same happened lately."""
        self.contested_until = -math.inf
        """Until when an earlier worker may be alive elsewhere, with the camera's stream: how it ended nobody knows."""
        self.ended_by = ""
        """How the last one ended, alone: the same words for the same end."""
        self.was_taken = False
        """Whether its engine took the last one away, so that how that ended says nothing about the worker."""
        self.node_failed = False
        """Whether the last one ended by its node, which was silent or did not start it."""
        self.planned = RestartCause.REQUESTED
        """Why it is asked to end, when it is."""
        self.wanted = True
        self.next_start = now
        """When it is restarted, while it is in backoff."""
        self.survivor: tuple[str, str] | None = None
        """Instance and ref of an earlier supervisor's worker, while it cannot be watched."""
        self.replacement: Replacement[Slot] | None = None
        """Set while it is being replaced, or is the replacement itself."""
        self.succeeded: Handle | None = None
        """The worker for which a successor was started because its engine ends it."""
        self.over_limit = 0
        """Consecutive reports of more memory than allowed."""
        self.replaced_at = -math.inf

    @property
    def phase(self) -> Phase:
        return self.machine.state

    @property
    def camera(self) -> str:
        return self.template.camera

    @property
    def context(self) -> dict[str, str]:
        """Log fields that identify it."""
        return {"camera": self.template.name, "instance": self.instance}

    @property
    def whereabouts(self) -> str:
        """What the worker last reported doing, appended to how it ended: " in tls", " while live"."""
        if self.stats is not None and self.stats.stage is not Stage.NONE and self.state is not WorkerState.LIVE:
            return f" in {self.stats.stage.value}"
        return f" while {self.state.value}"

    @property
    def data_path(self) -> str:
        """What moves its packets: as it says itself, else as it was told, which may be `auto`."""
        return self.hello.data_path if self.hello is not None else self.template.data_path

    @property
    def running(self) -> bool:
        """Whether it has a process that is alive and has said hello (or was adopted)."""
        return self.phase is Phase.RUNNING and self.alive

    @property
    def alive(self) -> bool:
        """Whether it has a process that is watched and has not ended."""
        return self.process is not None and self.process.phase is not EnginePhase.GONE

    @property
    def waits(self) -> bool:
        """Whether its engine lets its worker wait, so that it cannot have said hello."""
        return self.hello is None and self.process is not None and self.process.phase is EnginePhase.WAITING

    @property
    def taken_away(self) -> bool:
        """Whether its engine ends its worker, and no successor has been started for that."""
        ending = self.process is not None and self.process.phase is EnginePhase.ENDING
        return ending and self.process is not self.succeeded

    @property
    def engine_words(self) -> str:
        """What its engine says of its worker's phase, appended to what happens: ": the node is drained"."""
        return f": {self.process.reason}" if self.process is not None and self.process.reason else ""

    @property
    def replaces(self) -> bool:
        """Whether it is the replacement of another worker, which is still the camera's."""
        return self.replacement is not None and self.replacement.successor is self

    @property
    def replaced(self) -> bool:
        """Whether another worker is to take its place."""
        return self.replacement is not None and self.replacement.predecessor is self

    def launch(self, instance: str, now: float) -> None:
        """Begin to launch the process `instance`, forgetting all about an earlier one."""
        self.machine.fire(SlotEvent.LAUNCH)
        self.instance, self.launched_at, self.seen_at = instance, now, now
        self.state, self.stats, self.hello = WorkerState.STARTING, None, None
        self.over_limit, self.farewell, self.ending = 0, "", None
        self.ended.clear()

    def bind(self, instance: str, process: Handle, now: float) -> None:
        """Attach the process `instance`."""
        self.instance, self.process, self.seen_at, self.survivor = instance, process, now, None
        self.ended.clear()

    def queued(self) -> float:
        """Seconds of its present silence, since this was first asked, in which its process had no processor."""
        assert self.process is not None
        queued = self.process.starved
        if self._queued[0] != self.seen_at:
            self._queued = (self.seen_at, queued)
        return queued - self._queued[1]

    def unbind(self) -> None:
        """Detach the process, which is gone or given up."""
        self.process, self.ending, self.state = None, None, WorkerState.STARTING
        self.ended.set()

    def put_off(self, seconds: float) -> None:
        """Postpone its deadlines by `seconds` in which the supervisor could not hear the process."""
        if self._queued[0] == self.seen_at:  # the same silence, however long it is
            self._queued = (self.seen_at + seconds, self._queued[1])
        self.seen_at += seconds
        self.launched_at += seconds
        if self.ending is not None:
            self.ending.put_off(seconds)
