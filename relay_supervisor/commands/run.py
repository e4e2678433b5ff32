"""`relay-supervisor run`: relay the configured cameras until stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path

import click

from relay_common import config_environment, config_file, log
from relay_common.clock import SystemClock
from relay_common.config import Config
from relay_common.config_accounts import account_names
from relay_common.uncaught import log_uncaught
from relay_supervisor import memory, prerequisites
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.cli import config_option
from relay_supervisor.commands.serving import Hangups, serve
from relay_supervisor.commands.systemd import ServiceManager
from relay_supervisor.loop_errors import LoopErrors

logger = logging.getLogger(__name__)


@click.command("run")
@config_option
def command(config_path: Path) -> None:
    """Relay the configured cameras until Ctrl-C or SIGTERM.

    SIGHUP reloads the configuration, as `relay-supervisor reload` does.

    \b
    relay-supervisor run --config /etc/nest-relay/relay.toml
    RELAY_LOG_FORMAT=json relay-supervisor run
    """
    # Secrets are removed from the environment, misspelt ones as well, so that no child inherits them; a reload needs
    # them again.
    environment = dict(os.environ)
    config = _read(config_path, os.environ)
    memory.settle()  # before logging, which starts a thread
    log.configure(config.log.level, config.log.format)
    log_uncaught()
    for warning in config_environment.unknown(environment):
        logger.warning("%s", warning)
    config_environment.drop_unknown(os.environ)
    asyncio.run(run(config, lambda: _read(config_path, dict(environment))))
    sys.stdout.flush()
    log.flush()
    # Workers may have to keep running; multiprocessing would wait for them at a normal exit.
    os._exit(0)


def _read(path: Path, environ: MutableMapping[str, str]) -> Config:
    """A configuration with which the relay can start; raises ConfigError."""
    config = config_file.load(path, environ)
    prerequisites.require(config, str(path))
    return config


async def run(config: Config, reread: Callable[[], Config]) -> None:
    """Relay until a signal, or until it is asked to stop; alone, or with others that stand by."""
    manager, signalled, clock = ServiceManager(), asyncio.Event(), SystemClock()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors(clock))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    alive, hangups = loop.create_task(manager.keep_alive()), Hangups(loop)
    try:
        if config.cluster.replica:
            # With libraries that nothing else needs.
            from relay_supervisor.commands.accounts import stand_by_for_all
            from relay_supervisor.commands.standby import OfProcess, stand_by

            process = OfProcess(manager, signalled, hangups, clock)
            await (stand_by_for_all if account_names(config) else stand_by)(config, reread, process)
        elif config.cluster.namespace:
            from relay_supervisor.commands.alone import run_alone

            await run_alone(config, reread, manager, signalled, hangups, clock)
        else:
            await serve(Supervisor(config, reread=reread), manager, signalled, hangups)
    finally:
        alive.cancel()
