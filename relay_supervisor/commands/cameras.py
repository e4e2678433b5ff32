"""`relay-supervisor cameras`: list the cameras."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click
import msgspec

from relay_common import ids
from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_supervisor.cameras.overrides import Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.commands.cli import Failure, config_option, json_option, load, typed
from relay_supervisor.commands.client import CameraList, CameraSummary, connect
from relay_supervisor.google.leases.account import open_api

_ROW: Final = "{:<24} {:<9} {:<8} {:<11} {:<12} {:<13} {}"


@click.command("cameras")
@click.option("--ask-google", is_flag=True, help="Ask Google even if a supervisor runs.")
@config_option
@json_option
def command(ask_google: bool, config_path: Path, as_json: bool) -> None:
    """List the cameras with their protocol, codecs and size, and whether they are relayed.

    Asks a running supervisor. Without one, asks Google: that takes one devices.list, of which five a minute are
    allowed.

    \b
    relay-supervisor cameras
    relay-supervisor cameras --json | jq -r '.cameras[].name'
    """
    cameras = None if ask_google else _from_supervisor(config_path)
    if cameras is None:
        config = load(config_path)
        click.echo("asking Google (devices.list: five a minute are allowed)", err=True)
        cameras = asyncio.run(_from_google(config))
    if as_json:
        click.echo(msgspec.json.encode(CameraList(cameras)).decode())
        return
    lines = [click.style(_ROW.format("NAME", "ID", "PROTOCOL", "CODECS", "SIZE", "STATE", ""), bold=True)]
    click.echo("\n".join([*lines, *map(_line, cameras)]) if cameras else "no camera is shared with this project")


def _from_supervisor(config_path: Path) -> list[CameraSummary] | None:
    try:
        with connect(config_path) as client:
            return client.cameras()
    except Failure as failure:
        if failure.exit_code == 2:
            raise
        return None


async def _from_google(config: Config) -> list[CameraSummary]:
    overrides = Overrides(config.paths.state())
    overrides.load()
    registry = Registry(config.cameras, overrides)
    for index, nest in enumerate(config.nest):
        api, tokens, http = open_api(nest, SystemClock())
        try:
            listing = await api.listing()
            registry.discovered(index, listing)
        finally:
            await tokens.aclose()
            await http.aclose()
        for which in listing.streamless:
            text = typed(f"{which} has no live stream: `relay-supervisor check` says what that means")
            click.echo(text, err=True)
    return [_summary(camera, registry.why_not(camera)) for camera in registry]


def _summary(camera: Camera, why_not: str) -> CameraSummary:
    device = camera.device
    return CameraSummary(
        id=ids.camera_id(device.name),
        name=camera.name,
        device=f"…{device.id[-8:]}",
        protocol=device.protocol.value,
        state="disabled" if why_not else "included",
        reason=why_not,
        enabled=not why_not,
        codecs=[*device.video_codecs, *device.audio_codecs],
        width=device.resolution.width,
        height=device.resolution.height,
    )


def _line(camera: CameraSummary) -> str:
    size = f"{camera.width}x{camera.height}" if camera.width else "unknown"
    codecs = "+".join(camera.codecs) or "unknown"
    row = _ROW.format(camera.name[:24], camera.id, camera.protocol, codecs, size, camera.state, camera.reason)
    return click.style(row.rstrip(), fg=None if camera.enabled else "bright_black")
