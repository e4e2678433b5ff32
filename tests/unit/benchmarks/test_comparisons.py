"""What the benchmark makes of figures of two kinds: an earlier commit and today's, WebRTC cameras and the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.demo import compare
from tests.benchmarks.earlier import DELAY_BARS, Paired
from tests.benchmarks.table import Report

NAMES = {"a": ("Front Door", "RTSP"), "b": ("Patio", "WEB_RTC"), "c": ("Driveway", "rtsp")}


def paired(earlier: list[tuple[float, float]], today: list[tuple[float, float]]) -> dict[str, bool | None]:
    report = Report()
    runs = {
        which: [dict(zip(DELAY_BARS, run, strict=True)) for run in figures]
        for which, figures in (("earlier", earlier), ("today", today))
    }
    Paired(Path("/earlier/0123456789ab"), "all", 1, 1.0, bars=DELAY_BARS, figures=runs).compare(report)
    return {row.name: row.met for row in report.rows}


def test_todays_delay_may_be_a_tenth_higher() -> None:
    runs = [(0.5, 2.0), (0.6, 9.0), (0.5, 2.2)]
    assert paired(runs, [(0.55, 2.4), (0.54, 2.3), (9.0, 2.2)]) == {
        "added delay p50 of all, today / earlier": True,
        "added delay p99 of all, today / earlier": True,
    }
    assert paired(runs, [(0.56, 2.0)] * 3)["added delay p50 of all, today / earlier"] is False
    assert paired(runs, [(0.5, 2.5)] * 3)["added delay p99 of all, today / earlier"] is False


def test_pairs_are_compared_with_each_other_and_not_with_the_machine() -> None:
    slow = [(1.0, 4.0), (2.0, 8.0), (4.0, 16.0)]
    half = [(p50 / 2, p99 / 2) for p50, p99 in slow]
    report = Report()
    runs = {"earlier": [{"CPU": p50} for p50, _ in slow], "today": [{"CPU": p50} for p50, _ in half]}
    Paired(Path("/earlier/0123456789ab"), "all", 1, 1.0, bars={"CPU": 0.45}, figures=runs).compare(report)
    assert [(row.value, row.met) for row in report.rows] == [(0.5, False)]


def test_without_runs_of_both_there_is_nothing_to_compare() -> None:
    assert paired([(0.5, 2.0)], []) == {}


def heard(events: int, samples: float = 1_920_000) -> dict[str, Any]:
    return {"concealmentEvents": events, "concealedSamples": 100 * events, "totalSamplesReceived": samples}


@pytest.mark.parametrize(("events", "met"), [(2, True), (3, False)])
def test_a_webrtc_camera_may_conceal_as_often_as_the_worst_of_the_others(events: int, met: bool) -> None:
    report = Report()
    compare(report, NAMES, {"a": heard(2), "b": heard(events), "c": heard(0)}, 40.0)
    assert [row.name.rpartition(", ")[2] for row in report.rows[:3]] == [
        "Driveway (AAC)",
        "Front Door (AAC)",
        "Patio (WebRTC)",
    ]
    assert report.rows[-1].met is met


def test_a_camera_that_nobody_listened_to_proves_nothing() -> None:
    report = Report()
    compare(report, NAMES, {"a": heard(2), "b": heard(0, 0), "c": heard(0)}, 40.0)
    assert report.rows[-1].value is None
    assert "was not played" in report.rows[-1].note
