"""`relay-supervisor dump NAME FILE.pcapng`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_common.duration_range import DurationRange
from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import camera_argument, connect, require_writable, save

_TIMEOUT = 30.0


@click.command("dump")
@camera_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--seconds", "-s", type=DurationRange(0.1, 60), default=10.0, hidden=True, help="As --duration.")
@click.option("--duration", type=DurationRange(0.1, 60), help="Seconds to capture.  [default: 10]")
@config_option
@json_option
def command(name: str, file: Path, seconds: float, duration: float | None, config_path: Path, as_json: bool) -> None:
    """Capture a camera's packets into a file that Wireshark opens.

    It holds the RTSP dialogue (credentials blanked out), the RTP and RTCP that come from the camera, and the RTP that
    leaves for the SFU, all unencrypted: treat it as confidential as the camera's picture. 12 MiB at most. In Wireshark
    use Decode As to read UDP ports 5000 (video in), 5002 (audio in), 6000 and 6002 (out) as RTP.

    \b
    relay-supervisor dump "Front Door" door.pcapng
    relay-supervisor dump Garage - --duration 3 | wireshark -k -i -
    """
    seconds = duration if duration is not None else seconds
    require_writable(str(file))
    with connect(config_path) as client:
        camera = client.camera(name)
        if not as_json:
            click.echo(f"{camera.name}: capturing for {seconds:g} s", err=True)
        path = f"/api/cameras/{camera.id}/capture"
        pcapng = client.post(path, {"seconds": seconds}, timeout=_TIMEOUT + seconds)
    save(camera, str(file), "pcapng", pcapng, as_json, private=True)
