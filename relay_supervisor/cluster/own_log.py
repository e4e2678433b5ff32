"""Whose commands are in the quota log of a state directory: those of the sessions that held the Lease with it.

Supervisors that are alone share no log. Whoever takes the Lease after another one, or without its own state directory,
does not know what Google was sent in the minute before.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from relay_common.files import write_private

log = logging.getLogger(__name__)

FILE: Final = "lease.sessions"
_KEPT: Final = 100
"""Sessions that are remembered. The Lease names the last one that has held it, and while the API server is away any
number may begin and end that do not."""


class OwnLog:
    """The sessions whose log is in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE

    def begin(self, session: str) -> None:
        """This session keeps its log here, or the log that it has kept elsewhere was carried here."""
        try:
            write_private(self._file, "".join(f"{one}\n" for one in (*self._sessions()[1 - _KEPT :], session)).encode())
        except OSError as error:  # the next one waits for a minute then
            log.warning("%s cannot be written: %s", self._file, error.strerror or error)

    def knows(self, session: str) -> bool:
        """Whether all that this session has sent is in the log."""
        return session in self._sessions()

    @property
    def last(self) -> str:
        """The session that began last; "" for none."""
        return next(iter(self._sessions()[-1:]), "")

    def _sessions(self) -> list[str]:
        try:
            return self._file.read_text("utf-8", "replace").split()
        except OSError:
            return []
