"""The alert rules and the dashboard use only metrics and labels that the relay really has, from its first scrape on.

What it has of sinks begins with the first report of a camera's worker: the dashboard may use it, alerts may not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.secrets import Secret
from relay_common.worker_stats import SinkStats
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.metrics import RelayCollector
from relay_supervisor.status.model import BudgetStatus, CameraStatus, WorkerStatus
from tests.fixtures.fake_relay import FakeRelay

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"

Labels = dict[str, set[str]]

_SELECTOR = re.compile(r"\b(relay_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_FREE = {"camera", "name", "account", "version", "node"}
"""Labels whose values are the user's own."""
IN_A_POD = WorkerStatus(where="node1", phase="waiting", waits="cordoned")


def samples_of(sinks: list[SinkStats], worker: WorkerStatus | None = None) -> dict[str, Labels]:
    """Each sample's name, with the values of its labels, of a relay with one camera that has these sinks."""
    clock = ManualClock()
    relay = FakeRelay(clock)
    relay.cameras = [CameraStatus(id="a", name="Porch", device="x", state="waiting", sinks=sinks)]
    relay.cameras[0].worker = worker or WorkerStatus()
    relay.budget = BudgetStatus(account="home")
    collector = RelayCollector(relay.status, relay.telemetry, relay.events, Gatekeeper(Secret("t" * 16), clock))
    samples: dict[str, Labels] = {}
    for family in collector.collect():
        for sample in family.samples:
            labels = samples.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return samples


@pytest.fixture(scope="module")
def exposed() -> dict[str, Labels]:
    """What a relay has to which nothing has happened yet."""
    return samples_of([])


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> dict[str, list[str]]:
    """PromQL by file; in the rules, whatever is not a comment."""
    rules = [line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#")]
    tests = (RULES.parent / "alerts_test.yaml").read_text()
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    queries += [str(variable["query"]) for variable in dashboard["templating"]["list"]]
    return {
        "alerts.yaml": rules,
        "alerts_test.yaml": re.findall(r"series: '([^']+)'", tests),
        "dashboard.json": queries,
    }


def wrong(expression: str, exposed: dict[str, Labels]) -> list[str]:
    """What the expression selects that the relay does not have."""
    problems = []
    for metric, matchers in _SELECTOR.findall(expression):
        if metric not in exposed:
            problems.append(f"{metric} is not a metric")
            continue
        for label, operator, value in _MATCHER.findall(matchers):
            known = exposed[metric].get(label)
            if known is None:
                problems.append(f"{metric} has no label {label}")
            elif label not in _FREE:
                values = value.split("|") if operator in ("=~", "!~") else [value]
                problems += [f'{metric} is never {label}="{v}"' for v in values if v not in known]
    return problems


@pytest.mark.parametrize("file", ["alerts.yaml", "alerts_test.yaml", "dashboard.json"])
def test_only_what_the_relay_exposes_is_used(file: str, exposed: dict[str, Labels]) -> None:
    used = expressions()[file]
    if file == "dashboard.json":
        exposed = samples_of([SinkStats()], IN_A_POD)
    assert sum("relay_" in expression for expression in used) > 20
    assert [problem for expression in used for problem in wrong(expression, exposed)] == []


@pytest.mark.parametrize(
    "expression",
    [
        "relay_camera_upp == 0",
        'relay_cameras{mood="live"}',
        'relay_cameras{state="alive"}',
        'relay_cameras{state!~"live|x"}',
    ],
)
def test_a_slip_would_be_noticed(expression: str, exposed: dict[str, Labels]) -> None:
    assert len(wrong(expression, exposed)) == 1


def test_all_that_is_said_of_sinks_and_local_viewers_can_be_seen() -> None:
    """But totals that rates in other units show, publications and ICE restarts, what is held, and whether a camera
    can be watched so.
    """
    shown = {metric for expression in expressions()["dashboard.json"] for metric, _ in _SELECTOR.findall(expression)}
    there = {name for name in samples_of([SinkStats()]) if name.startswith(("relay_sink_", "relay_local_"))}
    unseen = {
        *("relay_sink_sent_packets_total", "relay_sink_sent_bytes_total", "relay_sink_retransmitted_packets_total"),
        *("relay_sink_dropped_packets_total", "relay_sink_publications_total", "relay_sink_rtt_seconds"),
        *("relay_sink_ice_restarts_total", "relay_sink_ice_restarts_failed_total"),
        *("relay_local_sent_packets_total", "relay_local_held_bytes", "relay_local_up"),
    }
    assert there - shown == unseen


def test_every_alert_is_in_the_handbook_and_is_made_to_fire() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    handbook = (ROOT / "docs/operations.md").read_text()
    assert len(alerts) == len(set(alerts))
    assert re.findall(r"^### (Relay\w+)$", handbook, re.MULTILINE) == alerts
    fired = re.findall(r'alertname="(\w+)"', (RULES.parent / "alerts_test.yaml").read_text())
    assert sorted(fired) == sorted(alerts)


def test_panels_have_their_own_place_and_number() -> None:
    places = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        places |= cells
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_promtool(command: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt install prometheus)")
    done = subprocess.run(
        [promtool, *command], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
