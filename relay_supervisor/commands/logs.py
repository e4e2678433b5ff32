"""`relay-supervisor logs [NAME]`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import click
import msgspec

from relay_common.log import CATEGORIES
from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import RelayClient, connect, decode
from relay_supervisor.status.log_ring import LogEntry

_COLOURS: Final = {"debug": "bright_black", "info": "cyan", "warning": "yellow", "error": "red", "critical": "red"}
_LEVELS: Final = ("debug", "info", "warning", "error")


class _Lines(msgspec.Struct):
    lines: list[LogEntry]


class _Debug(msgspec.Struct):
    categories: list[str]


@click.command("logs")
@click.argument("name", required=False)
@click.option("--level", type=click.Choice(_LEVELS), default="debug", help="Only lines of this level or above.")
@click.option("--lines", "-n", type=click.IntRange(1, 4000), default=200, show_default=True, help="Most lines to show.")
@click.option("--follow", "-f", is_flag=True, help="Keep showing new lines until Ctrl-C.")
@click.option(
    "--debug",
    metavar="WHICH",
    help=f"Switch the debug lines of subsystems on, and all others off, first: some of {', '.join(CATEGORIES)} joined "
    "by commas, or none.",
)
@config_option
@json_option
def command(
    name: str | None, level: str, lines: int, follow: bool, debug: str | None, config_path: Path, as_json: bool
) -> None:
    """Show the last log lines of the supervisor and its workers.

    The supervisor keeps the last 4000 lines in memory. With NAME only those of one camera. With --json one JSON object
    per line. Of several accounts (nest.account) it is asked of one: `relay-supervisor --account home logs`.

    \b
    relay-supervisor logs --level warning
    relay-supervisor logs "Front Door" -f
    relay-supervisor logs --debug rtsp,sdp -f
    relay-supervisor logs --debug none
    """
    ended_by_hand = contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext()
    with ended_by_hand, connect(config_path) as client:
        if debug is not None:
            _switch(client, debug)
        camera = client.camera(name).id if name else ""
        after = _show(client, 0, camera, level, lines, as_json)
        if not after and not follow:
            click.echo("no such lines are kept (log.level and --debug decide what is logged)", err=True)
        while follow:
            time.sleep(0.5)
            after = _show(client, after, camera, level, 4000, as_json)


def _switch(client: RelayClient, debug: str) -> None:
    wanted = [word.strip() for word in debug.split(",") if word.strip() not in ("", "none")]
    if unknown := set(wanted) - CATEGORIES.keys():
        raise Failure(f"--debug {', '.join(sorted(unknown))}: no such subsystem. Known:  {', '.join(CATEGORIES)}", 2)
    switched = decode(client.post("/api/debug", {"categories": wanted}), _Debug).categories
    click.echo(f"debug lines: {', '.join(switched) or 'none'}", err=True)


def _show(client: RelayClient, after: int, camera: str, level: str, most: int, as_json: bool) -> int:
    """Print the lines after sequence number `after`; returns the last one seen."""
    found = decode(client.get("/api/logs", after=after, camera=camera, level=level, most=most), _Lines).lines
    for line in found:
        click.echo(msgspec.json.encode(line).decode() if as_json else _text(line))
    return found[-1].sequence if found else after


def _text(line: LogEntry) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line.at)) + f".{int(line.at % 1 * 1000):03d}"
    level = click.style(f"{line.level.upper():<7}", fg=_COLOURS.get(line.level))
    where = f" [{line.camera}]" if line.camera else ""
    return f"{clock} {level}{where} {line.logger}: {line.text}"
