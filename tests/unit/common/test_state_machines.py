"""Every table: all its states can be reached, every edge walked, every other move refused; and it is what is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from relay_common.fsm import IllegalTransition, Machine, Table
from tests.state_machines import MACHINES, PAGE, page

TABLES = pytest.mark.parametrize("table", [table for _, _, table in MACHINES], ids=[title for title, _, _ in MACHINES])


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.state_machines > docs/state-machines.md"


@TABLES
def test_every_state_is_reached_and_every_edge_leads_where_it_is_drawn(table: Table[Any, Any]) -> None:
    reached = {table.initial}
    for _ in type(table.initial):
        reached |= {target for source, _, target in table.edges() if source in reached}
    assert reached == set(type(table.initial))
    for source, event, target in table.edges():
        machine = Machine(table, source)
        assert machine.fire(event) is target
        assert event.value in table.mermaid()


@TABLES
def test_every_other_move_is_refused_and_changes_nothing(table: Table[Any, Any]) -> None:
    events = {event for _, event, _ in table.edges()}
    refused = 0
    for state in type(table.initial):
        for event in events - set(table.allowed(state)):
            machine = Machine(table, state)
            assert not machine.can(event)
            with pytest.raises(IllegalTransition, match="not allowed in state"):
                machine.fire(event)
            assert machine.state is state
            refused += 1
    assert refused > 0
