"""`relay-supervisor enable NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.change import change
from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect


@click.command("enable")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Switch a camera on again that was disabled.

    It is relayed from now on, also after a restart of the supervisor, whatever the configuration says about it.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor enable "Front Door"
    relay-supervisor enable 3f9a01c2 --json
    """
    with connect(config_path) as client:
        change(client, client.camera(name), "enable", "enabled", as_json)
