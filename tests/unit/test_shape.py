"""One idea a file, functions that fit a screen, and nothing written twice."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.fixtures.product_source import PACKAGES, ROOT, files, nodes

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


@pytest.mark.slow
def test_nothing_stands_in_two_places() -> None:
    command = [sys.executable, "-m", "pylint", "--disable=all", "--enable=duplicate-code", "--score=n"]
    command += [f"--min-similarity-lines={SHARED_LINES + 1}", "--ignore-imports=y", "--ignore-docstrings=y", *PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "R0801" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr
