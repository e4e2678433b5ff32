"""What is run on true nodes, in pieces that each have a cluster of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

TESTS: Final = {
    "the nodes themselves, and a camera's Pod": ("tests/cluster/kubelets",),
    "the engine's tests": ("tests/cluster/test_engine.py",),
    "the manifests as shipped": ("tests/cluster/test_manifests.py",),
    "a move into the cluster and back": ("tests/cluster/test_move.py",),
}
"""Pieces that are tests, with where these are."""

EITHER_WAY: Final = (
    ("node loses power", "node partitioned, healed", "node drained"),
    ("node dead before its Pods start", "worker hung"),
    ("no room for 25 s", "worker starved at its start for 25 s"),
    ("node lost, when Google's minute is used up", "node lost, under Google's limits"),
    ("API server away, a worker dies",),
    ("supervisor cut off with its node, healed", "supervisor killed with its node"),
    ("API server away, both supervisors up, a worker dies",),
)
"""Rows of the matrix in which cameras are lost: what they do with a second client matters."""
ONE_WAY: Final = (
    ("impostors on the bus", "kubelet dead for 75 s"),
    ("supervisor killed with its Pod", "supervisor suspended, and woken"),
    ("supervisor cut off from the API server",),
    ("both supervisors killed", "lone supervisor started again"),
    ("API server away, one supervisor cut off",),
    ("API server away, one supervisor starts",),
)
"""Rows in which no camera is, so that it does not matter; they run with those that refuse one, which costs more."""
CLOCKS: Final = ("supervisor killed with its Pod", "supervisor cut off from the API server")
"""Rows that run once more with the second node's clock ahead, as that node may be the one that takes over."""
AHEAD: Final = 2.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`rows` of the matrix, on cameras that do with a second client what `second` says; or `tests`."""

    title: str
    second: str = ""
    rows: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    ahead: float = 0.0

    def command(self, options: Sequence[str]) -> list[str]:
        """What Python is called with; `options` are the matrix's."""
        if self.tests:
            return ["-m", "pytest", "--quiet", *self.tests]
        rows = [word for row in self.rows for word in ("--row", row)]
        ahead = ["--ahead", str(self.ahead)] if self.ahead else []
        return ["-u", "-m", "tests.cluster.matrix", "--second", self.second, *ahead, *rows, *options]


def pieces(seconds: Sequence[str] = ("refuse", "replace"), words: Sequence[str] = ("",)) -> Iterator[Piece]:
    """All, or those with any of `words` in a row's name or in a title, and of these no other rows."""

    def chosen(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if any(word in name for word in words))

    for title in chosen(tuple(TESTS)):
        yield Piece(title, tests=TESTS[title])
    for second in seconds:
        for group in (*EITHER_WAY, *(ONE_WAY if second == seconds[0] else ())):
            if rows := chosen(group):
                yield Piece(f"{second}: {'; '.join(rows)}", second, rows)
    if rows := chosen(CLOCKS):
        yield Piece(f"{seconds[0]}, clocks {AHEAD:.0f} s apart: {'; '.join(rows)}", seconds[0], rows, ahead=AHEAD)
