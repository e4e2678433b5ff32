"""The table of causes is what docs and alert rules say."""

from __future__ import annotations

import re
from pathlib import Path

from relay_common.causes import CAUSES, Cause, reference

ROOT = Path(__file__).parents[3]


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs/reasons.md").read_text()
    assert page == reference(), "run: python -m relay_common.causes > docs/reasons.md"


def test_alerts_on_a_reason_are_called_what_every_surface_says() -> None:
    rules = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    found = re.findall(r'relay_problem\{reason="(\w+)"\}.*?summary: "?(.*?)"?\n', rules, re.DOTALL)
    assert len(found) >= 4
    assert [CAUSES[Cause(code)].sentence for code, _ in found] == [summary for _, summary in found]


def test_pages_name_stages_that_the_status_shows() -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("troubleshooting.md", "operations.md"))
    named = re.findall(r"\bstage((?:,? (?:or )?`\w+`)+)", " ".join(text.split()))
    assert len(named) >= 4
    assert {stage for words in named for stage in re.findall(r"\w+(?=`)", words)} <= {c.stage for c in CAUSES.values()}


def test_symptoms_in_the_causes_words_are_the_causes_words() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = [said for said in re.findall(r'^\| .*?"([^"]+)" \|', page, re.MULTILINE) if "…" not in said]
    sentences = [text.sentence for text in CAUSES.values()]
    assert sum(any(one.startswith(said) for one in sentences) for said in quoted) >= 4, quoted
