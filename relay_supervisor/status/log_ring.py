"""The last log lines of the supervisor and its workers, in memory, for `relay-supervisor logs`."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from relay_common.log import CameraNames, account_logged, whole_line
from relay_common.protocol import LogLine
from relay_common.secrets import redact

RING: Final = 4000
"""Lines kept."""
LONGEST: Final = 4000
"""Characters kept of a line."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `sequence` counts up by one from 1; `camera` is a display name, empty when it concerns none."""

    sequence: int
    at: float
    level: str
    logger: str
    text: str
    camera: str = ""
    worker: bool = False
    """Whether a worker wrote it."""


class LogRing(logging.Handler):
    """Keeps the lines of all loggers, redacted. `dropped` counts lines displaced by newer ones.

    Of several accounts it keeps what is about the one that it was installed for, or about all. While it is installed,
    cameras are named (`name_of`, by id) in what it keeps and in what other handlers write.
    """

    def __init__(self, size: int = RING, name_of: Callable[[str], str] = lambda camera: camera) -> None:
        super().__init__()
        self._names = CameraNames(name_of)
        self._entries: deque[LogEntry] = deque(maxlen=size)
        self._count, self._account = 0, ""
        self._guard = threading.Lock()

    def install(self) -> None:
        """Attach to all loggers of this process."""
        self._account = account_logged()
        logging.getLogger().addHandler(self)
        self._names.install()

    def remove(self) -> None:
        """Detach from them."""
        self._names.remove()
        logging.getLogger().removeHandler(self)

    @property
    def dropped(self) -> int:
        return self._count - len(self._entries)

    def emit(self, record: logging.LogRecord) -> None:
        if account_logged() not in ("", self._account):
            return
        text = whole_line(record, LONGEST)
        self._add(record.created, record.levelname.lower(), record.name, text, str(getattr(record, "camera", "")))

    def worker_line(self, camera: str, line: LogLine) -> None:
        """Keep a line that a worker sent."""
        self._add(line.at, line.level, line.logger, line.text, camera, worker=True)

    def _add(self, at: float, level: str, logger: str, text: str, camera: str, *, worker: bool = False) -> None:
        text = redact(text)[:LONGEST]
        with self._guard:
            self._count += 1
            self._entries.append(
                LogEntry(
                    sequence=self._count,
                    at=at,
                    level=level,
                    logger=logger.removeprefix("relay_"),
                    text=text,
                    camera=camera,
                    worker=worker,
                )
            )

    def since(self, sequence: int = 0, *, camera: str = "", level: str = "debug", most: int = 200) -> list[LogEntry]:
        """The newest `most` lines after `sequence`, oldest first, of that camera (if named) and of `level` or worse."""
        floor = logging.getLevelNamesMapping()[level.upper()]
        levels = {name.lower() for name, number in logging.getLevelNamesMapping().items() if number >= floor}
        found: list[LogEntry] = []
        with self._guard:
            newest_first = list(reversed(self._entries))
        for entry in newest_first:
            if entry.sequence <= sequence or len(found) == most:
                break
            if entry.level in levels and camera in ("", entry.camera):
                found.append(entry)
        return found[::-1]
