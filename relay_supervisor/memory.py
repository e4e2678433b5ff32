"""Keeps the supervisor's memory small over months.

Each HTTP exchange leaves cyclic garbage, with its connection when that is closed. Python looks for it only when many
objects have been made since, which in a process that does little takes a quarter of an hour.

glibc returns freed memory to the kernel only at the end of its heap: a burst (the backlog after a pause, many requests
at once) otherwise leaves pages behind for good, since between what is still used on them nearly everything is free, and
the next burst takes other ones.
"""

from __future__ import annotations

import gc
from typing import Final

from relay_common.allocator import give_back, keep_large_blocks_apart, share_one_arena
from relay_common.clock import Clock

_EVERY: Final = 10.0
"""Seconds between two times; one takes two milliseconds."""


def settle() -> None:
    """Prepare this process, before it starts threads; for a process that is a supervisor and nothing else.

    Python collects its oldest cyclic garbage (tasks and exceptions that failed calls leave) only once a quarter as many
    objects wait as are alive. With what was imported (50,000 objects) left out of the count, that is early, and takes
    a few milliseconds instead of 25.
    """
    share_one_arena()
    keep_large_blocks_apart()
    gc.collect()
    gc.freeze()


async def keep_small(clock: Clock) -> None:
    """Collect garbage, and give memory back, every ten seconds, until cancelled."""
    while True:
        await clock.sleep(_EVERY)
        gc.collect()
        give_back()
