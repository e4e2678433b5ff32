"""Comparing the state file with what it should hold takes little memory, however much it holds."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

from relay_supervisor.state.mirror import Mirror, in_one_transaction, opened
from relay_supervisor.state.schema import migrate

CALLS = 700
"""Google's limit for an hour: what the quota journal holds."""


def test_an_hour_of_calls_is_compared_a_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    with contextlib.closing(opened(str(path))) as file:
        file.execute("PRAGMA journal_mode = WAL")
        migrate(file)
        call = "INSERT INTO calls VALUES (?, 'a', 'POST', ?, ?, 'extend', 1.0, 1.0, 2.0, 2.0, 'boot')"
        rows = [(call, (f"{n:032}", "ExtendRtspStream" * 4, "device" * 20)) for n in range(CALLS)]
        in_one_transaction(file, rows)
        mirror = Mirror(file)
        tracemalloc.start()
        try:
            assert mirror.difference(path, file) == ""
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        mirror.connection.execute("UPDATE calls SET kind = 'other' WHERE id = ?", (f"{CALLS // 2:032}",))
        assert mirror.difference(path, file) == "does not hold what was written to it"
        mirror.connection.execute("UPDATE calls SET kind = 'extend'")
        mirror.connection.execute("DELETE FROM calls WHERE id = ?", (f"{CALLS - 1:032}",))
        assert mirror.difference(path, file) == "does not hold what was written to it"
        mirror.connection.close()
    assert peak < 100_000, f"{peak} bytes at once"
