"""Forwards the worker's log lines to its supervisor, so that `relay-supervisor logs` shows them; rate-limited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from relay_common.log import whole_line
from relay_common.protocol import LogLine

MOST_A_SECOND: Final = 100
LONGEST: Final = 2000


class LogForwarder(logging.Handler):
    """Passes lines to `send`, always in the loop's thread; `dropped` counts those beyond 100 a second."""

    def __init__(self, send: Callable[[LogLine], object]) -> None:
        super().__init__()
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._second, self._in_second = 0, 0
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        second = int(record.created)
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MOST_A_SECOND:
            self.dropped += 1
            return
        text = whole_line(record, LONGEST)
        line = LogLine(at=record.created, level=record.levelname.lower(), logger=record.name, text=text)
        # Later, in the loop: the socket belongs to its thread, and sending may log in turn.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, line)
