"""The state database's schema, its versions and the migrations between them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

_VERSION_1: Final = """
CREATE TABLE leases (
    account TEXT NOT NULL, camera TEXT NOT NULL, device TEXT NOT NULL, protocol TEXT NOT NULL,
    url TEXT NOT NULL, handle TEXT NOT NULL, generation INTEGER NOT NULL,
    granted_wall REAL NOT NULL, granted_mono REAL NOT NULL,
    expires_wall REAL NOT NULL, expires_mono REAL NOT NULL, boot TEXT NOT NULL,
    PRIMARY KEY (account, camera)
);
CREATE TABLE calls (
    id TEXT PRIMARY KEY, account TEXT NOT NULL,
    method TEXT NOT NULL, command TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL,
    sent_wall REAL NOT NULL, sent_mono REAL NOT NULL,
    answered_wall REAL, answered_mono REAL, boot TEXT NOT NULL
);
CREATE TABLE publications (
    camera TEXT PRIMARY KEY, publication TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE workers (
    instance TEXT PRIMARY KEY, camera TEXT NOT NULL, body BLOB NOT NULL
);
"""

_VERSION_2: Final = """
CREATE TABLE devices (account TEXT PRIMARY KEY, body BLOB NOT NULL);
"""

_VERSION_3: Final = """
CREATE TABLE sink_publications (
    camera TEXT NOT NULL, sink TEXT NOT NULL, publication TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (camera, sink)
);
"""
"""Those at WHIP servers: the SFU's stay where an earlier release finds them."""

_VERSION_4: Final = """
CREATE TABLE local_ports (camera TEXT PRIMARY KEY, port INTEGER NOT NULL);
CREATE TABLE local_viewers (viewer TEXT PRIMARY KEY, body BLOB NOT NULL);
"""

_VERSION_5: Final = """
CREATE TABLE abandoned_streams (
    account TEXT NOT NULL, handle TEXT NOT NULL,
    camera TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL, protocol TEXT NOT NULL,
    ends_wall REAL NOT NULL, ends_mono REAL NOT NULL, boot TEXT NOT NULL,
    PRIMARY KEY (account, handle)
);
"""
"""Streams that are to be stopped at Google because nobody receives them any more."""

_VERSION_6: Final = """
CREATE TABLE links (id TEXT PRIMARY KEY, body BLOB NOT NULL);
"""

MIGRATIONS: Final = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)
"""Scripts that lead from version n to n + 1, in order."""


class NewerSchema(Exception):
    """The database was written by a newer program."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest version, each step in its own transaction; raises NewerSchema."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise NewerSchema(f"its schema is version {version}, this program knows {len(MIGRATIONS)}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")


def take_over(connection: sqlite3.Connection, newer: Path) -> None:
    """Copy the known tables and columns from a newer program's database, each table separately."""
    connection.execute("ATTACH ? AS newer", (str(newer),))
    try:
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
    finally:
        connection.execute("DETACH newer")
