"""Every counter has a reader: what is counted reaches a report, a metric, a log line or a decision.

A counter is an attribute that starts at zero and is raised with `+=`. Reading it is loading the attribute anywhere in
the three packages but where it is raised. A report that is encoded as a whole (a struct of the bus or of the API) is
read by whoever gets it.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("relay_common", "relay_worker", "relay_supervisor")
REPORTS = frozenset(("relay_common/worker_stats.py", "relay_supervisor/status/model.py", "relay_common/protocol.py"))
"""Files whose structs leave the process whole."""

TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def is_zero(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and type(value.value) in (int, float) and value.value == 0


def started(tree: ast.Module) -> set[str]:
    """Attributes of `self` and fields of classes that start at zero."""
    names: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.AnnAssign) and is_zero(item.value):
            names |= {item.target.attr} if isinstance(item.target, ast.Attribute) else set()
            names |= {item.target.id} if isinstance(item.target, ast.Name) else set()
        elif isinstance(item, ast.Assign):
            for target in item.targets:
                pairs = [(target, item.value)]
                if isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                    pairs = list(zip(target.elts, item.value.elts, strict=False))
                names |= {one.attr for one, value in pairs if isinstance(one, ast.Attribute) and is_zero(value)}
    return names


def raised(tree: ast.Module) -> Counter[str]:
    return Counter(
        item.target.attr
        for item in ast.walk(tree)
        if isinstance(item, ast.AugAssign) and isinstance(item.op, ast.Add) and isinstance(item.target, ast.Attribute)
    )


def loaded(tree: ast.Module) -> set[str]:
    return {item.attr for item in ast.walk(tree) if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load)}


def test_every_counter_has_a_reader() -> None:
    read = set().union(*(loaded(tree) for tree in TREES.values()))
    reported = set().union(*(started(TREES[name]) for name in REPORTS))
    counters = {(name, counter) for name, tree in TREES.items() for counter in started(tree) & raised(tree).keys()}
    assert len(counters) > 50
    unread = sorted(f"{name}: {counter}" for name, counter in counters if counter not in read | reported)
    assert unread == []
