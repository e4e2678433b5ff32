"""Work on files beside the event loop: a disk that does not answer must not hold it up, and with it every stream."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, Final, TypeVar

from relay_common.tasks import in_thread

ANSWERS_WITHIN: Final = 5.0
"""Seconds for which a disk is waited for."""

T = TypeVar("T")


class DiskWork:
    """Work of one kind, a piece at a time, each in a thread called `name`.

    A piece that the disk never ends costs that thread, and keeps later ones from beginning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._latest: asyncio.Future[Any] | None = None
        """The latest piece, which may still be under way: a disk may answer late, or never."""

    async def do(self, work: Callable[[], T]) -> T:
        """Call `work`, and return what it returns; to be awaited by one caller at a time.

        Raises what `work` raises, OSError when the disk does not answer, and RuntimeError when there is no thread.
        """
        if self._latest is not None:
            await _ended(self._latest)
        self._latest = latest = in_thread(work, self._name)
        await _ended(latest)
        return latest.result()


async def _ended(work: asyncio.Future[Any]) -> None:
    """Return when it has ended, however; raises OSError when it does not."""
    done, _ = await asyncio.wait([work], timeout=ANSWERS_WITHIN)
    if not done:
        raise OSError(errno.ETIMEDOUT, "the disk does not answer")
