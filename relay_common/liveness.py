"""Deadlines postponed by progress.

One rule serves heartbeats, RTP in, frames out and receiver reports: each kind of progress has a timeout in seconds,
and is overdue once it has been silent for longer than that.
"""

from __future__ import annotations


class Liveness:
    """Watches several kinds of progress by name; time is passed in, in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[float, float]] = {}

    def watch(self, name: str, timeout: float, now: float) -> None:
        """Expect progress of `name` at least every `timeout` seconds, starting now."""
        self._watched[name] = (timeout, now)

    def forget(self, name: str) -> None:
        """Stop expecting progress of `name`."""
        self._watched.pop(name, None)

    def progress(self, name: str, now: float) -> None:
        """Note progress of `name`; ignored while it is not watched."""
        entry = self._watched.get(name)
        if entry is not None:
            self._watched[name] = (entry[0], now)

    def age(self, name: str, now: float) -> float:
        """Seconds since the last progress of `name`; 0 when it is not watched."""
        entry = self._watched.get(name)
        return now - entry[1] if entry is not None else 0.0

    def overdue(self, now: float) -> list[str]:
        """Names whose timeout has run out, longest overdue first."""
        late = [(now - last - timeout, name) for name, (timeout, last) in self._watched.items()]
        return [name for excess, name in sorted(late, reverse=True) if excess > 0]

    def next_deadline(self) -> float | None:
        """When the next name becomes overdue, or None when nothing is watched."""
        return min((timeout + last for timeout, last in self._watched.values()), default=None)
