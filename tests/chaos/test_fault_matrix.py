"""Every row of the fault matrix ends healthy by itself, or degraded with a reason, and does not affect the others.

All rows run in one started world (see `rows.py`), which takes most of the time; each test then judges one row. With
RELAY_REPORTS set, the table of measured times is written to $RELAY_REPORTS/faults.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay_common.simulation.world import CAMERA_NAMES
from tests.chaos.report import table
from tests.chaos.rows import LANES, ROWS, SDM, SUPERVISOR_KILLED, WHOLE, Row, Sees
from tests.chaos.supervisor_killed import kill_supervisor
from tests.chaos.world import WITNESS, Chaos, Sight, chaos_world

pytestmark = [pytest.mark.serial, pytest.mark.chaos, pytest.mark.media, pytest.mark.timeout(420)]

NAMES = dict(zip(LANES, CAMERA_NAMES[1:], strict=False))
"""The camera of each lane."""
DARK = {Sees.NOTHING: 2.0, Sees.SLATE: 6.0}
"""Longest time in seconds without a video packet; filler begins after 2 to 3 s, the SFU gives up after 8."""


@dataclass
class Outcome:
    """The result of a row. `problem` is empty if the camera recovered in time."""

    row: str
    limit: float
    sees: str
    seconds: float = 0.0
    degraded_after: float | None = None
    generates: int = 0
    dark: float = 0.0
    lost: int = 0
    states: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    witness: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    def observe(self, now: Sight, seconds: float) -> None:
        """Record the observation made `seconds` after the fault."""
        self.seconds = seconds
        self.states.add(now.status.state)
        self.sessions |= {now.session} - {""}
        self.dark = max(self.dark, now.age)
        self.lost = max(self.lost, now.lost)


# --- carrying out ----------------------------------------------------------------------------------------------------


def stated(chaos: Chaos, sight: Sight) -> str:
    """All reasons that the relay gives for trouble with a camera or with itself."""
    parts = [part for part in chaos.relay.supervisor.health().reasons if part.camera in ("", sight.status.id)]
    return " ".join((sight.status.reason, sight.status.lease.last_error, *(part.reason for part in parts)))


async def settled(chaos: Chaos, camera: str, within: float = 60.0) -> Sight:
    """The observation once a camera is healthy and its worker's report, one a second, agrees; or the last one."""
    end = time.monotonic() + within
    while True:
        now = await chaos.next(camera)
        if (now.healthy and now.status.source_sessions > 0) or time.monotonic() > end:
            return now


async def carry_out(row: Row, chaos: Chaos, camera: str, began: float) -> Outcome:
    """Inflict a row and watch until the camera is healthy again or its time is up."""
    before = await chaos.next(camera) if row.cold else await settled(chaos, camera)
    witness = chaos.sights.get(WITNESS)
    outcome = Outcome(row.name, row.within, row.sees.value)
    if row.cold:
        before = Sight(before.at, before.status)
    elif not before.healthy:
        outcome.problem = f"it was not well before: {before}"
        return outcome
    else:
        began = time.monotonic()
        await row.inflict(chaos, camera)
    state, words = row.degraded
    bitten = False
    while True:
        now = await chaos.next(camera)
        outcome.observe(now, time.monotonic() - began)
        bitten = bitten or row.bites(before, now)
        if state and outcome.degraded_after is None and now.status.state == state and words in stated(chaos, now):
            outcome.degraded_after = outcome.seconds
            if row.relieve is not None:
                await row.relieve(chaos, camera)
        told = not state or (outcome.degraded_after is not None and words not in stated(chaos, now))
        if bitten and told and row.over(before, now) and now.healthy and now.at > began:
            break
        if outcome.seconds > row.within:
            outcome.problem = (
                f"after {row.within:.0f} s: bitten {bitten}, reason told {told}, {now.status.state}, "
                f"{stated(chaos, now)!r}, keyframes {now.keyframes}, silent for {now.age:.1f} s, {now.commands}"
            )
            break
    outcome.generates = now.generates - before.generates - row.cold
    outcome.lost -= before.lost if before.session == now.session else 0
    outcome.sessions |= {before.session} - {""}
    outcome.witness = harm(witness, chaos.sights.get(WITNESS))
    return outcome


def harm(before: Sight | None, now: Sight | None) -> dict[str, Any]:
    """What happened to the witness between two observations; nothing counts before it has reported itself healthy."""
    if before is None or now is None or not (before.healthy and before.status.source_sessions):
        return {}
    was, is_ = before.status, now.status
    differences = {
        "packets lost": now.lost - before.lost,
        "worker restarts": is_.worker.restarts - was.worker.restarts,
        "RTSP sessions": is_.source_sessions - was.source_sessions,
        "Generate commands": now.generates - before.generates,
        "publications": int(now.session != before.session),
    }
    return {name: count for name, count in differences.items() if count}


async def lane(rows: Sequence[Row], chaos: Chaos, camera: str, began: float) -> list[Outcome]:
    outcomes = []
    if rows and not rows[0].cold:
        await settled(chaos, WITNESS)
    for row in rows:
        outcomes.append(await carry_out(row, chaos, camera, began))
        await chaos.relay.nest(f"cameras/{camera}/clear", {})
    return outcomes


