"""Writes log lines to standard error from a thread, because writing may block.

A paused terminal or a stuck `| tee` blocks its writers; here the only writer is a thread that does nothing else. Lines
it cannot write in time are dropped, oldest first, and the next line that gets through is preceded by the number
dropped. So it is while the disk is full that standard error is on.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from typing import Final

BOUND: Final = 1 << 20
"""Bytes of log lines queued at most."""
_BROKEN: Final = 1.0
"""Seconds to wait after a failed write."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_UNREAD: Final = "nobody read standard error"

log = logging.getLogger(__name__)


class StderrHandler(logging.Handler):
    """Writes records to the standard error current at construction; `emit` never waits for a reader.

    `dropped` counts lines dropped because they could not be written in time. Safe across a fork: the child starts its
    own thread at its first line and inherits none of its parent's lines.
    """

    def __init__(self, bound: int = BOUND) -> None:
        super().__init__()
        self._bound = bound
        try:
            self._fd = sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):
            self._fd = 2
        self.dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lines: deque[bytes] = deque()
        self._size = self._unreported = 0
        self._writing = False
        self._why = _UNREAD
        self._change = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        if self._pid != os.getpid():
            self._begin()
        with self._change:
            self._lines.append(line)
            self._size += len(line)
            while self._size > self._bound and len(self._lines) > 1:
                self._size -= len(self._lines.popleft())
                self.dropped += 1
                self._unreported += 1
            if self._thread is None:
                self._start_thread()
            self._change.notify_all()

    def flush(self, within: float = 1.0) -> None:
        """Wait until all is written, at most `within` seconds."""
        if self._pid != os.getpid():
            return
        with self._change:
            if self._thread is not None:
                self._change.wait_for(lambda: not self._lines and not self._writing, within)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # no thread can be started now: the next line tries again
        self._thread = thread

    def _write_all(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._lines))
                line = self._lines.popleft()
                self._size -= len(line)
                missing, self._unreported = self._unreported, 0
                self._writing = True
            if missing:
                line = self._report(missing) + line
            self._why = _UNREAD
            self._write(line)
            with self._change:
                self._writing = False
                self._change.notify_all()

    def _report(self, missing: int) -> bytes:
        text = "%d log lines were dropped: %s"
        record = log.makeRecord(log.name, logging.WARNING, __file__, 0, text, (missing, self._why), None)
        for filter_ in self.filters:
            if isinstance(filter_, logging.Filter):
                filter_.filter(record)
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process on the same terminal has made it non-blocking
                select.select([], [self._fd], [], _BROKEN)
            except OSError as error:
                if error.errno in _FULL and self._why == _UNREAD:  # the first time
                    self._why = f"standard error could not be written ({error.strerror})"
                    # For `relay-supervisor logs`, which needs no disk.
                    log.warning("%s: the latest lines are kept until it can be", self._why)
                time.sleep(_BROKEN)
                if error.errno not in _FULL:
                    return  # a closed pipe: the line is lost, and a worker that outlives its terminal continues
