"""`relay-supervisor run`: relay the configured cameras until stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from relay_common import log
from relay_common.config import Config
from relay_supervisor.app import Supervisor
from relay_supervisor.cli import config_option, load


@click.command("run")
@config_option
def command(config_path: Path) -> None:
    """Relay the configured cameras until Ctrl-C or SIGTERM.

    \b
    relay-supervisor run --config /etc/nest-relay/relay.toml
    RELAY_LOG_FORMAT=json relay-supervisor run
    """
    config = load(config_path)
    log.configure(config.log.level, config.log.format)
    asyncio.run(_run(config))
    sys.stdout.flush()
    # Workers may be meant to live on; multiprocessing would wait for them at a normal exit.
    os._exit(0)


async def _run(config: Config) -> None:
    supervisor = Supervisor(config)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await supervisor.start()
    try:
        click.echo(f"dashboard: {supervisor.url}", err=True)
        await stop.wait()
    finally:
        await supervisor.stop()
