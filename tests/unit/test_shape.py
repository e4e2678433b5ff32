"""One idea a file, functions that fit a screen, and nothing written twice."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.fixtures.product_source import ROOT, files, nodes

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
SHARED_LINES = 12
"""Lines of code, comments and imports left out, that two places may have in common without being one."""


def test_no_file_and_no_function_is_too_long() -> None:
    long: list[str] = []
    for path in files():
        name = path.relative_to(ROOT)
        if (lines := path.read_text().count("\n")) > LONGEST_FILE:
            long.append(f"{name}: {lines} lines")
        for item in nodes(path):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (item.end_lineno or 0) - item.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}: {item.name} has {lines} lines")
    assert long == []


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line of code; comments, docstrings, imports and indentation are left out."""
    left_out: set[int] = set()
    for item in nodes(path):
        text = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
        if text or isinstance(item, ast.Import | ast.ImportFrom):
            left_out.update(range(item.lineno, (item.end_lineno or item.lineno) + 1))
    lines = enumerate(map(str.strip, path.read_text().splitlines()), 1)
    return [(number, line) for number, line in lines if line and line[0] != "#" and number not in left_out]


def repeated(paths: Iterable[Path], most: int) -> list[str]:
    """Pairs of places with more than `most` lines of code in common."""
    first: dict[tuple[str, ...], tuple[Path, int]] = {}
    found = {}
    for path in paths:
        lines = code_lines(path)
        for at in range(len(lines) - most):
            number = lines[at][0]
            other, line = first.setdefault(tuple(text for _, text in lines[at : at + most + 1]), (path, number))
            if (other, line) != (path, number):
                found.setdefault((other, path, line - number), f"{other}:{line} and {path}:{number}")
    return list(found.values())


def test_nothing_stands_in_two_places() -> None:
    assert repeated(files(), SHARED_LINES) == []


def test_what_stands_in_two_places_is_found(tmp_path: Path) -> None:
    lines = [f"value_{number} = {number}" for number in range(SHARED_LINES + 1)]
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("\n".join(lines))
    two.write_text("def f():\n" + "".join(f"    {line}\n\n    # a comment\n" for line in lines))
    assert repeated([one, two], SHARED_LINES) == [f"{one}:1 and {two}:2"]
    two.write_text("\n".join((*lines[:-1], "value = 0")))
    assert repeated([one, two], SHARED_LINES) == []
