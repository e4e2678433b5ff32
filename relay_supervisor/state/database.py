"""SQLite behind a thread: writes are queued, coalesced by row and made durable off the event loop.

A corrupt database is set aside. One that is intact but cannot be opened for writing at the start (disk full, read-only
file system) is copied to memory, so that this run has its content; if writing fails later, it is retried every few
seconds, and the pending writes are kept meanwhile, one entry per row.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sqlite3
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Final

from relay_supervisor.state.schema import NewerSchema, migrate

log = logging.getLogger(__name__)

_RETRY: Final = 5.0
FILE_CHECK: Final = 10.0
"""Longest time in seconds between two checks that the file is still there while nothing is written."""
_MOST_PENDING: Final = 10_000
_BUSY: Final = 2.0  # seconds that SQLite itself waits for a lock
_LOCKED: Final = 5.0  # seconds to wait at the start for a file locked by another program
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Neither writes anything. The first also reads the write-ahead log, but needs a -shm file, which the failed attempt to
# open leaves behind if the directory is writable; the second is for directories that are not.
_READ_ONLY: Final = ("mode=ro&readonly_shm=1", "immutable=1")

Row = tuple[str, str]
Statement = tuple[str, tuple[Any, ...]]


class Database:
    """One SQLite file, mode 0600, WAL, written by its own thread.

    With `read_only` the file is only read: its content is copied to memory, and writes stay there. `problem` says in
    words what is wrong ("" when nothing is); `dropped` counts writes lost to the bound on memory.
    """

    def __init__(self, path: Path, *, stamp: int, read_only: bool = False) -> None:
        self.path = path
        self.problem = ""
        self.notice = ""
        """What was done with a file that could not be used as it was, and what to do; "" otherwise."""
        self.dropped = 0
        self._stamp, self._read_only = stamp, read_only
        self._connection: sqlite3.Connection
        self._lasting = ""
        self._pending: dict[Row, Statement] = {}
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._condition = threading.Condition()
        self._closing = self._homeless = False
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Open the file; never fails because of it, and takes a few seconds at most."""
        self._connection = self._borrow() if self._read_only else self._open(self._stamp)
        self._lasting = self.problem  # writing to memory does not fix the file
        self._thread = threading.Thread(target=self._write_loop, name="state database", daemon=True)
        self._thread.start()

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query; only for the start, before anything is written."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self.problem = f"{self.path}: cannot be read: {error}"
            return []

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        """Queue a statement; a later one for the same `row` replaces it."""
        with self._condition:
            if row not in self._pending and len(self._pending) >= _MOST_PENDING:
                self.dropped += 1
                return
            self._pending[row] = (sql, parameters)
            self._condition.notify()

    async def flush(self, timeout: float) -> None:
        """Return when all writes so far are on disk, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._barrier()), timeout)
        except TimeoutError:
            self.problem = self.problem or f"{self.path}: the disk is slow"

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left and close the file; does nothing if it was not opened."""
        if self._thread is None:
            return
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
        give_up = time.monotonic() + _LOCKED
        while True:
            try:
                return self._connect(str(self.path))
            except OSError as error:
                return self._recall(error.strerror or type(error).__name__)
            except NewerSchema as error:
                return self._set_aside(f"newer-{stamp}", str(error), newer=True)
            except sqlite3.DatabaseError as error:
                code = _primary_code(error)
                if code in _CORRUPT:
                    return self._set_aside(f"corrupt-{stamp}", str(error))
                if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > give_up:
                    return self._recall(str(error))
                time.sleep(0.1)

    def _connect(self, name: str) -> sqlite3.Connection:
        if name != ":memory:":
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
            os.chmod(name, 0o600)
        connection = _opened(name)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _recall(self, why: str) -> sqlite3.Connection:
        """A database in memory with the file's content, as far as it can be read."""
        connection, known = self._copy(), "its content was read and is used by this run"
        if connection is None:
            connection, known = self._connect(":memory:"), "nothing could be read from it"
        self.problem = self.notice = (
            f"{self.path} cannot be written ({why}): {known}, but nothing is saved: leases will not survive a restart. "
            "Free space there, or fix the named cause, and restart the relay: its state is in memory until then"
        )
        return connection

    def _borrow(self) -> sqlite3.Connection:
        """A copy in memory, for reading only."""
        # The first way of reading creates a write-ahead log if there is none; without one, no other process is writing.
        alone = not Path(f"{self.path}-wal").exists()
        connection = self._copy(_READ_ONLY[1:] if alone else _READ_ONLY)
        if connection is None:
            self.problem = f"{self.path} cannot be read"
            connection = self._connect(":memory:")
        return connection

    def _copy(self, ways: tuple[str, ...] = _READ_ONLY) -> sqlite3.Connection | None:
        for how in ways:
            memory = _opened(":memory:")
            try:
                address = f"file:{urllib.parse.quote(str(self.path))}?{how}"
                with contextlib.closing(_opened(address)) as source:
                    # Python's backup waits for a lock forever: this takes it first, or fails.
                    source.execute("BEGIN")
                    source.execute("SELECT 1 FROM sqlite_master").fetchone()
                    source.backup(memory)
                _prepare(memory)
            except (sqlite3.Error, NewerSchema):
                memory.close()
            else:
                return memory
        return None

    def _set_aside(self, suffix: str, why: str, *, newer: bool = False) -> sqlite3.Connection:
        aside = self.path.with_name(f"{self.path.name}.{suffix}")
        try:
            for tail in ("", "-wal", "-shm"):
                source = Path(f"{self.path}{tail}")
                if source.exists():
                    source.rename(f"{aside}{tail}")
            connection = self._connect(str(self.path))
            if newer:
                _take_over(connection, aside)
        except (OSError, sqlite3.Error, NewerSchema) as error:
            self.problem = f"{self.path}: unusable ({why}) and cannot be replaced: {error}"
            return self._connect(":memory:")
        kept = "a new one created with what this program understands of it" if newer else "a new one created"
        self.notice = f"{self.path} could not be used ({why}): it was set aside as {aside.name} and {kept}"
        return connection

    def _write_loop(self) -> None:
        while True:
            with self._condition:
                if not self._pending and not self._waiting and not self._closing:
                    self._condition.wait(FILE_CHECK)
                batch, self._pending = self._pending, {}
                waiting, self._waiting = self._waiting, []
                closing = self._closing
            written = self._keep_file() and self._write_batch(batch)
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

    def _keep_file(self) -> bool:
        """Write the file again when somebody has deleted it; what it held is readable until it is closed."""
        if self._read_only or self._lasting or not (self._homeless or _gone(self.path)):
            return True
        memory = _opened(":memory:")
        try:
            self._connection.backup(memory)
            self._connection.close()
            self._connection, self._homeless = memory, True  # until there is a file again
            for tail in ("-wal", "-shm"):  # of the file that is gone: no part of the new one
                Path(f"{self.path}{tail}").unlink(missing_ok=True)
            self._connection = self._written_again(memory)
        except (OSError, sqlite3.Error) as error:
            if not self.problem:
                log.error("%s was deleted and cannot be written again: %s", self.path, error)
            self.problem = f"{self.path}: was deleted and cannot be written again: {error}"
            return False
        memory.close()
        self._homeless, self.problem = False, ""
        log.warning("%s was deleted while the relay runs: written again from memory", self.path)
        return True

    def _written_again(self, memory: sqlite3.Connection) -> sqlite3.Connection:
        fresh = self._connect(str(self.path))
        try:
            memory.backup(fresh)
        except BaseException:
            fresh.close()
            self.path.unlink(missing_ok=True)  # half a file is none: tried again
            raise
        return fresh

    def _write_batch(self, batch: dict[Row, Statement]) -> bool:
        if not batch:
            return True
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, parameters in batch.values():
                self._connection.execute(sql, parameters)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.problem = f"{self.path}: cannot be written: {error}: retrying every {_RETRY:g} s"
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return False
        self.problem = self._lasting
        return True


def _gone(path: Path) -> bool:
    """Whether there is no such file; what cannot be looked at is not gone."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _opened(name: str) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=_BUSY, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
    )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    migrate(connection)


def _take_over(connection: sqlite3.Connection, newer: Path) -> None:
    """Copy the known tables and columns from a newer program's database, each table separately."""
    connection.execute("ATTACH ? AS newer", (str(newer),))
    try:
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
    finally:
        connection.execute("DETACH newer")


def _primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; our own error for a failed check has none and means corrupt."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _release(waiting: list[concurrent.futures.Future[None]]) -> None:
    for done in waiting:
        if done.set_running_or_notify_cancel():
            done.set_result(None)
