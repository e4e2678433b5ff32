"""Every counter has a reader: what is counted reaches a report, a metric, a log line or a decision.

A counter is an attribute that starts at zero and is raised with `+=`. Reading it is loading the attribute anywhere in
the three packages but where it is raised. A report that is encoded as a whole (a struct of the bus or of the API) is
read by whoever gets it.
"""

from __future__ import annotations

import ast
from collections import Counter

from tests.fixtures.product_source import ROOT, files, nodes

REPORTS = frozenset(("relay_common/worker_stats.py", "relay_supervisor/status/model.py", "relay_common/protocol.py"))
"""Files whose structs leave the process whole."""


def is_zero(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and type(value.value) in (int, float) and value.value == 0


def started(module: list[ast.AST]) -> set[str]:
    """Attributes of `self` and fields of classes that start at zero."""
    names: set[str] = set()
    for item in module:
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


def raised(module: list[ast.AST]) -> Counter[str]:
    return Counter(
        item.target.attr
        for item in module
        if isinstance(item, ast.AugAssign) and isinstance(item.op, ast.Add) and isinstance(item.target, ast.Attribute)
    )


def loaded(module: list[ast.AST]) -> set[str]:
    return {item.attr for item in module if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load)}


def test_every_counter_has_a_reader() -> None:
    modules = {path.relative_to(ROOT).as_posix(): nodes(path) for path in files()}
    read = set().union(*map(loaded, modules.values()))
    reported = set().union(*(started(modules[name]) for name in REPORTS))
    counters = {
        (name, counter) for name, module in modules.items() for counter in started(module) & raised(module).keys()
    }
    assert len(counters) > 50
    unread = sorted(f"{name}: {counter}" for name, counter in counters if counter not in read | reported)
    assert unread == []
