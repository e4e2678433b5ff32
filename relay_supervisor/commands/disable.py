"""`relay-supervisor disable NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.change import change
from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect


@click.command("disable")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Switch a camera off, keeping it in the list.

    Its stream and its worker are ended. It stays off, also after a restart of the supervisor, until it is enabled.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor disable "Front Door"
    relay-supervisor disable 3f9a01c2 --json
    """
    with connect(config_path) as client:
        change(client, client.camera(name), "disable", "disabled", as_json)
