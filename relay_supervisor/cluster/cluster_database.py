"""The state database in an object of a cluster: SQLite in memory, whose whole image is written, compressed.

A journal entry counts as written when the API server has taken the image: only then may its command go out. A lease is
written at once, as a stream that ends with its supervisor costs another command. What can wait waits for a second and
is written with whatever has come together by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from relay_common.clock import Clock
from relay_common.errors import ConfigError
from relay_common.spoken import spoken
from relay_common.tasks import pause
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.state_object import MOST_BYTES, Deposed
from relay_supervisor.fleet.pods.api import ApiAway, ApiRefused
from relay_supervisor.google.errors import MinuteUnknown, NotInCommand
from relay_supervisor.state.mirror import in_one_transaction, opened
from relay_supervisor.state.schema import NewerSchema, migrate
from relay_supervisor.state.state_database import LEASES, Row

log = logging.getLogger(__name__)

TOGETHER: Final = 1.0
"""Seconds for which a write waits for others, unless a command waits for it or it is a lease's."""
APART: Final = 0.1
"""Least seconds between two writes."""
WITHIN: Final = 5.0
"""Seconds for which a command waits for its entry."""
_JOURNAL_MODE: Final = slice(18, 20)
"""Where a database says that it has a write-ahead log (https://sqlite.org/fileformat2.html#file_format_version_numbers):
1 is none, as in memory."""
_MOST_UNPACKED: Final = 64 << 20


class Saving(Protocol):
    """What takes the image (`StateObject`)."""

    async def save(self, content: bytes) -> None:
        """Raises Deposed, ApiAway and ApiRefused."""
        ...


