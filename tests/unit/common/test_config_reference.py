"""The configuration reference in the documentation is the one that the types give."""

from __future__ import annotations

from pathlib import Path

import msgspec

from relay_common.config import SECTIONS
from relay_common.config_reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference(), "run: python -m relay_common.config_reference > docs/configuration.md"


def test_every_key_is_explained() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) >= sum(len(msgspec.structs.fields(struct)) for struct in SECTIONS.values()) - 1
    unexplained = [row for row in rows if row.endswith("|  |")]
    assert unexplained == []
