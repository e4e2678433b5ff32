"""Viewers that workers have and the supervisor does not know, so that nobody could revoke them.

So it is after a state database was lost, or could not be written. Pure: `now` is in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

ENDED_AFTER: Final = 2.5
"""Seconds that a viewer is reported before it counts as unknown: one that has just ended is in the report before."""


class Strangers:
    """Follows what workers report; each viewer is a camera and the digest that reports call it by."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}

    def look(self, reported: Iterable[tuple[str, str]], known: Collection[str], now: float) -> list[tuple[str, str]]:
        """Those of `reported` that are to be ended now, as their digest has not been `known` for a while."""
        unknown = [viewer for viewer in reported if viewer[1] not in known]
        self._since = {viewer: self._since.get(viewer, now) for viewer in unknown}
        due = [viewer for viewer, since in self._since.items() if now - since >= ENDED_AFTER]
        for viewer in due:
            self._since[viewer] = now  # again, should it not reach its worker
        return due
