"""What programs read of the relay stays as it was recorded (`recorded/*.txt`).

Configuration and environment names, verbs and exit codes, JSON fields, event kinds, metric names, messages on the bus,
the state database and the fields of the log.
"""

from __future__ import annotations

import pytest

from tests.unit.interface.recording import RECORDED, difference
from tests.unit.interface.surfaces import SURFACES


@pytest.mark.parametrize("name", SURFACES)
def test_what_programs_read_stays_as_it_was_recorded(name: str) -> None:
    assert not (said := difference(name)), said


def test_nothing_else_is_recorded() -> None:
    assert {file.stem for file in RECORDED.iterdir()} == SURFACES.keys()
