"""`relay-supervisor restart NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect, say


@click.command("restart")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Replace a camera's worker process.

    Its stream at Google is kept: no command of the budget is spent. Viewers see a gap of a second or two.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor restart "Front Door"
    relay-supervisor restart 3f9a01c2 --json
    """
    with connect(config_path) as client:
        camera = client.camera(name)
        body = client.post(f"/api/cameras/{camera.id}/restart")
        say(f"{camera.name}: its worker is being replaced", body, as_json)
