"""`relay-supervisor drain`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from relay_common.duration_range import DurationRange
from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import RelayClient, connect, decode, say


class _Drain(msgspec.Struct):
    draining: bool
    left: list[str]


@click.command("drain")
@click.option("--off", is_flag=True, help="End draining: relay the cameras again.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the last camera has stopped.")
@click.option("--timeout", type=DurationRange(min=1), default=300.0, show_default=True, help="Seconds to wait.")
@config_option
@json_option
def command(off: bool, no_wait: bool, timeout: float, config_path: Path, as_json: bool) -> None:
    """Stop the cameras one by one and start none, before maintenance.

    The supervisor keeps running and answering; no new stream is requested from Google. Draining ends with the
    supervisor.

    \b
    relay-supervisor drain && relay-supervisor stop
    relay-supervisor drain --off
    """
    with connect(config_path) as client:
        body = client.post("/api/drain", {"on": not off})
        if off:
            say("no longer draining: the cameras are being started", body, as_json)
            return
        if not no_wait:
            body = _wait(client, timeout, quiet=as_json)
        left = decode(body, _Drain).left
        say(f"draining: {len(left)} cameras are still running" if left else "drained: no camera runs", body, as_json)


def _wait(client: RelayClient, timeout: float, *, quiet: bool) -> bytes:
    end = time.monotonic() + timeout
    before: list[str] | None = None
    while True:
        body = client.get("/api/drain")
        drain = decode(body, _Drain)
        if not drain.left:
            return body
        if not drain.draining:
            raise Failure("Draining was ended by someone else")
        if time.monotonic() > end:
            raise Failure(f"After {timeout:.0f} s these cameras are still running:  {', '.join(drain.left)}")
        if drain.left != before and not quiet:
            click.echo(f"{len(drain.left)} left: {', '.join(drain.left)}", err=True)
        before = drain.left
        time.sleep(0.2)
