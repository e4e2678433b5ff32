"""An event loop with virtual time, in which a seed decides the order of whatever could happen next.

Everything of a simulated machine runs in one such loop. What belongs to one operating-system process runs in a context
of its own (`Process`): it can be stopped and continued, as by SIGSTOP and SIGCONT, and killed, after which none of its
callbacks runs again. asyncio's own loop does the rest: tasks, futures, timers.

Why not a library: `simloom` and `simloop` need Python 3.12, and the relay supports 3.11.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

_STEP: Final = 1e-5
"""Seconds that each callback takes."""
_PROCESS: Final[contextvars.ContextVar[Process]] = contextvars.ContextVar("process")


class Process:
    """The callbacks of one simulated process."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name, self.alive, self.stopped = name, True, False
        self.resumed_at = float("-inf")
        self._loop = loop
        self.held: list[asyncio.Handle] = []
        """Callbacks that are due and wait until it is continued."""
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in it."""
        return self._loop.create_task(work, context=self.context.copy())

    def after(self, seconds: float, callback: Callable[..., object], *args: object) -> None:
        """Call `callback` in it after `seconds`."""
        self._loop.call_later(seconds, callback, *args, context=self.context)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT."""
        self.stopped, self.resumed_at = False, self._loop.now
        self._loop.hand_back(self.held)
        self.held = []

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        self._loop.keep_tasks()


class SimulatedLoop(asyncio.BaseEventLoop):
    """Time goes from one timer to the next; what is ready at the same time runs in an order of the seed's choice."""

    def __init__(self, seed: str) -> None:
        super().__init__()
        self.rng = random.Random(f"{seed}/loop")
        self.now = 1000.0
        self._kept: list[asyncio.Task[Any]] = []
        self.steps = 0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise RuntimeError("nothing will ever happen again")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            self.rng.shuffle(batch)
        for handle in batch:
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is not None:
                if not process.alive:
                    continue
                if process.stopped:
                    process.held.append(handle)
                    continue
            self.now += _STEP
            self.steps += 1
            handle._run()

    def hand_back(self, handles: list[asyncio.Handle]) -> None:
        """Have these callbacks run now."""
        self._ready.extend(handles)

    def keep_tasks(self) -> None:
        """Keep all tasks until the end: one of a killed process, if forgotten, would clean up after itself."""
        self._kept.extend(asyncio.all_tasks(self))

    def end(self) -> None:
        """Discard what is left, silently: the world is over."""
        for task in [*asyncio.all_tasks(self), *self._kept]:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _process_events(self, events: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
