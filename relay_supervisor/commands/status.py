"""`relay-supervisor status`: what the running supervisor is doing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from relay_supervisor.commands.cli import Failure, config_option, json_option, typed
from relay_supervisor.commands.client import RelayClient, connect, decode, say
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus

_COLOURS: Final = {
    "live": "green",
    "idle": "bright_black",
    "degraded": "red",
    "offline": "red",
    "stopped": "red",
    "disabled": "bright_black",
}
# Terminal control (ECMA-48), stripped by click where there is no terminal.
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_CLEAR: Final = "\x1b[2J"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"
_NO_WRAP: Final = "\x1b[?7l"
_WRAP: Final = "\x1b[?7h"
_ROW: Final = "{:<24} {:<13} {:>9} {:>6} {:>9} {:>7} {:>6} {:>9}  {}"


@click.command("status")
@config_option
@json_option
@click.option("--watch", "-w", is_flag=True, help="Refresh once a second until Ctrl-C.")
def command(config_path: Path, as_json: bool, watch: bool) -> None:
    """Show cameras, their leases and the command budget of the running supervisor.

    \b
    relay-supervisor status
    relay-supervisor status --watch
    relay-supervisor status --json | jq '.cameras[] | {name, state}'
    """
    with connect(config_path) as client:
        if not watch:
            body = client.get("/api/stats")
            say(typed(render(decode(body, RelayStatus))), body, as_json)
            return
        try:
            _watch(client, as_json)
        except KeyboardInterrupt:
            return
        finally:
            if not as_json:
                click.echo(_SHOW_CURSOR, nl=False)


def _watch(client: RelayClient, as_json: bool) -> None:
    """Refresh until Ctrl-C; a supervisor that stops answering is waited for."""
    if not as_json:
        click.echo(_HIDE_CURSOR + _CLEAR, nl=False)
    while True:
        try:
            body = client.get("/api/stats")
            if as_json:
                click.echo(body.decode())
            else:
                _paint(typed(render(decode(body, RelayStatus))))
        except Failure as failure:
            if failure.exit_code == 2 or as_json:
                raise
            _paint(click.style(failure.message, fg="red"))
        time.sleep(1.0)


def _paint(text: str) -> None:
    """Overwrite the terminal without flicker; rows that are too long are cut off by the terminal."""
    lines = "".join(f"{line}{_CLEAR_LINE}\n" for line in text.splitlines())
    click.echo(f"{_HOME}{_NO_WRAP}{lines}{_WRAP}{_CLEAR_BELOW}", nl=False)


def render(status: RelayStatus) -> str:
    """The status as a table for a terminal."""
    totals = status.totals
    head = (
        f"nest-relay {status.version}, up {_span(status.uptime)}: "
        f"{totals.connected} of {totals.cameras} cameras live, {totals.bitrate / 1e6:.1f} Mbit/s"
    )
    title = _ROW.format("CAMERA", "STATE", "BITRATE", "FPS", "LOST", "LEASE", "DELAY", "RESTARTS", "WHY")
    lines = [head, *map(_budget, status.budgets), "", click.style(title, bold=True)]
    lines += [_camera(camera) for camera in status.cameras]
    return "\n".join(lines)


def _budget(budget: BudgetStatus) -> str:
    text = f"commands: {budget.used} of {budget.limit} in the last minute, {budget.depth} waiting"
    if budget.hold:
        text += f", held for {budget.hold:.0f} s"
    if budget.auth_error:
        text += "\n" + click.style(budget.auth_error, fg="red")
    elif budget.auth_warning:
        text += "\n" + click.style(f"{budget.auth_warning}: run `relay-supervisor auth`", fg="yellow")
    return text


def _camera(camera: CameraStatus) -> str:
    video, lease = camera.video, camera.lease
    row = _ROW.format(
        camera.name[:24],
        camera.state,
        f"{video.bitrate_in / 1e3:.0f}k",
        f"{video.fps:.1f}",
        video.lost_in,
        f"{lease.expires_in:.0f} s" if lease.expires_at else "-",
        f"{camera.delay_p99 * 1e3:.1f}ms",
        camera.worker.restarts,
        _why(camera),
    )
    colour = "red" if camera.decodable == "no" else _COLOURS.get(camera.state, "yellow")
    return click.style(row.rstrip(), fg=colour)


def _why(camera: CameraStatus) -> str:
    """Why it is not live and what happens next."""
    if camera.state in ("live", "disabled"):
        return camera.reason
    return "; next: ".join(filter(None, (camera.reason, camera.lease.next_action)))


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
