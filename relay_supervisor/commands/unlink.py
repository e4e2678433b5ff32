"""`relay-supervisor unlink`: revoke a link to a camera."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import connect, decode, say
from relay_supervisor.status.given_links import Revoked


@click.command("unlink")
@click.argument("link")
@config_option
@json_option
def command(link: str, config_path: Path, as_json: bool) -> None:
    """Revoke a link to a camera: whoever watches with it is cut off within seconds.

    LINK is an id that `relay-supervisor links` lists.

    \b
    relay-supervisor unlink 3f9a01c2d4
    """
    if not link:
        raise Failure("There is no link without an id. `relay-supervisor links` lists them")
    with connect(config_path) as client:
        body = client.delete(f"/api/links/{quote(link, safe='')}")
    revoked = decode(body, Revoked)
    watched = (
        f"; {revoked.views} who watched with it {'is' if revoked.views == 1 else 'are'} cut off"
        if revoked.views
        else ""
    )
    unsaved = (
        "" if revoked.saved else "\nThe state cannot be saved now: after a restart of the relay it would be valid again"
    )
    say(f"{revoked.id}: revoked{watched}{unsaved}", body, as_json)
