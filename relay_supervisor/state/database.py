"""SQLite behind a thread: writes are queued, coalesced by row and made durable off the event loop.

A corrupt database is set aside. One that is intact but cannot be opened for writing at the start (disk full, read-only
file system) is copied to memory, so that this run has its content, and opened as soon as that works. If writing fails
later, it is retried every few seconds, and the pending writes are kept meanwhile, one entry per row. A copy in memory
has everything that the file should: when somebody deletes, replaces or damages the file, it is written again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Final, NamedTuple

from relay_common.spoken import spoken
from relay_supervisor.state.directories import write_error
from relay_supervisor.state.mirror import TAILS, Mirror, Statement, copied, in_one_transaction, opened, prepare
from relay_supervisor.state.schema import NewerSchema, take_over
from relay_supervisor.state.state_database import Row

log = logging.getLogger(__name__)

_RETRY: Final = 5.0
FILE_CHECK: Final = 10.0
"""Seconds between two comparisons of the file with the copy in memory."""
DAMAGED: Final = "damaged"
"""Suffix of the last file that was found damaged while the relay ran."""
_MOST_PENDING: Final = 10_000
_BEFORE_SENDING: Final = 1.0  # seconds: a full disk must not end every stream
_LOCKED: Final = 5.0  # seconds to wait at the start for a file locked by another program
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Errors of writing that do not come from the file: it is as good as it was."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
# Neither writes anything. The first also reads the write-ahead log, but needs a -shm file, which the failed attempt to
# open leaves behind if the directory is writable; the second is for directories that are not.
_READ_ONLY: Final = ("mode=ro&readonly_shm=1", "immutable=1")


class _Problem(NamedTuple):
    """What is wrong, in words, and whether that is for want of space."""

    words: str = ""
    full: bool = False


_NONE: Final = _Problem()


class Database:
    """One SQLite file, mode 0600, WAL, written by its own thread.

    With `read_only` the file is only read: its content is copied to memory, and writes stay there. `problem` says in
    words what is wrong ("" when nothing is), `full` whether that is for want of space; `dropped` counts writes lost to
    the bound on memory, `rewritten` how often the file was written again because somebody had deleted, replaced or
    damaged it.
    """

    def __init__(self, path: Path, *, stamp: int, read_only: bool = False) -> None:
        self.path = path
        self._problem = _NONE
        self.notice = ""
        """What was done with a file that could not be used as it was, and what to do; "" otherwise."""
        self.dropped = self.rewritten = 0
        self._stamp, self._read_only = stamp, read_only
        self._connection: sqlite3.Connection
        self._mirror: Mirror | None = None
        """The copy in memory; None when the connection itself is to memory."""
        self._compared = 0.0
        self._lasting = _NONE
        self._pending: dict[Row, Statement] = {}
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._condition = threading.Condition()
        self._in_use = threading.Lock()  # the connection
        self._closing = self._homeless = self._unopened = False
        """`_homeless`: there is no file, all is in the mirror; `_unopened`: there has been none since the start."""
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        return self._problem.words

    @property
    def full(self) -> bool:
        return self._problem.full

    def open(self) -> None:
        """Open the file; never fails because of it, and takes a few seconds at most."""
        self._connection = self._borrow() if self._read_only else self._open(self._stamp)
        if not self.problem and not self._read_only:
            try:
                self._mirror = Mirror(self._connection)
                self._mirror.watch(self.path)
                self._compared = time.monotonic()
            except (OSError, sqlite3.Error) as error:
                self._connection.close()
                self._connection = self._recall(spoken(error), error)
        self._lasting = self._problem  # writing to memory does not fix the file
        self._thread = threading.Thread(target=self._write_loop, name="state database", daemon=True)
        self._thread.start()

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a query; only for the start: it waits for what is being written."""
        try:
            with self._in_use:
                return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self._problem = self._why(f"{self.path}: cannot be read: {error}", error)
            return []

    def write(self, row: Row, sql: str, *parameters: object) -> None:
        """Queue a statement; a later one for the same `row` replaces it."""
        with self._condition:
            if row not in self._pending and len(self._pending) >= _MOST_PENDING:
                self.dropped += 1
                return
            self._pending[row] = (sql, parameters)
            self._condition.notify()

    async def before_sending(self, *, extends: bool) -> None:
        """Return when all writes so far are on disk, or after a second: nobody else can command the account."""
        await self.flush(_BEFORE_SENDING)

    async def flush(self, timeout: float) -> None:
        """Return when all writes so far are on disk, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._barrier()), timeout)
        except TimeoutError:
            if not self.problem:
                self._problem = _Problem(f"{self.path}: the disk is slow")

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left and close the file; does nothing if it was not opened."""
        if self._thread is None:
            return
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"dropped": self.dropped, "rewritten": self.rewritten}

    def _barrier(self) -> concurrent.futures.Future[None]:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        if self._homeless:  # nothing that waiting would help
            done.set_result(None)
            return done
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
                return self._recall(error.strerror or type(error).__name__, error)
            except NewerSchema as error:
                return self._set_aside(f"newer-{stamp}", str(error), newer=True)
            except sqlite3.DatabaseError as error:
                code = _primary_code(error)
                if code in _CORRUPT:
                    return self._set_aside(f"corrupt-{stamp}", str(error))
                if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > give_up:
                    return self._recall(str(error), error)
                time.sleep(0.1)

    def _connect(self, name: str) -> sqlite3.Connection:
        if name != ":memory:":
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
            os.chmod(name, 0o600)
        connection = opened(name)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _recall(self, why: str, error: Exception) -> sqlite3.Connection:
        """A database in memory with the file's content, as far as it can be read."""
        connection, known = self._copy(), "its content was read and is used by this run"
        if connection is None:
            connection, known = self._connect(":memory:"), "nothing could be read from it"
        self.notice = (
            f"{self.path} cannot be written ({why}): {known}, but nothing is saved: leases will not survive a restart. "
            f"Free space there, or fix the named cause: it is tried again every {_RETRY:g} s, and then saved in full"
        )
        self._problem = self._why(self.notice, error)
        return self._without_file(connection)

    def _without_file(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Go on with what is in memory until the file can be opened; returns the connection to use until then."""
        self._mirror, self._homeless, self._unopened = Mirror(connection), True, True
        connection.close()
        return self._mirror.connection

    def _borrow(self) -> sqlite3.Connection:
        """A copy in memory, for reading only."""
        # The first way of reading creates a write-ahead log if there is none; without one, no other process is writing.
        alone = not Path(f"{self.path}-wal").exists()
        connection = self._copy(_READ_ONLY[1:] if alone else _READ_ONLY)
        if connection is None:
            self._problem = _Problem(f"{self.path} cannot be read")
            connection = self._connect(":memory:")
        return connection

    def _copy(self, ways: tuple[str, ...] = _READ_ONLY) -> sqlite3.Connection | None:
        for how in ways:
            address = f"file:{urllib.parse.quote(str(self.path))}?{how}"
            try:
                with contextlib.closing(opened(address)) as source:
                    memory = copied(source)
            except sqlite3.Error:
                continue
            try:
                prepare(memory)
            except (sqlite3.Error, NewerSchema):
                memory.close()
            else:
                return memory
        return None

    def _set_aside(self, suffix: str, why: str, *, newer: bool = False) -> sqlite3.Connection:
        aside = self.path.with_name(f"{self.path.name}.{suffix}")
        try:
            for tail in TAILS:
                source = Path(f"{self.path}{tail}")
                if source.exists():
                    source.rename(f"{aside}{tail}")
            connection = self._connect(str(self.path))
            if newer:
                take_over(connection, aside)
        except (OSError, sqlite3.Error, NewerSchema) as error:
            words = f"{self.path}: unusable ({why}) and cannot be replaced: {spoken(error)}"
            self._problem = self._why(words, error)
            return self._without_file(self._connect(":memory:"))
        kept = "a new one created with what this program understands of it" if newer else "a new one created"
        self.notice = f"{self.path} could not be used ({why}): it was set aside as {aside.name} and {kept}"
        return connection

    def _write_loop(self) -> None:
        retrying = self._homeless
        while True:
            with self._condition:
                if retrying:
                    self._condition.wait_for(lambda: self._closing, _RETRY)
                elif not self._pending and not self._waiting and not self._closing:
                    self._condition.wait(FILE_CHECK)
                batch, self._pending = self._pending, {}
                waiting, self._waiting = self._waiting, []
                closing = self._closing
            with self._in_use:
                written = self._save_what_can_be(batch)
            retrying = not written
            with self._condition:
                if not written and not self._homeless:  # else it will be written from the mirror
                    self._pending = {**batch, **self._pending}
                    self._waiting = waiting + self._waiting
                elif not closing:
                    _release(waiting)
            if closing:
                break
        _release(waiting)
        self._connection.close()

    def _save_what_can_be(self, batch: dict[Row, Statement]) -> bool:
        """`_save`, whatever fails: if the thread ended, nothing would be saved any more, and nobody would know."""
        try:
            return self._save(batch)
        except Exception as error:
            if (words := f"{self.path}: internal error ({type(error).__name__}); see the log") != self.problem:
                log.exception("writing to %s failed unexpectedly", self.path)
            self._problem = _Problem(words)
        if len(batch) > 1:  # a row that can never be written must not hold up the others
            return all(self._save_what_can_be({row: one}) for row, one in batch.items())
        self.dropped += len(batch)
        return True

    def _save(self, batch: dict[Row, Statement]) -> bool:
        """Write a batch to the file and see that the file is what it should be; False to be called again soon."""
        try:
            if self._mirror is not None:
                in_one_transaction(self._mirror.connection, batch.values())
            wrong = self._save_to_file(batch)
        except sqlite3.Error as error:
            words = f"{self.path}: cannot be written: {error}: retrying every {_RETRY:g} s"
            self._problem = self._why(words, error)
            return False
        if self._mirror is not None and wrong:
            return self._open_late(self._mirror) if self._unopened else self._write_again(self._mirror, wrong)
        if batch:
            self._problem = self._lasting
        return True

    def _save_to_file(self, batch: dict[Row, Statement]) -> str:
        """Write a batch; returns what is wrong with the file, in words. Raises sqlite3.Error when it is as it was."""
        if wrong := "was deleted" if self._homeless else self._mirror.changed(self.path) if self._mirror else "":
            return wrong
        try:
            in_one_transaction(self._connection, batch.values())
        except sqlite3.Error as error:
            if self._mirror is None or _primary_code(error) in _PASSING:
                raise
            return f"cannot be used ({error})"
        if self._mirror is None or time.monotonic() - self._compared < FILE_CHECK:
            return ""
        self._compared = time.monotonic()
        return self._mirror.difference(self.path, self._connection)

    def _open_late(self, mirror: Mirror) -> bool:
        """Open the file that could not be opened at the start, and write to it what this run knows."""
        try:
            connection = self._connect(str(self.path))
            try:
                in_one_transaction(connection, mirror.statements())
                mirror.watch(self.path)
            except BaseException:
                connection.close()
                raise
        except (OSError, NewerSchema):
            return False
        except sqlite3.Error as error:
            return _primary_code(error) in _CORRUPT and self._write_again(mirror, "is damaged")
        self._connection = connection
        self._homeless = self._unopened = False
        self._problem, self._lasting, self._compared = _NONE, _NONE, time.monotonic()
        log.info("%s can be written: the state is saved", self.path)
        return True

    def _write_again(self, mirror: Mirror, wrong: str) -> bool:
        """Replace a file that is gone or no longer right; the last one that was found damaged is kept."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            mirror.write_to(fresh)  # first: on a full disk nothing is to be lost
            if not self._homeless:
                self._connection.close()
            self._connection, self._homeless = mirror.connection, True  # until there is a file again
            if self.path.exists():
                os.chmod(self.path, 0o600)
                self.path.replace(self.path.with_name(f"{self.path.name}.{DAMAGED}"))
            for tail in TAILS[1:]:  # of the old file: no part of the new one
                Path(f"{self.path}{tail}").unlink(missing_ok=True)
            fresh.replace(self.path)
            self._connection = self._connect(str(self.path))
            mirror.watch(self.path)
        except (OSError, sqlite3.Error) as error:
            problem = f"{self.path}: {wrong} and cannot be written again: {spoken(error)}"
            if problem != self.problem:
                log.error("%s", problem)
            self._problem = self._why(problem, error)
            return False
        self._homeless = self._unopened = False
        self._problem, self._lasting, self._compared = _NONE, _NONE, time.monotonic()
        self.rewritten += 1
        log.warning("%s %s while the relay runs: written again from memory", self.path, wrong)
        return True

    def _why(self, words: str, error: Exception) -> _Problem:
        return _Problem(words, no_space(error, self.path.parent))


def no_space(error: Exception, directory: Path) -> bool:
    """Whether `error`, of writing in `directory`, is for want of space: a full disk, or a quota that is used up.

    By its code, never by its words, which may hold a path and depend on the language. For a quota, or a file that finds
    no room to begin, SQLite's code does not say why: then something is written there to see.
    """
    if isinstance(error, sqlite3.Error):
        code = _primary_code(error)
        found = write_error(directory) if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) else None
        return code == sqlite3.SQLITE_FULL or (found is not None and found.errno in _NO_SPACE)
    return isinstance(error, OSError) and error.errno in _NO_SPACE


def _primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; our own error for a failed check has none and means corrupt."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _release(waiting: list[concurrent.futures.Future[None]]) -> None:
    for done in waiting:
        if done.set_running_or_notify_cancel():
            done.set_result(None)
