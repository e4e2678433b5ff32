"""`relay-supervisor status`: what the running supervisor is doing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click
import httpx
import msgspec

from relay_common.config import Config
from relay_supervisor.cli import Failure, config_option, load
from relay_supervisor.stats import BudgetStatus, CameraStatus, RelayStatus

_COLOURS: Final = {"live": "green", "degraded": "red", "offline": "red", "stopped": "red"}
_ROW: Final = "{:<24} {:<13} {:>9} {:>6} {:>9} {:>7} {:>6} {:>9}  {}"


@click.command("status")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole status as one JSON object.")
@click.option("--watch", "-w", is_flag=True, help="Refresh once a second until Ctrl-C.")
def command(config_path: Path, as_json: bool, watch: bool) -> None:
    """Show cameras, their leases and the command budget of the running supervisor.

    \b
    relay-supervisor status
    relay-supervisor status --watch
    relay-supervisor status --json | jq '.cameras[] | {name, state}'
    """
    config = load(config_path)
    with _client(config) as client:
        while True:
            body = _fetch(client)
            if as_json:
                click.echo(body.decode())
            else:
                text = render(msgspec.json.decode(body, type=RelayStatus))
                if watch:
                    click.clear()
                click.echo(text)
            if not watch:
                return
            time.sleep(1.0)


def _client(config: Config) -> httpx.Client:
    host, _, port = config.http.listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]"):
        host = "127.0.0.1"
    token = config.http.token.reveal()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=f"http://{host}:{port}", headers=headers, timeout=5.0)


def _fetch(client: httpx.Client) -> bytes:
    try:
        response = client.get("/api/stats")
    except httpx.HTTPError:
        where = str(client.base_url).rstrip("/")
        raise Failure(
            f"No supervisor answers at {where}. Start one with `relay-supervisor run`, or correct http.listen", 3
        ) from None
    if response.status_code == 401:
        raise Failure("The supervisor wants a token: set http.token (or http.token_file) as it has it", 2)
    if response.status_code != 200:
        raise Failure(f"The supervisor answered {response.status_code}")
    return response.content


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
        camera.reason or (lease.next_action if camera.state != "live" else ""),
    )
    return click.style(row.rstrip(), fg=_COLOURS.get(camera.state, "yellow"))


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
