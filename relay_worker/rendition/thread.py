"""The thread that makes small pictures: jobs in, results out, and nothing that waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")


class JobThread(Generic[Job]):
    """Runs `work` on each job in order, in a thread that begins with the first; none of its methods blocks.

    `finished` counts jobs that `work` has returned from. An exception of `work` ends the thread.
    """

    def __init__(self, name: str, work: Callable[[Job], None]) -> None:
        self._work = work
        self._jobs: deque[Job] = deque()
        # A condition of `threading` would have the caller wait where this thread is preempted while it holds the lock.
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._submitted = 0
        self._left = False
        self.finished = 0

    def submit(self, job: Job) -> None:
        """Do this after what has been submitted."""
        if self._thread.ident is None:
            self._thread.start()
        self._submitted += 1
        self._jobs.append(job)
        self._wake.put(True)

    @property
    def waiting(self) -> tuple[Job, ...]:
        """Jobs that have not begun."""
        return tuple(self._jobs)

    @property
    def pending(self) -> int:
        """Jobs that are not done, the one that is being done included."""
        return self._submitted - self.finished

    def discard(self) -> list[Job]:
        """Take back the jobs that have not begun."""
        taken: list[Job] = []
        while True:
            try:
                taken.append(self._jobs.popleft())
            except IndexError:
                break
        self._submitted -= len(taken)
        return taken

    def leave(self) -> None:
        """Let the thread end after the job it is at, however long that takes."""
        self._left = True
        self.discard()
        self._wake.put(False)

    def _run(self) -> None:
        while self._wake.get() and not self._left:
            try:
                job = self._jobs.popleft()
            except IndexError:
                continue  # it was taken back
            self._work(job)
            self.finished += 1
            del job  # pictures are large, and the next may be long in coming
