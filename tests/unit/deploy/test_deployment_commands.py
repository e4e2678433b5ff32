"""What docs/deployment.md shows for Kubernetes is run by tests/cluster, as it stands there."""

from __future__ import annotations

from tests.cluster.as_shown import ENDLESS, PAGE, PREPARED, SECTIONS, shown
from tests.fixtures.doc_commands import commands_under, headings_with_commands


def test_every_command_stands_under_a_heading_whose_commands_are_run() -> None:
    assert headings_with_commands(PAGE, "Kubernetes") == list(SECTIONS)


def test_only_what_a_test_stands_in_for_is_left_out() -> None:
    every = [one for heading in SECTIONS for one in commands_under(PAGE, heading)]
    run = [one for heading in SECTIONS for one in shown(heading)]
    left_out = [one for one in every if one not in run]
    assert all(one.startswith(PREPARED) or ENDLESS in one for one in left_out)
    assert sum(ENDLESS in one for one in left_out) == 2, "a port is forwarded until somebody interrupts it"
    assert any(" wait " in one for one in run)
    assert any(" exec " in one for one in run)
