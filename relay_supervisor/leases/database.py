"""SQLite behind a thread: writes are remembered, coalesced by row and made durable off the event loop.

A database that cannot be read is set aside; one that cannot be written (disk full) is tried again every few
seconds, and what was to be written is kept meanwhile, one entry a row.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, Final

from relay_supervisor.leases.schema import NewerSchema, migrate

_RETRY: Final = 5.0
_MOST_PENDING: Final = 10_000

Row = tuple[str, str]
Statement = tuple[str, tuple[Any, ...]]


class Database:
    """One SQLite file, mode 0600, WAL, written by its own thread.

    `problem` says in words what is wrong ("" when nothing is); `dropped` counts writes lost to the bound on memory.
    """

    def __init__(self, path: Path, *, stamp: int) -> None:
        self.path = path
        self.problem = ""
        self.notice = ""
        """What happened to an unreadable predecessor; "" when there was none."""
        self.dropped = 0
        self._connection = self._open(stamp)
        self._pending: dict[Row, Statement] = {}
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._write_loop, name="state database", daemon=True)
        self._thread.start()

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query; for use at the start, before anything is written."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self.problem = f"{self.path}: cannot be read: {error}"
            return []

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        """Have a statement carried out soon; a later one for the same `row` replaces it."""
        with self._condition:
            if row not in self._pending and len(self._pending) >= _MOST_PENDING:
                self.dropped += 1
                return
            self._pending[row] = (sql, parameters)
            self._condition.notify()

    async def flush(self, timeout: float) -> None:
        """Return when all that was written so far is on disk, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._barrier()), timeout)
        except TimeoutError:
            self.problem = self.problem or f"{self.path}: the disk is slow"

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left and let go of the file."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _barrier(self) -> concurrent.futures.Future[None]:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._condition:
            self._waiting.append(done)
            self._condition.notify()
        return done

    def _open(self, stamp: int) -> sqlite3.Connection:
        try:
            return self._connect(str(self.path))
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}: leases will not survive a restart"
        except NewerSchema as error:
            return self._set_aside(f"newer-{stamp}", str(error))
        except sqlite3.DatabaseError as error:
            return self._set_aside(f"corrupt-{stamp}", str(error))
        return self._connect(":memory:")

    def _connect(self, name: str) -> sqlite3.Connection:
        if name != ":memory:":
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
            os.chmod(name, 0o600)
        connection = sqlite3.connect(name, timeout=2.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, suffix: str, why: str) -> sqlite3.Connection:
        aside = self.path.with_name(f"{self.path.name}.{suffix}")
        try:
            for tail in ("", "-wal", "-shm"):
                source = Path(f"{self.path}{tail}")
                if source.exists():
                    source.rename(f"{aside}{tail}")
            connection = self._connect(str(self.path))
        except (OSError, sqlite3.Error, NewerSchema) as error:
            self.problem = f"{self.path}: unusable ({why}) and cannot be replaced: {error}"
            return self._connect(":memory:")
        self.notice = f"{self.path} could not be used ({why}): it was set aside as {aside.name} and a new one begun"
        return connection

    def _write_loop(self) -> None:
        while True:
            with self._condition:
                if not self._pending and not self._waiting and not self._closing:
                    self._condition.wait()
                batch, self._pending = self._pending, {}
                waiting, self._waiting = self._waiting, []
                closing = self._closing
            written = self._write_batch(batch)
            with self._condition:
                if not written:
                    self._pending = {**batch, **self._pending}
                    self._waiting = waiting + self._waiting
                elif not closing:
                    _release(waiting)
                if not written and not closing:
                    self._condition.wait_for(lambda: self._closing, _RETRY)
            if closing:
                break
        _release(waiting)
        self._connection.close()

    def _write_batch(self, batch: dict[Row, Statement]) -> bool:
        if not batch:
            return True
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, parameters in batch.values():
                self._connection.execute(sql, parameters)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.problem = f"{self.path}: cannot be written: {error}: tried again every {_RETRY:g} s"
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return False
        self.problem = ""
        return True


def _release(waiting: list[concurrent.futures.Future[None]]) -> None:
    for done in waiting:
        if done.set_running_or_notify_cancel():
            done.set_result(None)
