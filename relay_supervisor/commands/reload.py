"""`relay-supervisor reload`."""

from __future__ import annotations

from pathlib import Path

import click

from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import connect, decode, say
from relay_supervisor.operations.reload import ReloadReport


@click.command("reload")
@config_option
@json_option
def command(config_path: Path, as_json: bool) -> None:
    """Have the supervisor reload its configuration.

    Cameras, their settings, [local], [[whip]], what renditions may cost, the log and a new refresh token take effect at
    once, and only cameras whose settings changed are touched. Keys that need a restart are named. A file with mistakes
    changes nothing. SIGHUP does the same. Of several accounts (nest.account) it is for one, where that is commanded:
    `relay-supervisor --account home reload`.

    \b
    relay-supervisor reload
    systemctl reload nest-relay
    """
    with connect(config_path, tell=None) as client:
        body = client.post("/api/reload")
    report = decode(body, ReloadReport)
    lines = [f"applied: {', '.join(report.applied)}"] if report.applied else []
    if report.later:
        lines.append(f"applied when a camera's worker is restarted: {', '.join(report.later)}")
    if report.restart:
        lines.append(click.style(f"needs a restart of the supervisor: {', '.join(report.restart)}", fg="yellow"))
    say("\n".join(lines) or "nothing has changed", body, as_json)
