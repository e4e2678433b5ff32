"""`relay-supervisor keyframe NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect, say


@click.command("keyframe")
@camera_argument
@config_option
@json_option
def command(name: str, config_path: Path, as_json: bool) -> None:
    """Ask a camera for a keyframe.

    A WebRTC camera is asked at once; RTSP has no way to ask, so an RTSP camera sends its next keyframe when it is due.
    NAME is a display name (in any case), a camera id, or a device id.

    \b
    relay-supervisor keyframe "Front Door"
    relay-supervisor keyframe 3f9a01c2 --json
    """
    with connect(config_path) as client:
        camera = client.camera(name)
        body = client.post(f"/api/cameras/{camera.id}/keyframe")
        say(f"{camera.name}: a keyframe was asked for", body, as_json)