async def drive(wanted: set[str], port: int) -> dict[str, Any]:
    """Run the rows with these names: their outcomes, and what happened to the witness and to a killed supervisor."""
    lanes = {NAMES[rows]: [row for row in rows if row.name in wanted] for rows in LANES}
    short = [NAMES[rows] for rows in SDM]
    async with chaos_world(len(LANES) + 1, short) as chaos:
        for camera, rows in lanes.items():
            for row in rows[:1]:
                if row.cold:
                    await row.inflict(chaos, camera)
        began = time.monotonic()
        await chaos.relay.supervisor.start()
        running = []
        for camera, rows in lanes.items():
            running.append(asyncio.create_task(lane(rows, chaos, camera, began)))
        outcomes = [outcome for outcomes in await asyncio.gather(*running) for outcome in outcomes]
        await settled(chaos, WITNESS)
        # The supervisor that is killed has a world of its own: meanwhile this one takes the rows that concern it whole.
        last, killed = await asyncio.gather(
            whole(wanted, chaos, short[-1], began), kill_supervisor(port) if SUPERVISOR_KILLED in wanted else nothing()
        )
        await asyncio.sleep(1.0)
        video = await chaos.video(WITNESS)
        witness = {"video": video, "sight": await chaos.next(WITNESS), "seconds": time.monotonic() - began}
    return {"rows": [*outcomes, *last], "witness": witness, SUPERVISOR_KILLED: killed}


async def whole(wanted: set[str], chaos: Chaos, camera: str, began: float) -> list[Outcome]:
    """The rows that concern the relay as a whole, one after the other."""
    rows = [row for row in WHOLE if row.name in wanted and (chaos.small or row.name != "disk full")]
    return [await carry_out(row, chaos, camera, began) for row in rows]


async def nothing() -> None:
    """For rows that are not wanted."""


async def everything(wanted: set[str], port: int) -> dict[str, Any]:
    results = await drive(wanted, port)
    if (directory := os.environ.get("RELAY_REPORTS")) is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / "faults.md").write_text(
            table(results["rows"], results[SUPERVISOR_KILLED], results["witness"])
        )
    return {**results, "rows": {outcome.row: outcome for outcome in results["rows"]}}


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, unused_tcp_port_factory: Callable[[], int]) -> dict[str, Any]:
    """The outcomes of all rows to be judged."""
    wanted = {item.callspec.params["row"].name for item in request.session.items if "row" in _parameters(item)}
    if any(item.name == "test_a_killed_supervisor_is_followed_without_a_gap" for item in request.session.items):
        wanted.add(SUPERVISOR_KILLED)
    return asyncio.run(everything(wanted, unused_tcp_port_factory()))


def _parameters(item: Any) -> dict[str, Any]:
    return item.callspec.params if item.path == Path(__file__) and hasattr(item, "callspec") else {}


# --- judging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fault(row: Row, matrix: dict[str, Any]) -> None:
    outcome: Outcome | None = matrix["rows"].get(row.name)
    if outcome is None:
        pytest.skip("a small file system cannot be mounted here: this needs root")
    assert outcome.problem == ""
    assert outcome.generates == row.generates, f"Generate commands spent: {outcome.generates}"
    assert outcome.witness == {}, "it cost another camera something"
    assert outcome.dark <= DARK.get(row.sees, row.within), "the SFU got no packet for too long"
    match row.sees:
        case Sees.NOTHING:
            assert outcome.states == {"live"}
            assert (len(outcome.sessions), outcome.lost) == (1, 0)
        case Sees.SLATE:
            assert (len(outcome.sessions), outcome.lost) == (1, 0), "the publication did not survive"
        case Sees.ANOTHER:
            assert len(outcome.sessions) == 2, "the camera was published more often than once, or not again"
        case Sees.FIRST:
            pass


def test_the_witness_lost_nothing_at_all(matrix: dict[str, Any]) -> None:
    sight: Sight = matrix["witness"]["sight"]
    (track,) = matrix["witness"]["video"]
    assert (track["lost"], track["gaps"], track["restarts"]) == (0, [], 0)
    assert track["packets"] == (track["last_sequence"] - track["first_sequence"] + 1) & 0xFFFF
    assert track["packets"] > 20 * (matrix["witness"]["seconds"] - 20)
    assert sight.status.state == "live"
    assert sight.status.source_sessions == 1
    assert sight.status.worker.restarts == 0
    assert sight.generates == 1
    assert {status for _, status in sight.commands} == {200}


def test_a_killed_supervisor_is_followed_without_a_gap(matrix: dict[str, Any]) -> None:
    killed = matrix[SUPERVISOR_KILLED]
    assert killed["adopted"] < 8.0
    assert killed["same_workers"]
    assert killed["commands"] == ["GenerateRtspStream"] * 2
    assert len(killed["tracks"]) == 2
    for track in killed["tracks"]:
        assert (track["lost"], track["gaps"], track["restarts"]) == (0, [], 0)
