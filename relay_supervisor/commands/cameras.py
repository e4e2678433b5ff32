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
from relay_common.config_accounts import spoken_accounts
from relay_supervisor.cameras.overrides import Overrides
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.commands.camera_table import short_names
from relay_supervisor.commands.cli import Failure, config_option, json_option, load, typed
from relay_supervisor.commands.client import CameraList, CameraSummary, connect
from relay_supervisor.google.leases.account import open_api

_ROW: Final = "{:<24} {:<9} {:<8} {:<11} {:<12} {:<13} {}"
_ACCOUNT: Final = "ACCOUNT"


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
    click.echo("\n".join(_table(cameras)) if cameras else "no camera is shared with this project")


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
    names = spoken_accounts(config)
    for index, (nest, whose) in enumerate(zip(config.nest, names, strict=True)):
        api, tokens, http = open_api(nest, SystemClock())
        try:
            listing = await api.listing()
            registry.discovered(index, listing)
        finally:
            await tokens.aclose()
            await http.aclose()
        for which in listing.streamless:
            text = f"{which}{f' of {whose}' if whose else ''} has no live stream: "
            text += typed("`relay-supervisor check` says what that means")
            click.echo(text, err=True)
    return [_summary(camera, registry.why_not(camera), names[camera.account]) for camera in registry]


def _summary(camera: Camera, why_not: str, account: str) -> CameraSummary:
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
        account=account,
    )


def _table(cameras: list[CameraSummary]) -> list[str]:
    """A row for each camera; where there are several accounts, each names its own."""
    accounts = short_names(camera.account for camera in cameras)
    title, wide = _ROW.format("NAME", "ID", "PROTOCOL", "CODECS", "SIZE", "STATE", ""), max(map(len, accounts.values()))
    if not wide:
        return [click.style(title, bold=True), *map(_line, cameras)]
    wide = max(wide, len(_ACCOUNT))
    rows = [f"{accounts[camera.account]:<{wide}} {_line(camera)}" for camera in cameras]
    return [click.style(f"{_ACCOUNT:<{wide}} {title}", bold=True), *rows]


def _line(camera: CameraSummary) -> str:
    size = f"{camera.width}x{camera.height}" if camera.width else "unknown"
    codecs = "+".join(camera.codecs) or "unknown"
    row = _ROW.format(camera.name[:24], camera.id, camera.protocol, codecs, size, camera.state, camera.reason)
    return click.style(row.rstrip(), fg=None if camera.enabled else "bright_black")
