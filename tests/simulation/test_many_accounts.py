"""A small fleet under the deaths of a large one; `make scale` lives through 250 accounts of 40 cameras."""

from __future__ import annotations

import pytest

from tests.simulation.many_accounts import Account, Fate, Plan, Timeline, live_through

SMALL = Plan(accounts=6, cameras=40, nodes=12, supervisors=3, seconds=2400.0, node_deaths=20.0, supervisor_deaths=30.0)


def test_limits_hold_while_nodes_and_supervisors_die() -> None:
    """Each account is as full as it may be, and a node takes three or four cameras of each."""
    timeline = Timeline(SMALL)
    assert timeline.moves > 60
    assert timeline.supervisor_deaths >= 10
    found = live_through(SMALL, timeline)
    assert found.violations == []
    assert found.refused == 0
    assert found.fullest_minute == 10, "the budget is used"
    assert found.generates <= 240 + timeline.moves + 60, "one each, one for each lost, and what crashes swallowed"


def test_accounts_of_thirty_have_room_for_what_a_lost_node_needs() -> None:
    plan = Plan(
        accounts=4, cameras=30, nodes=30, supervisors=2, seconds=2400.0, node_deaths=30.0, supervisor_deaths=10.0
    )
    timeline = Timeline(plan)
    assert timeline.moves > 20
    found = live_through(plan, timeline)
    assert found.violations == []
    assert found.lapses == 0
    assert (found.still_dark, found.not_live) == (0, 0)
    assert found.dark(0.5) < 20.0
    assert found.dark(1.0) < 100.0


def test_in_a_full_account_a_lost_camera_does_not_wait_for_ever() -> None:
    """Early extensions used to take each place as it came: the last of four lost cameras stayed dark for good."""
    account = Account(Plan(accounts=1, cameras=40), 3, Fate(lost=[(3000.0, [0, 3, 6, 9])]))
    account.run(2700.0)
    assert account.still_dark == 0
    assert account.lapses() == 0
    *soon, last = sorted(account.dark_for)
    assert soon[-1] < 60.0, "what the extensions can spare at once"
    assert last < 300.0, "and what is left over of one round of them"
    assert soon[0] < 30.0


def test_a_supervisor_that_dies_costs_its_accounts_what_the_crash_swallowed() -> None:
    plan = Plan(accounts=4, cameras=30, nodes=4, supervisors=2, seconds=2400.0, node_deaths=0.0, supervisor_deaths=20.0)
    timeline = Timeline(plan)
    deaths = sum(len(fate.headless) for fate in timeline.fates)
    assert deaths >= 10
    found = live_through(plan, timeline)
    assert found.lapses == 0
    assert found.violations == []
    assert found.generates <= 120 + deaths


def test_the_count_is_not_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervisors that take over without the journal exceed the limits, and that is noticed."""
    account = Account(SMALL, 0, Fate(headless=[(1008.0 + 5 * n, 1009.0 + 5 * n) for n in range(8)]))
    assert account.saved is account._memory
    monkeypatch.setattr(account._memory, "calls", lambda account: [])
    account.run(120.0)
    assert account.ledger.violations() != []
