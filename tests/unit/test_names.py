"""A name means one thing, and is one that somebody who knows RTP and asyncio would search for."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import Final

from tests.fixtures.product_source import ROOT, files, nodes, tree

TWICE: Final[dict[str, str]] = {
    "CameraSummary": "what the API answers, and the same as the command line reads it: neither imports the other",
}
"""Names that stand in two places, and why."""

NOBODY_SEARCHES_FOR: Final = frozenset(
    {"audition", "demand", "desk", "happening", "mend", "mended", "mending", "mends"}
    | {"patience", "probation", "said", "taker", "takers", "told", "trouble", "vain"}
)
"""Words that translate an idea; the field says timeout, remedy, ineffective, handler, offer, event …"""

SEARCHED: Final[dict[str, str]] = {
    "demand": "cameras on demand, a term of the documentation and of Home Assistant",
    "on_demand": "the same",
    "OnDemand": "the same",
    "_ON_PROBATION": "RFC 3550, appendix A.1",
    "requests_in_vain": "a field of the bus",
}


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


def words(name: str) -> set[str]:
    """The words of a name in snake case or camel case, in lower case."""
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


def test_names_are_the_fields_terms() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for path in files():
        place = str(path.relative_to(ROOT))
        if "/simulation/" in place:
            continue
        for item in nodes(path):
            name = ""
            if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = item.name
            elif isinstance(item, ast.Name | ast.Attribute) and isinstance(item.ctx, ast.Store):
                name = item.id if isinstance(item, ast.Name) else item.attr
            elif isinstance(item, ast.arg):
                name = item.arg
            if name not in SEARCHED and words(name) & NOBODY_SEARCHES_FOR:
                found[name].add(place)
    assert dict(found) == {}
