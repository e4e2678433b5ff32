"""docs/coverage.md names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {"u": "unit", "i": "integration"}


def test_every_test_that_is_named_exists() -> None:
    path, checked = "", 0
    for name in re.findall(r"`([^`]+)`", (ROOT / "docs/coverage.md").read_text()):
        file, separator, test = name.partition("::")
        if not separator:
            continue
        if file != "…":
            folder, _, rest = file.partition("/")
            path = f"tests/{FOLDERS.get(folder, folder)}/{rest}"
        # A long name may be cut short with an ellipsis.
        assert f"def {test.partition('…')[0]}" in (ROOT / path).read_text(), name
        checked += 1
    assert checked > 100
