"""`relay-supervisor snapshot NAME [FILE.jpg]`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect, save

_TIMEOUT = 30.0


@click.command("snapshot")
@camera_argument
@click.argument("file", required=False, default="")
@click.option("--output", "-o", default="", metavar="FILE", hidden=True, help="Instead of FILE.")
@config_option
@json_option
def command(name: str, file: str, output: str, config_path: Path, as_json: bool) -> None:
    """Save what a camera shows now as a JPEG.

    The picture is the camera's next keyframe, so it may take a few seconds. It costs no command of Google's budget.
    FILE is NAME.jpg by default; - is standard output.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor snapshot "Front Door" door.jpg
    relay-supervisor snapshot Garage - | feh -
    """
    with connect(config_path) as client:
        camera = client.camera(name)
        jpeg = client.get(f"/api/cameras/{camera.id}/snapshot", timeout=_TIMEOUT)
    save(camera, output or file, "jpg", jpeg, as_json)
