"""A supervisor from its start until a signal, until it is asked to stop, or until another may be in command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

import click

from relay_common.errors import RelayError
from relay_common.tasks import Tasks
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.systemd import ServiceManager

log = logging.getLogger(__name__)


class Hangups:
    """Who is told of SIGHUP: all that listen, in a process that may run several supervisors."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._listeners: list[Callable[[], object]] = []
        loop.add_signal_handler(signal.SIGHUP, self._arrived)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call that at each one, within the context."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _arrived(self) -> None:
        if not self._listeners:
            log.info("this supervisor stands by: there is nothing to reload")
        for listener in list(self._listeners):
            listener()


async def serve(
    supervisor: Supervisor,
    manager: ServiceManager,
    signalled: asyncio.Event,
    hangups: Hangups,
    over: asyncio.Event | None = None,
    *,
    alone: bool = False,
) -> None:
    """Run it; SIGHUP reloads its configuration.

    With `over`, which is set when it must not command any more, there are others to go on: its workers are kept unless
    it was asked to stop with them. One that is `alone` keeps them only once it is set.
    """
    asked, reloads = supervisor.verbs.stop_requested, Tasks(log, "a reload failed")
    with hangups.listening(lambda: reloads.spawn(_reload(supervisor))):
        await supervisor.start()
        manager.ready()
        try:
            if supervisor.url:
                click.echo(f"dashboard: {supervisor.url}", err=True)
            await any_of(signalled, asked, *([over] if over is not None else []))
        finally:
            if over is None or not over.is_set():
                manager.stopping()
            reloads.cancel()
            others_go_on = over is not None and not asked.is_set() and (over.is_set() or not alone)
            await supervisor.stop(keep_workers=supervisor.verbs.keep_workers or others_go_on)


async def any_of(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _reload(supervisor: Supervisor) -> None:
    try:
        await supervisor.verbs.reload()
    except RelayError as error:
        log.error("reload: %s", error)
