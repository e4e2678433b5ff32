"""The state file's content in memory: what the file is compared with while the relay runs, and written again from."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Collection, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from relay_supervisor.state.schema import migrate

Statement = tuple[str, tuple[Any, ...]]

TAILS: Final = ("", "-wal", "-shm")
"""What SQLite appends to the name of a file in WAL mode: nothing, the write-ahead log, its index."""
_BUSY: Final = 2.0  # seconds that SQLite itself waits for a lock
_CACHE: Final = 16  # pages of 4096 bytes
_INDEX_SIZE: Final = 32768  # bytes, of the smallest index of a write-ahead log

_Identity = tuple[int, int, int] | None


class Mirror:
    """A copy in memory of an open state file, to which everything is written as well.

    After `watch`, `changed` tells what somebody else has done to the files and `difference` what to their content;
    `write_to` makes a file from the copy.
    """

    def __init__(self, source: sqlite3.Connection) -> None:
        self.connection = copied(source)
        self._files: tuple[_Identity, ...] = ()
        self._index_size = _INDEX_SIZE

    def watch(self, path: Path) -> None:
        """Remember the files that SQLite has open now as the right ones."""
        self._files = tuple(_identity(Path(f"{path}{tail}")) for tail in TAILS)
        self._index_size = _INDEX_SIZE

    def changed(self, path: Path) -> str:
        """What somebody has done to the files, in words, "" for nothing; to be called before each use of them.

        An index that was cut short is made as long as it was: SQLite has it mapped, and reading beyond its end would
        kill the process (SIGBUS).
        """
        try:
            index = path.with_name(f"{path.name}-shm")
            cut = index.stat().st_size < self._index_size
            if cut:
                os.truncate(index, self._index_size)
            self._index_size = index.stat().st_size
        except OSError:
            cut = False
        try:
            found = tuple(_identity(Path(f"{path}{tail}")) for tail in TAILS)
        except OSError:
            return ""  # what cannot be looked at is not known to be wrong
        for seen, known in zip(found, self._files, strict=True):
            if seen is None and known is not None:
                return "was deleted"
            if seen != known:
                other = known is None or seen is None or seen[:2] != known[:2]
                return "was replaced by another file" if other else "had its permissions changed"
        return "was truncated" if cut else ""

    def difference(self, path: Path, connection: sqlite3.Connection) -> str:
        """What is wrong with the content of the file at `path`, open as `connection`; "" when it is as in memory.

        The content is read as the next start would find it, after a checkpoint, not from what SQLite has cached.
        """
        try:
            busy, logged, copied_back = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # While another program reads the file, the newest pages may have to stay in the write-ahead log.
            how = "immutable=1" if not busy and logged == copied_back else "mode=ro"
            with contextlib.closing(opened(f"file:{urllib.parse.quote(str(path))}?{how}")) as file:
                keep_little(file)
                verdict = str(file.execute("PRAGMA quick_check(1)").fetchone()[0])
                if verdict != "ok":
                    return f"is damaged ({verdict})"
                same = all(one == other for one, other in zip_longest(_content(file), _content(self.connection)))
        except sqlite3.Error as error:
            return f"is damaged ({error})"
        return "" if same else "does not hold what was written to it"

    def statements(self) -> list[Statement]:
        """What makes the content of a file of the same schema that of the copy."""
        tables = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found: list[Statement] = []
        for (table,) in tables:
            found.append((f'DELETE FROM "{table}"', ()))
            for row in self.connection.execute(f'SELECT * FROM "{table}"'):
                found.append((f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(row))})', row))
        return found

    def write_to(self, path: Path) -> None:
        """Make a complete file, replacing one that is there; raises OSError or sqlite3.Error and leaves none."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with contextlib.closing(opened(str(path))) as fresh:
                self.connection.backup(fresh)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def opened(name: str) -> sqlite3.Connection:
    """A connection for any thread, with transactions as they are written."""
    connection = sqlite3.connect(
        name, timeout=_BUSY, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
    )
    connection.text_factory = _text
    return connection


def _text(stored: bytes) -> str | bytes:
    """A text; what is not UTF-8 as bytes, which costs its row: SQLite's error costs the table, and quotes the text."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def keep_little(connection: sqlite3.Connection) -> None:
    """Keep few pages of a file in memory: SQLite's two megabytes would fill slowly, though nothing is read twice.

    Raises sqlite3.Error when the file is not a database.
    """
    connection.execute(f"PRAGMA cache_size = {_CACHE}")


def prepare(connection: sqlite3.Connection) -> None:
    """Make a database that was just opened ours; raises sqlite3.Error when it is not sound, and NewerSchema."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    migrate(connection)
    keep_little(connection)


def copied(source: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory; raises sqlite3.Error."""
    memory = opened(":memory:")
    try:
        # Python's backup waits for a lock forever: this takes it first, or fails.
        source.execute("BEGIN")
        try:
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            source.backup(memory)
        finally:
            source.execute("ROLLBACK")
    except BaseException:
        memory.close()
        raise
    return memory


def in_one_transaction(connection: sqlite3.Connection, statements: Collection[Statement]) -> None:
    """Execute all statements or none; raises sqlite3.Error, or another for a value that no column can hold."""
    if not statements:
        return
    try:
        connection.execute("BEGIN IMMEDIATE")
        for sql, parameters in statements:
            connection.execute(sql, parameters)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _identity(path: Path) -> _Identity:
    """What tells a file from any other of this machine, and its mode; None when there is none. Raises OSError."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino, found.st_mode


def _content(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """The schema and all rows in the order of their keys, one at a time: together they would take a megabyte."""
    yield from connection.execute("PRAGMA user_version")
    schema = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    for name, sql in schema:
        yield name, sql
        keys = connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (name,)).fetchall()
        order = ", ".join(f'"{key}"' for (key,) in keys)
        yield from connection.execute(f'SELECT * FROM "{name}" ORDER BY {order}')
