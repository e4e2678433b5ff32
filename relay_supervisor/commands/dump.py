"""`relay-supervisor dump NAME FILE.pcapng`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.cli import Failure, config_option


@click.command("dump")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option
def command(name: str, file: Path, config_path: Path) -> None:
    """Write a camera's packets to a capture file (not available yet).

    \b
    relay-supervisor dump "Front Door" door.pcapng
    """
    raise Failure("This version's workers cannot write capture files yet. `relay-supervisor logs NAME` may help")
