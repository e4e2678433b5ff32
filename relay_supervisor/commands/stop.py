"""`relay-supervisor stop`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from relay_common.duration_range import DurationRange
from relay_common.proc import start_ticks
from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import RelayClient, connect, decode, say


class _Stopping(msgspec.Struct):
    pid: int
    started: int


@click.command("stop")
@click.option("--keep-workers", is_flag=True, help="Leave the workers relaying, for the next supervisor to adopt.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
@click.option("--timeout", type=DurationRange(min=1), default=30.0, show_default=True, help="Seconds to wait.")
@config_option
@json_option
def command(keep_workers: bool, no_wait: bool, timeout: float, config_path: Path, as_json: bool) -> None:
    """Stop the running supervisor, and with it all cameras.

    With --keep-workers the pictures continue without a supervisor until their streams expire, after a few minutes: use
    it to upgrade or to restart with another configuration. Of several accounts (nest.account) it is for one's workers,
    and ends the supervisor that is asked: `relay-supervisor --account home stop`.

    \b
    relay-supervisor stop
    relay-supervisor stop --keep-workers && relay-supervisor run
    """
    with connect(config_path) as client:
        body = client.post("/api/stop", {"keep_workers": keep_workers})
        if not no_wait:
            _wait(client, decode(body, _Stopping), timeout)
    words = "stopping" if no_wait else "stopped"
    say(f"{words}; the workers keep running" if keep_workers else words, body, as_json)


def _wait(client: RelayClient, process: _Stopping, timeout: float) -> None:
    """Wait until the process has ended; one on another machine cannot be seen, so wait for its silence."""
    here = start_ticks(process.pid) == process.started
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if start_ticks(process.pid) != process.started if here else not client.alive():
            return
        time.sleep(0.1)
    raise Failure(f"The supervisor (pid {process.pid}) is still running after {timeout:.0f} s. Look at its log")
