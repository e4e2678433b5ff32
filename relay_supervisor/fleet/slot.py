"""One camera's place for a worker process: what it is doing, as a table, and what is known about it."""

from __future__ import annotations

import asyncio
import enum
import math

from relay_common.fsm import Machine, Table
from relay_common.protocol import Hello, Stage, WorkerState, WorkerStats
from relay_supervisor.fleet.handle import WorkerProcess
from relay_supervisor.fleet.restart import RestartPolicy
from relay_worker.process.spec import WorkerSpec


class Phase(enum.Enum):
    """Life of a worker process as the supervisor sees it."""

    ABSENT = "absent"
    STARTING = "starting"
    """Launched; its hello has not come yet."""
    RUNNING = "running"
    HUNG = "hung"
    """Silent for too long: being taken down."""
    STOPPING = "stopping"
    """Asked to stop."""
    BACKOFF = "backoff"
    """Died; waiting to be started again."""


class Happening(enum.Enum):
    """What can happen to a worker process."""

    LAUNCH = "launch"
    ADOPT = "adopt"
    HELLO = "hello"
    SILENCE = "silence"
    STOP = "stop"
    EXIT = "exit"
    GIVE_UP = "give up"


WORKER_TABLE: Table[Phase, Happening] = Table(
    "worker",
    Phase.ABSENT,
    {
        (Phase.ABSENT, Happening.LAUNCH): Phase.STARTING,
        (Phase.ABSENT, Happening.ADOPT): Phase.RUNNING,
        (Phase.BACKOFF, Happening.LAUNCH): Phase.STARTING,
        (Phase.BACKOFF, Happening.ADOPT): Phase.RUNNING,
        (Phase.BACKOFF, Happening.STOP): Phase.ABSENT,
        (Phase.STARTING, Happening.HELLO): Phase.RUNNING,
        (Phase.STARTING, Happening.SILENCE): Phase.HUNG,
        (Phase.STARTING, Happening.STOP): Phase.STOPPING,
        (Phase.STARTING, Happening.EXIT): Phase.BACKOFF,
        # A running worker says hello again when its supervisor's socket came back.
        (Phase.RUNNING, Happening.HELLO): Phase.RUNNING,
        (Phase.RUNNING, Happening.SILENCE): Phase.HUNG,
        (Phase.RUNNING, Happening.STOP): Phase.STOPPING,
        (Phase.RUNNING, Happening.EXIT): Phase.BACKOFF,
        (Phase.HUNG, Happening.STOP): Phase.STOPPING,
        (Phase.HUNG, Happening.EXIT): Phase.BACKOFF,
        (Phase.STOPPING, Happening.EXIT): Phase.ABSENT,
        (Phase.STARTING, Happening.GIVE_UP): Phase.BACKOFF,
    },
)


class Slot:
    """What the fleet knows about one camera's worker."""

    def __init__(self, template: WorkerSpec, policy: RestartPolicy, now: float) -> None:
        self.template = template
        self.policy = policy
        self.machine: Machine[Phase, Happening] = Machine(WORKER_TABLE)
        self.process: WorkerProcess | None = None
        self.launching: asyncio.Task[None] | None = None
        self.instance = ""
        self.hello: Hello | None = None
        """What the process said of itself; None until it has."""
        self.state = WorkerState.STARTING
        self.stats: WorkerStats | None = None
        self.stats_at = now
        self.seen_at = now
        self.last_exit = ""
        self.wanted = True
        self.next_start = now
        """When it is started again, while it is in backoff."""
        self.predecessor: Slot | None = None
        self.successor: Slot | None = None
        """Of a worker that is being replaced, and of its replacement: the other one."""
        self.over_limit = 0
        """Reports in a row with more memory than allowed."""
        self.replaced_at = -math.inf

    @property
    def phase(self) -> Phase:
        return self.machine.state

    @property
    def camera(self) -> str:
        return self.template.camera

    @property
    def context(self) -> dict[str, str]:
        """For the log."""
        return {"camera": self.template.name, "instance": self.instance}

    @property
    def whereabouts(self) -> str:
        """What the worker said last that it was doing, to follow how it ended: " in tls", " while live", """ ""
        if self.stats is not None and self.stats.stage is not Stage.NONE and self.state is not WorkerState.LIVE:
            return f" in {self.stats.stage.value}"
        return f" while {self.state.value}"

    @property
    def running(self) -> bool:
        return self.machine.state is Phase.RUNNING
