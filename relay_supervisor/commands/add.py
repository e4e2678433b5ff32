"""`relay-supervisor add NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.change import change
from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect

_DISCOVERY_PATIENCE = 90.0


@click.command("add")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Relay a camera that the configuration does not include.

    When the supervisor does not know the camera yet, it asks Google for the list of cameras first (devices.list, of
    which five a minute are allowed). The camera stays in, also after a restart of the supervisor, until it is removed.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor add "Front Door"
    relay-supervisor add Garage --json
    """
    with connect(config_path) as client:
        try:
            camera = client.camera(name)
        except Failure as failure:
            if failure.exit_code != 1:
                raise
            client.post("/api/discover", timeout=_DISCOVERY_PATIENCE)
            camera = client.camera(name)
        change(client, camera, "add", "added", as_json)
