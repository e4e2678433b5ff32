"""`relay-supervisor remove NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.change import change
from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect


@click.command("remove")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Take a camera out of those that are relayed.

    It stays out, also after a restart of the supervisor and when the configuration includes it, until it is added.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor remove Garage
    relay-supervisor remove "Back Garden" --json
    """
    with connect(config_path) as client:
        change(client, client.camera(name), "remove", "removed", as_json)
