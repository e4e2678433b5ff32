"""What is tolerated of cameras, as a metric: one list of names for the code, the page and the labels."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from relay_common.clock import ManualClock
from relay_common.tolerated import TOLERATED
from relay_supervisor.http.metrics import _tolerated
from tests.fixtures.fake_relay import live_camera

ROOT = Path(__file__).parents[3]


def test_code_page_and_metric_have_the_same_names() -> None:
    code: set[str] = set()
    for path in (ROOT / "relay_worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "tolerated":
                code |= {
                    pair.elts[0].value
                    for pair in ast.walk(node)
                    if isinstance(pair, ast.Tuple)
                    and isinstance(pair.elts[0], ast.Constant)
                    and isinstance(pair.elts[0].value, str)
                }
    assert code == set(TOLERATED) - {"other"}
    page = (ROOT / "docs" / "quirks.md").read_text()
    assert code <= set(re.findall(r"`([a-z_]+)`", page))


def test_quirks_are_counters_with_labels_from_a_fixed_list() -> None:
    camera = live_camera(0, ManualClock())
    camera.video.tolerated = {"annex_b": 3, "answer_misnumbered": 6, "of a later version": 2}
    camera.audio.tolerated = {"sound_gap_filled_ms": 40, "duplicate_packet": 1}
    family = _tolerated([camera], ["camera", "name"])
    values = {(s.labels["kind"], s.labels["quirk"]): s.value for s in family.samples}
    assert {quirk for _, quirk in values} == set(TOLERATED), "each is there at zero, too"
    assert {key: value for key, value in values.items() if value} == {
        ("video", "annex_b"): 3,
        ("video", "answer_misnumbered"): 6,
        ("video", "other"): 2,
        ("audio", "sound_gap_filled_ms"): 40,
        ("audio", "duplicate_packet"): 1,
    }
    assert {sample.name for sample in family.samples} == {"relay_camera_tolerated_total"}
