"""The ingest's table, edge by edge."""

from __future__ import annotations

import pytest

from relay_common.fsm import IllegalTransition, Machine
from relay_worker.camera.webrtc_source import INGEST_TABLE, IngestEvent, IngestState


@pytest.mark.parametrize(("source", "event", "target"), list(INGEST_TABLE.edges()))
def test_every_edge(source: IngestState, event: IngestEvent, target: IngestState) -> None:
    assert Machine(INGEST_TABLE, source).fire(event) is target


@pytest.mark.parametrize("state", list(IngestState))
def test_every_other_move_is_refused_and_changes_nothing(state: IngestState) -> None:
    machine = Machine(INGEST_TABLE, state)
    for event in set(IngestEvent) - set(INGEST_TABLE.allowed(state)):
        with pytest.raises(IllegalTransition):
            machine.fire(event)
        assert machine.state is state


def test_every_state_can_be_closed_and_reached() -> None:
    assert {target for _, _, target in INGEST_TABLE.edges()} == set(IngestState) - {IngestState.NEW}
    for state in set(IngestState) - {IngestState.CLOSED}:
        assert INGEST_TABLE.target(state, IngestEvent.CLOSE) is IngestState.CLOSED
