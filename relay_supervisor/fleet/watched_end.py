"""A worker's end as all engines' handles tell it: learnt once, awaited by whoever wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay_supervisor.fleet.launcher import Exit


class WatchedEnd:
    """The part of a `Handle` that is about the end; the engine's own part calls `_ended` or `_unwatched`."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._exit: asyncio.Future[Exit] = (loop or asyncio.get_running_loop()).create_future()

    @property
    def exit(self) -> Exit | None:
        """How it ended, once it has; None also when it is no longer watched."""
        return self._exit.result() if self._exit.done() and not self._exit.cancelled() else None

    async def wait(self) -> Exit:
        """How it ended, once it has; raises CancelledError when it is no longer watched."""
        return await asyncio.shield(self._exit)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon after it has ended; never when it is no longer watched."""
        self._exit.add_done_callback(lambda exit_: None if exit_.cancelled() else callback())

    @property
    def _over(self) -> bool:
        """Whether it has ended, or is no longer watched."""
        return self._exit.done()

    def _ended(self, how: Exit) -> None:
        """It has ended; what is learnt later changes nothing."""
        if not self._exit.done():
            self._exit.set_result(how)

    def _unwatched(self) -> None:
        """It is no longer watched."""
        self._exit.cancel()
