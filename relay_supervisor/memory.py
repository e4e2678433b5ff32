"""Gives memory that was freed back to the kernel, which glibc does only at the end of its heap.

A burst (the backlog after a pause, many requests at once) otherwise leaves pages behind for good: between what is still
used on them nearly everything is free, and the next burst takes other ones.
"""

from __future__ import annotations

from typing import Final

from relay_common.allocator import give_back
from relay_common.clock import Clock

_EVERY: Final = 10.0
"""Seconds between two times; one takes less than a millisecond."""


async def keep_small(clock: Clock) -> None:
    """Give memory back every ten seconds, until cancelled."""
    while True:
        await clock.sleep(_EVERY)
        give_back()
