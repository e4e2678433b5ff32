"""What the store needs of whatever keeps its rows: a file of SQLite's, or objects of a cluster."""

from __future__ import annotations

from typing import Any, Final, Protocol

Row = tuple[str, str]
"""What a write is about: its kind, and which of them."""
LEASES: Final = "lease "
"""How the kind begins of those that are about leases."""


class StateDatabase(Protocol):
    """Tables of the schema (`schema.py`), by SQL. Reads are for the start; writes return at once."""

    @property
    def problem(self) -> str:
        """What is wrong, in words; "" when nothing is."""
        ...

    @property
    def full(self) -> bool:
        """Whether that is for want of space."""
        ...

    @property
    def notice(self) -> str:
        """What was done with a state that could not be used as it was, to be logged once; "" otherwise."""
        ...

    def open(self) -> None:
        """Make the rows of an earlier run available."""
        ...

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        ...

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        """Save a statement's effect soon; a later one for the same `row` may replace it."""
        ...

    async def before_sending(self, *, extends: bool) -> None:
        """Return when a command may be sent whose call was just written; `extends`: it extends a stream that is held.

        Waits for a bounded time until the call would survive us. Raises NestError when it must not be sent.
        """
        ...

    async def flush(self, timeout: float) -> None:
        """Return when all writes so far would survive us, or after `timeout` seconds."""
        ...

    def close(self) -> None:
        """Write what is left, for a limited time."""
        ...

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        ...