class ClusterDatabase:
    """A relay's rows, of which `content` is what its last supervisor has written. `run` writes them.

    `before` is this process's own last turn, if nobody else has written since: what it knew counts, and not `content`.
    `in_command` tells whether commands may be sent now, and `may_extend` whether streams may be extended whose entry is
    written only when the API server is back. An earlier supervisor may have done that: before `unsure_until` nothing is
    sent. `on_deposed` is called once when another supervisor has claimed the state: from then on nothing is written and
    no command is sent.
    """

    def __init__(
        self,
        content: bytes,
        state: Saving,
        clock: Clock,
        *,
        before: Handover | None = None,
        in_command: Callable[[], bool],
        may_extend: Callable[[], bool] = lambda: False,
        unsure_until: float = -math.inf,
        on_deposed: Callable[[], None] = lambda: None,
    ) -> None:
        self._content, self._state, self._clock = content if before is None else before.content, state, clock
        self._in_command, self._may_extend, self._on_deposed = in_command, may_extend, on_deposed
        self._unsure_until = unsure_until
        self._connection = sqlite3.connect(":memory:")
        """Replaced by `open`."""
        self.problem = self.notice = ""
        self.full = False
        self.oversized = self.images = 0
        """Images that were too large to be written; those that were."""
        self._deposed = self._closed = False
        self.unsaved_at = -math.inf if before is None else before.unsaved_at
        """When the last extension was sent whose entry is not in the cluster yet; -inf: there is none."""
        self._changes = self._unsaved = 0 if before is None else 1
        self._saved = 0
        self._waiting: dict[asyncio.Future[None], int] = {}
        """Who waits for a write, and for which change."""
        self._changed, self._urgent = asyncio.Event(), asyncio.Event()

    def open(self) -> None:
        """Unpack what was written last. Raises ConfigError for what a newer release has written."""
        self._connection.close()
        self._connection = opened(":memory:")
        try:
            if self._content:
                self._connection.deserialize(unpacked(self._content))
            migrate(self._connection)
        except NewerSchema as error:
            raise ConfigError(
                f"the state in the cluster was written by a newer release: {error}", hint="Run that release"
            ) from error
        except (sqlite3.Error, zlib.error) as error:
            self._connection.close()
            self._connection = opened(":memory:")
            migrate(self._connection)
            self.notice = f"the state in the cluster could not be used ({spoken(error)}): a new one was begun"
        self._connection.execute("PRAGMA secure_delete = ON")  # what was deleted would be written, too
        self._content = b""

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self._connection.execute(sql, parameters).fetchall()

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        """Execute a statement; its effect is saved with the next image."""
        in_one_transaction(self._connection, [(sql, parameters)])
        self._changes += 1
        self._changed.set()
        if row[0].startswith(LEASES):
            self._urgent.set()

    async def before_sending(self, *, extends: bool) -> None:
        """Return when the API server has all writes so far and we are in command; raises NotInCommand."""
        if (wait := self._unsure_until - self._clock.now()) > 0:
            raise MinuteUnknown(wait)
        if extends and not self._deposed and self._may_extend() and not self._in_command():
            self.unsaved_at, self._unsaved = self._clock.now(), self._changes
            return
        if self._deposed or not self._in_command():
            raise NotInCommand("another supervisor may be in command, so nothing was sent")
        written = self._written()
        try:
            await asyncio.wait_for(written, WITHIN)
        except TimeoutError:
            raise NotInCommand(f"the quota log could not be written within {WITHIN:g} s, so nothing was sent") from None
        finally:
            self._waiting.pop(written, None)
        if self._deposed or not self._in_command():
            raise NotInCommand("another supervisor has taken over, so nothing was sent")

    async def flush(self, timeout: float) -> None:
        """Return when the API server has all writes so far, or after `timeout` seconds."""
        await asyncio.wait((self._written(),), timeout=timeout)

    def close(self) -> None:
        """Do nothing: `run` still writes what is left, until `aclose`."""

    async def aclose(self, timeout: float) -> bytes:
        """Write what is left, for so many seconds, then free the memory; returns the content, written or not."""
        await self.flush(timeout)
        self._closed = True
        image = self._connection.serialize()  # empty unless `open` was called
        self._connection.close()
        return zlib.compress(image, 1) if image else self._content

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name, as a file's: images that were dropped, and those that were written."""
        return {"dropped": self.oversized, "rewritten": self.images}

    async def run(self) -> None:
        """Write whatever changes, until cancelled."""
        while not (self._deposed or self._closed):
            if self._changes == self._saved and not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            if not self._waiting:
                await pause(self._clock, TOGETHER, self._urgent)
            if self._closed:
                break
            self._urgent.clear()
            if await self.save():
                await self._clock.sleep(APART)
            else:
                await self._clock.sleep(TOGETHER)
        await asyncio.Event().wait()

    async def save(self) -> bool:
        """Write the image; whether the API server has taken it."""
        number, image = self._changes, zlib.compress(self._connection.serialize(), 1)
        if len(image) > MOST_BYTES:
            self.oversized += 1
            self.problem = f"the state is too large for an object of the cluster ({len(image)} bytes)"
            return False
        try:
            await self._state.save(image)
        except (ApiAway, ApiRefused) as error:
            self.problem = f"the state is not saved: {spoken(error)}"
            return False
        except Deposed as error:
            self._deposed, self.problem = True, spoken(error)
            log.error("%s; this one sends nothing any more", error)
            self._on_deposed()
            number = self._changes  # nothing that waiting would help
        else:
            self.images += 1
            self.problem = ""
            if number >= self._unsaved:
                self.unsaved_at = -math.inf
        self._saved = number
        for written, change in list(self._waiting.items()):
            if change <= number and not written.done():
                written.set_result(None)
                del self._waiting[written]
        return True

    def _written(self) -> asyncio.Future[None]:
        written = asyncio.get_running_loop().create_future()
        if self._deposed or self._changes == self._saved:
            written.set_result(None)
        else:
            self._waiting[written] = self._changes
            self._urgent.set()
        return written


def image_of(file: Path) -> bytes:
    """What a supervisor that was alone has kept in a file, as content to begin with; b"" when there is none.

    What prevents it from being read is logged: without it streams cost a Generate each.
    """
    if not file.exists():
        return b""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as kept:
            image = bytearray(kept.serialize())
        image[_JOURNAL_MODE] = b"\1\1"
        return zlib.compress(image, 1)
    except sqlite3.Error as error:
        log.error("%s is left out of the state in the cluster: %s", file, error)
        return b""


def unpacked(content: bytes) -> bytes:
    """The database in a content that was written; raises zlib.error for what is none."""
    unpacking = zlib.decompressobj()
    image = unpacking.decompress(content, _MOST_UNPACKED)
    if not unpacking.eof or not image:
        raise zlib.error("it is cut short, or too large")
    return image
