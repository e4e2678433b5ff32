"""A name means one thing: no two places of the relay define classes or types that are called the same."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from tests.fixtures.product_source import ROOT, files, tree

TWICE: Final[dict[str, str]] = {
    "CameraSummary": "what the API answers, and the same as the command line reads it: neither imports the other",
}
"""Names that stand in two places, and why."""


def test_no_name_is_defined_twice() -> None:
    # The simulators speak of the same things as the relay and share no code with it, on purpose.
    places: dict[str, set[str]] = defaultdict(set)
    for path in files():
        name = str(path.relative_to(ROOT))
        if "/simulation/" in name:
            continue
        for node in tree(path).body:
            for defined in defined_by(node):
                places[defined].add(name)
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in TWICE} == {}
    assert {name for name in TWICE if len(places[name]) < 2} == set(), "listed, and defined once"


def defined_by(node: ast.stmt) -> list[str]:
    """Public classes, enumerations and type aliases that a statement defines at module level."""
    if isinstance(node, ast.ClassDef):
        return [] if node.name.startswith("_") else [node.name]
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return [name for name in names if name[0].isupper() and not name.isupper() and len(name) > 1]
    return []
