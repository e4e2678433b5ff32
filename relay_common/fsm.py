"""State machines as tables.

A `Table` lists every legal move as (state, event) → state. A `Machine` walks it: an illegal event raises
`IllegalTransition` and leaves the state as it was. Documentation diagrams are generated from the same tables.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from relay_common.errors import LocalError

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


class IllegalTransition(LocalError):
    """An event that the table does not allow in the current state."""


class Table(Generic[S, E]):
    """An immutable transition table with its initial state."""

    def __init__(self, name: str, initial: S, moves: Mapping[tuple[S, E], S]) -> None:
        self.name, self.initial = name, initial
        self._moves = dict(moves)

    def target(self, state: S, event: E) -> S | None:
        """The state that `event` leads to from `state`, or None when that move is illegal."""
        return self._moves.get((state, event))

    def allowed(self, state: S) -> list[E]:
        """Events that are legal in `state`."""
        return [event for (source, event) in self._moves if source is state]

    def edges(self) -> Iterator[tuple[S, E, S]]:
        """Every legal move as (from, event, to), in table order."""
        for (source, event), target in self._moves.items():
            yield source, event, target

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram; moves between the same two states share an arrow."""
        arrows: dict[tuple[str, str], list[str]] = {}
        for source, event, target in self.edges():
            arrows.setdefault((_name(source), _name(target)), []).append(event.value)
        lines = ["stateDiagram-v2", f"    [*] --> {_name(self.initial)}"]
        lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
        return "\n".join(lines) + "\n"


def _name(state: enum.Enum) -> str:
    return str(state.value).replace("-", "_").replace(" ", "_")


class Machine(Generic[S, E]):
    """One walk through a table."""

    def __init__(self, table: Table[S, E], state: S | None = None) -> None:
        self.table = table
        self.state: S = table.initial if state is None else state

    def fire(self, event: E) -> S:
        """Make the transition for `event` and return the new state; if illegal, raises IllegalTransition and stays."""
        target = self.table.target(self.state, event)
        if target is None:
            allowed = ", ".join(e.value for e in self.table.allowed(self.state)) or "nothing"
            raise IllegalTransition(
                f"{self.table.name}: {event.value!r} is not allowed in state {self.state.value!r} (allowed: {allowed})"
            )
        self.state = target
        return target

    def can(self, event: E) -> bool:
        """Whether `event` is legal now."""
        return self.table.target(self.state, event) is not None
