"""`relay-supervisor links`: the links to single cameras that were given out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from relay_supervisor.commands.cli import config_option, json_option
from relay_supervisor.commands.client import connect, decode, say
from relay_supervisor.status.given_links import GivenLink, GivenLinks

_ROW: Final = "{:<24} {:<22} {:<17} {:<17} {:<17} {}"


@click.command("links")
@config_option
@json_option
def command(config_path: Path, as_json: bool) -> None:
    """List the links to single cameras that were given out and have not ended.

    Links are made on the page (Share a link) and by the HTTP API. One that an earlier release made is listed once it
    has been used. `relay-supervisor unlink ID` revokes one.

    \b
    relay-supervisor links
    relay-supervisor links --json | jq -r '.links[] | select(.views > 0) | .id'
    """
    with connect(config_path) as client:
        body = client.get("/api/links")
    given = decode(body, GivenLinks)
    lines = [click.style(_ROW.format("ID", "CAMERA", "MADE", "ENDS", "LAST USED", "WATCHING"), bold=True)]
    lines += map(_line, given.links)
    empty = "no link is valid" if given.enabled else 'links are switched off: set viewers.access to "links"'
    say("\n".join(lines) if given.links else empty, body, as_json)


def _line(link: GivenLink) -> str:
    watching = "revoked" if link.revoked_at else str(link.views)
    times = _when(link.made_at, "earlier"), _when(link.expires_at), _when(link.seen_at, "never")
    return click.style(
        _ROW.format(link.id, (link.name or link.camera)[:22], *times, watching),
        fg="bright_black" if link.revoked_at else None,
    )


def _when(at: float, otherwise: str = "") -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else otherwise
