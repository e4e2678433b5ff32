"""asyncio's own errors, each logged once a minute: it repeats some of them hundreds of times a second.

Above all that no descriptor is left for a waiting connection (CPython 3.11 logs that up to backlog times per wake-up).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Final

from relay_common.clock import Clock

log = logging.getLogger(__name__)

_EVERY: Final = 60.0
_MOST_MESSAGES: Final = 64


class LoopErrors:
    """An exception handler for `loop.set_exception_handler`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """For each message, when it was last logged and how often it has come since."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log `context` unless the same message was logged within the last minute."""
        error = context.get("exception")
        message = str(context.get("message", "an error in the event loop"))
        if isinstance(error, OSError):
            # The system's error says it all; the traceback is always asyncio's own.
            message, error = f"{message}: {error.strerror or error}", None
        now, (last, repeated) = self._clock.now(), self._logged.get(message, (-_EVERY, 0))
        if now - last < _EVERY:
            self._logged[message] = (last, repeated + 1)
            return
        self._logged[message] = (now, 0)
        self._logged.move_to_end(message)
        if len(self._logged) > _MOST_MESSAGES:
            self._logged.popitem(last=False)
        log.error("%s%s", message, f" ({repeated} more since it was last logged)" if repeated else "", exc_info=error)
