"""Options that are seconds take numbers of seconds alone."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from relay_supervisor.commands.cli import cli
from relay_worker.debug import debug

SUPERVISOR = [
    ("demo", "--duration"),
    ("demo", "--lease"),
    ("stop", "--timeout"),
    ("drain", "--timeout"),
    ("dump", "--duration"),
]


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(("command", "option"), SUPERVISOR)
def test_no_time_is_forever(command: str, option: str, value: str) -> None:
    """A range alone takes them: a demo of "nan" seconds never ended by itself."""
    told = CliRunner().invoke(cli, [command, option, value])
    assert told.exit_code == 2
    assert f"Invalid value for '{option}'" in told.output


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_nor_is_a_workers(value: str) -> None:
    told = CliRunner().invoke(debug, ["rtsps://camera.example/", "--duration", value])
    assert told.exit_code == 2
    assert "Invalid value for '--duration'" in told.output
