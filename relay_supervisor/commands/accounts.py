"""`run` with several accounts that are spread over supervisors: stands by for each, and commands its share of them.

Each account is a relay of its own, with its Lease, state and workers; the process has one page and one API for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Final

import click

from relay_common.backoff import Backoff
from relay_common.config import Config
from relay_common.config_accounts import account_names, of_account
from relay_common.errors import ConfigError, RelayError
from relay_common.log import log_account
from relay_supervisor.cluster.account_seats import AccountSeats
from relay_supervisor.commands.standby import OfAccount, OfProcess, stand_by
from relay_supervisor.http.accounts import AccountsInterface
from relay_supervisor.http.hosting import Hosting
from relay_supervisor.state.directories import private, runtime
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)

_AGAIN: Final = (1.0, 30.0)
"""Seconds until an account that this process could not stand by for is tried again: at first, and at most."""


async def stand_by_for_all(config: Config, reread: Callable[[], Config], process: OfProcess) -> None:
    """Stand by for all accounts until a signal, or until one of them is asked to stop.

    What prevents one of them is said and tried again, and the others go on. Raises ConfigError when the page's address
    cannot be listened on.
    """
    private(config.paths.state(), "state_dir")
    runtime(config.paths.runtime())
    hostings = {name: Hosting(name) for name in account_names(config)}
    seats, loops = AccountSeats(config.cluster.replica, process.clock), Loops(process.clock)
    front = AccountsInterface(config, hostings, process.clock, seats.counters)
    await front.start()
    try:
        click.echo(f"dashboard: {front.url}", err=True)
        loops.start("spreading", seats.run)
        await asyncio.gather(*(_account(config, reread, process, one, seats) for one in hostings.values()))
    finally:
        await loops.aclose()
        await front.stop()


async def _account(
    config: Config, reread: Callable[[], Config], process: OfProcess, hosting: Hosting, seats: AccountSeats
) -> None:
    name, backoff = hosting.name, Backoff(*_AGAIN)
    log_account(name)
    place = OfAccount(hosting, functools.partial(seats.joins, name))

    def again() -> Config:
        found = reread()
        if name not in account_names(found):
            raise ConfigError(f"There is no account {name} in the configuration any more", hint="Start it anew")
        return of_account(found, name)

    while not process.signalled.is_set():
        began = process.clock.now()
        try:
            await stand_by(of_account(config, name), again, process, place)
        except RelayError as error:
            hosting.problem = str(error)
            log.error("account %s: %s", name, error)
        except Exception as error:
            hosting.problem = f"internal error ({type(error).__name__}); see the log"
            log.critical("account %s failed; trying again", name, exc_info=error)
        if process.clock.now() - began > _AGAIN[1]:
            backoff.reset()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.signalled.wait(), backoff.next_delay())
