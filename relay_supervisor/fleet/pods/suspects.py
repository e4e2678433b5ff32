"""Which nodes new workers had better not be given to, without I/O: times are passed in.

A node whose worker fell silent, or that has not begun with a Pod that it was given, counts as *lost* until the contrary
is heard: a word of any worker there, or that a Pod has been begun there. Then it is only *doubtful*, since on a busy
machine workers are silent now and then, on each node; how many, or how often, does not tell a lost node from a busy
one. Either ends after `SUSPECTED` seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

SUSPECTED: Final = 60.0
"""Seconds for which a node is avoided after a worker on it was silent for too long, or was not begun there."""


class Avoided(NamedTuple):
    """Nodes by name, in order."""

    lost: tuple[str, ...] = ()
    """Nothing was heard of them since."""
    doubtful: tuple[str, ...] = ()
    """They live, and some worker there did not, or was late."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubtful)


@dataclass
class _Suspicion:
    """Until when it holds; -inf: it does not."""

    silent: float = -math.inf
    idle: float = -math.inf
    doubtful: float = -math.inf


class Suspects:
    """The nodes of one cluster that are avoided; "" is none of them."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Suspicion] = {}

    def silent(self, node: str, now: float) -> None:
        """A worker there was silent for too long."""
        self._of(node).silent = now + SUSPECTED

    def idle(self, node: str, now: float) -> None:
        """The node has not begun with a Pod that it was given."""
        self._of(node).idle = now + SUSPECTED

    def heard(self, node: str) -> None:
        """A worker there has spoken, so that at least its silence is not the node's."""
        if (known := self._nodes.get(node)) is not None:
            known.doubtful, known.silent = max(known.doubtful, known.silent), -math.inf

    def begun(self, node: str) -> None:
        """The node has begun with a Pod. (That its workers reach the supervisor, is not said by that.)"""
        if (known := self._nodes.get(node)) is not None:
            known.doubtful, known.idle = max(known.doubtful, known.idle), -math.inf

    def avoided(self, now: float) -> Avoided:
        """The nodes that are avoided at present."""
        self._nodes = {
            name: one for name, one in self._nodes.items() if name and max(one.silent, one.idle, one.doubtful) > now
        }
        lost = {name for name, one in self._nodes.items() if max(one.silent, one.idle) > now}
        return Avoided(tuple(sorted(lost)), tuple(sorted(self._nodes.keys() - lost)))

    def _of(self, node: str) -> _Suspicion:
        return self._nodes.setdefault(node, _Suspicion())
