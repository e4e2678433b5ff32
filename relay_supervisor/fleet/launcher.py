"""What starts workers, and what is known of one that was started: an interface without processes or machines.

The fleet, the director, the store and the status use these alone. `processes/` implements them with a fork server on
this machine. An engine that is away for a while ends no worker: `start` fails then, and a `Handle` stays as it was.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from relay_worker.process.spec import WorkerSpec


class EnginePhase(enum.Enum):
    """Where a worker is in its life, as its engine sees it; whether it does its work is for the fleet to judge."""

    WAITING = "waiting"
    """Accepted, and not begun: there is no room, or what it needs is on its way. It cannot speak yet."""
    RUNNING = "running"
    ENDING = "ending"
    """Its end has begun: it was asked to end, or the engine takes it away."""
    GONE = "gone"
    """It has ended, or is no longer watched."""


@dataclass(frozen=True)
class Exit:
    """How a worker ended: `code` as `subprocess` has it, -n for signal n; None when nobody can tell.

    `words` are what its engine adds, such as that it took more memory than it may. Of one that was `taken` away, by its
    engine or by somebody through it, the end says nothing about the worker; nor where its `node_failed` to start it.
    """

    code: int | None
    words: str = ""
    taken: bool = False
    node_failed: bool = False

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return f"{self._plainly()} ({self.words})" if self.words else self._plainly()

    def _plainly(self) -> str:
        if self.taken:
            return "taken away"
        if self.code is None:
            return "ended" if self.words else "ended (exit status unknown)"
        if self.code < 0:
            try:
                return f"killed by {signal.Signals(-self.code).name}"
            except ValueError:
                return f"killed by signal {-self.code}"
        return f"exited with status {self.code}"


class EngineError(OSError):
    """The engine did not do what it was asked. The text says why, in words for people and without a secret."""


class Handle(Protocol):
    """One worker that was started, while it is watched."""

    @property
    def ref(self) -> str:
        """What its launcher finds it by again (`recall`), also another supervisor's; to be stored, not to be read."""

    @property
    def where(self) -> str:
        """The node it runs on; "" for this machine, and before it has one."""

    @property
    def number(self) -> int:
        """Its process id, for people on this machine; 0 for a worker elsewhere."""

    @property
    def phase(self) -> EnginePhase: ...

    @property
    def reason(self) -> str:
        """Why it is in this phase, in the engine's words; "" when there is nothing to say."""

    @property
    def starved(self) -> float:
        """Seconds since its start for which it could run and was given no processor; 0 where that is not known."""

    @property
    def exit(self) -> Exit | None:
        """How it ended, once it has."""

    async def wait(self) -> Exit:
        """How it ended, once it has."""
        ...

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon after it has ended."""

    def ask_to_end(self, within: float) -> None:
        """Have it end in order, in `within` seconds; nothing happens when it is gone already."""

    def end_now(self) -> None:
        """End it without asking, whether or not it or its node responds."""

    def dump(self) -> None:
        """Have it tell what its threads are doing (`dumped`); for one whose loop hangs."""

    def dumped(self) -> str:
        """What it has told, where that can be read here; "" otherwise. Raises OSError."""
        ...

    def forget(self) -> None:
        """Stop watching; the worker is left alone."""


class Launcher(Protocol):
    """Starts workers somewhere, and finds them again."""

    remote: bool
    """Whether its workers run on other machines, from where they reach the bus over TCP alone."""

    async def prepare(self) -> None:
        """Get ready to start workers quickly, and learn which live; nothing else is called before."""
        ...

    async def start(self, spec: WorkerSpec) -> Handle:
        """Start one worker; returns once the engine has accepted it.

        Raises OSError, or another error of the system, when it was not: then there is no worker.
        """
        ...

    def recall(self, instance: str, ref: str) -> Handle | None:
        """Watch the worker that this launcher, or an earlier supervisor's, has started; None when it is gone.

        Raises OSError when it lives and cannot be watched at present.
        """
        ...

    def living(self, refs: Mapping[str, str]) -> list[str]:
        """Those of these workers, refs by instance, that live; the oldest first.

        While the engine cannot be asked, those that it may still have: a worker whose supervisor is not told about it
        is not dead for that.
        """
        ...

    def suspect(self, handle: Handle) -> None:
        """A worker was silent for too long: advice for where the next ones are started, which expires soon.

        It never leaves no place at all: one worker that hangs is no lost node.
        """

    def heard(self, handle: Handle) -> None:
        """A worker has spoken: its machine lives, whatever was suspected."""

    def sweep(self, instances: Collection[str]) -> None:
        """Remove what workers other than these have left behind."""

    async def close(self) -> None:
        """Stop watching all workers, which are left as they are, once what they were told has been passed on."""
        ...
