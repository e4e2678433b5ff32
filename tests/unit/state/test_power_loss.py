"""The state database after kill -9, torn files, a full disk, and a migration."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.models import LiveStream
from relay_supervisor.google.quota.budget import Call
from relay_supervisor.state import schema
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.store import SavedWorker, Store
from tests.fixtures.sqlite_state import sqlite_of

CAMERAS = 20
KILLS = 25

WRITER = textwrap.dedent("""
    import os, pathlib, random, signal, sys, time
    from relay_common.clock import ManualClock
    from relay_supervisor.state.store import Store
    from tests.fixtures.sqlite_state import sqlite_of
    from tests.unit.state.test_power_loss import CAMERAS, lease

    # Forks before anything has a thread; each child writes without end until it is killed.
    for round in range(int(sys.argv[2])):
        hear, tell = os.pipe()
        child = os.fork()
        if not child:
            store = Store(pathlib.Path(sys.argv[1]), ManualClock(now=1000.0), boot="b").open()
            generation = 0
            while True:
                generation += 1
                for n in range(CAMERAS):
                    store.save_lease("acct", lease(n, generation))
                if generation == 2:
                    sqlite_of(store)._barrier().result()
                    os.write(tell, b".")
        os.close(tell)
        # Most are killed while they open the store or write their first; some must have come further.
        if round % 8 == 7:
            os.read(hear, 1)
        time.sleep(random.uniform(0.01, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(hear)
        os.write(1, b".")
        sys.stdin.buffer.read(1)
""")


def lease(n: int, generation: int = 1) -> SavedLease:
    stream = LiveStream(
        Protocol.RTSP, Secret(f"handle {generation}"), 300.0, 0.0, url=Secret(f"rtsps://h/{generation}")
    )
    return SavedLease(f"cam{n}", f"dev{n}", generation, 1000.0, 1300.0, stream)


def opened(path: Path) -> Store:
    return Store(path, ManualClock(now=1000.0), boot="b").open()


def whole(store: Store) -> list[SavedLease]:
    """The leases of a store that had to be readable; each must be of one piece."""
    assert store.notice == store.problem == ""
    found = store.leases("acct")
    for saved in found:
        assert saved.stream.url == Secret(f"rtsps://h/{saved.generation}")
        assert saved.stream.handle == Secret(f"handle {saved.generation}")
    return found


@pytest.mark.slow
def test_killed_at_any_moment_of_writing_it_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "relay.sqlite3"
    command = [sys.executable, "-c", WRITER, str(path), str(KILLS)]
    root = Path(__file__).parents[3]
    newest = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(KILLS):
            assert writer.stdout.read(1) == b".", "the writer failed"
            store = opened(path)
            newest = max([newest, *(saved.generation for saved in whole(store))])
            store.close()
            writer.stdin.write(b".")
            writer.stdin.flush()
    assert newest > 1, "something was written between the kills"


def test_a_log_torn_at_any_byte_gives_what_was_written_before(tmp_path: Path) -> None:
    """Power loss may leave any part of the last writes: SQLite's checksums tell where the truth ends."""
    store = opened(tmp_path / "relay.sqlite3")
    for n in range(8):
        store.save_lease("acct", lease(n))
        barrier = sqlite_of(store)._barrier()
        barrier.result(60.0)
    database, log = (Path(f"{tmp_path}/relay.sqlite3{tail}").read_bytes() for tail in ("", "-wal"))
    store.close()
    counts = []
    for n, length in enumerate(range(0, len(log) + 1, len(log) // 25 + 1)):
        for garbage in (b"", os.urandom(64), bytes(4096)):
            torn = tmp_path / f"{n}.{len(garbage)}" / "relay.sqlite3"
            torn.parent.mkdir()
            torn.write_bytes(database)
            Path(f"{torn}-wal").write_bytes(log[:length] + garbage)
            store = opened(torn)
            counts.append(len(whole(store)))
            store.save_lease("acct", lease(99))
            store.close()
            again = opened(torn)
            assert len(whole(again)) == counts[-1] + 1
            again.close()
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] >= 7


@pytest.mark.parametrize("spoilt", ["header", "middle", "truncated"])
def test_a_spoilt_database_is_set_aside_and_said_so(tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "relay.sqlite3"
    store = opened(path)
    for n in range(200):
        store.save_lease("acct", lease(n))
    store.close()
    content = bytearray(path.read_bytes())
    match spoilt:
        case "header":
            content[:16] = b"not SQLite at al"
        case "middle":
            content[4096:12288] = b"\xa5" * 8192
        case _:
            del content[len(content) // 2 :]
    path.write_bytes(content)
    store = opened(path)
    assert "set aside as relay.sqlite3.corrupt-" in store.notice
    assert store.problem == ""
    assert store.leases("acct") == []
    store.save_lease("acct", lease(1))
    store.close()
    assert len(whole(opened(path))) == 1
    assert [file.read_bytes() == content for file in tmp_path.glob("relay.sqlite3.corrupt-*")] == [True]


def test_a_store_of_an_older_program_is_migrated_with_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "relay.sqlite3"
    store = opened(path)
    store.save_lease("acct", lease(1))
    store.close()
    newer = (*schema.MIGRATIONS, "CREATE TABLE added (x); INSERT INTO added SELECT camera FROM leases;")
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    store = opened(path)
    assert len(whole(store)) == 1
    assert store.database.read("SELECT x FROM added") == [("cam1",)]
    assert store.database.read("PRAGMA user_version") == [(len(newer),)]
    store.close()


def test_a_migration_that_is_interrupted_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "relay.sqlite3"
    store = opened(path)
    store.save_lease("acct", lease(1))
    store.close()
    newer = (*schema.MIGRATIONS, "CREATE TABLE added (x); SELECT power_fails();")
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection)
    connection.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], "CREATE TABLE added (x);"))
    store = opened(path)
    assert len(whole(store)) == 1
    assert store.database.read("SELECT * FROM added") == []
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    where = tmp_path / "small"
    where.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(where)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(path: Path) -> Path:
    """Write to `path` until there is no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


def test_a_full_disk_is_told_and_what_was_to_be_written_is_kept(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_supervisor.state.database._RETRY", 0.05)
    path = small_disk / "relay.sqlite3"
    store = opened(path)
    store.save_lease("acct", lease(0))
    sqlite_of(store)._barrier().result(60.0)
    ballast = fill(small_disk / "ballast")
    for n in range(1, 300):
        store.save_lease("acct", lease(n))
    deadline = time.monotonic() + 60.0
    while not store.problem and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "full" in store.problem or "disk" in store.problem
    ballast.unlink()
    sqlite_of(store)._barrier().result(60.0)
    assert store.problem == ""
    store.close()
    again = opened(path)
    assert len(whole(again)) == 300
    again.close()


def test_a_supervisor_may_start_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    store = opened(small_disk / "relay.sqlite3")
    assert store.problem, "it is told"
    store.save_lease("acct", lease(1))
    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 5.0


def remembering(path: Path) -> None:
    """Leave a state behind that the next run must know."""
    store = opened(path)
    for n in range(50):
        store.save_lease("acct", lease(n))
    store.write_call("acct", "call", Call("m"), 990.0, 991.0)
    store.save_worker(SavedWorker("inst", "cam0", "process 4711 99"))
    store.close()


def known(store: Store) -> tuple[int, int, int]:
    """How many leases, calls and workers it knows of."""
    return len(store.leases("acct")), len(store.calls("acct")), len(store.workers())


def untouched(path: Path) -> None:
    """The state file was not set aside, and is the state again once the trouble is over."""
    assert [file.name for file in path.parent.glob("*.corrupt-*")] == []
    store = opened(path)
    assert store.notice == store.problem == ""
    assert known(store) == (50, 1, 1)
    store.close()


def test_on_a_full_disk_a_sound_state_is_known_and_kept(small_disk: Path) -> None:
    path = small_disk / "relay.sqlite3"
    remembering(path)
    ballast = fill(small_disk / "ballast")
    store = opened(path)
    assert known(store) == (50, 1, 1)
    assert "Free space" in store.notice
    store.save_lease("acct", lease(60))
    sqlite_of(store)._barrier().result(60.0)
    assert "nothing is saved" in store.problem, "a write to memory does not end that"
    store.close()
    ballast.unlink()
    untouched(path)


@pytest.mark.parametrize("before", ["a state", "none"])
def test_started_on_a_full_disk_it_saves_as_soon_as_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr("relay_supervisor.state.database._RETRY", 0.05)
    path = small_disk / "relay.sqlite3"
    if before == "a state":
        remembering(path)
    ballast = fill(small_disk / "ballast")
    store = opened(path)
    assert store.full
    store.forget_worker("inst")
    store.save_lease("acct", lease(60))
    ballast.unlink()
    until_well(store)
    store.save_lease("acct", lease(61))  # and goes on as if nothing had been
    store.close()
    again = opened(path)
    assert again.notice == again.problem == ""
    assert known(again) == ((52, 1, 0) if before == "a state" else (2, 0, 0))
    again.close()


def until_well(store: Store) -> None:
    """Wait until nothing is wrong with the state any more."""
    deadline = time.monotonic() + 30.0
    while store.problem:
        assert time.monotonic() < deadline, store.problem
        time.sleep(0.01)


NO_BYTE_MORE = textwrap.dedent("""
    import os, pathlib, resource, sys
    from tests.fixtures.sqlite_state import sqlite_of
    from tests.unit.state.test_power_loss import known, lease, opened, remembering

    path = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "killed":
        if not os.fork():
            remembering.__globals__["Store"].close = lambda store: sqlite_of(store)._barrier().result(60.0)
            remembering(path)
            os._exit(0)
        os.wait()
        assert pathlib.Path(f"{path}-wal").stat().st_size
    else:
        remembering(path)
    # From here on no write to any file succeeds, as on a full disk, whoever one is.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    store = opened(path)
    print(known(store), store.problem == store.notice != "")
    store.close()
""")


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_where_nothing_can_be_written_a_sound_state_is_known_and_kept(tmp_path: Path, end: str) -> None:
    path = tmp_path / "relay #1?.sqlite3"
    command = [sys.executable, "-c", NO_BYTE_MORE, str(path), end]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert (run.stdout, run.returncode) == ("(50, 1, 1) True\n", 0), run.stderr
    untouched(path)


def test_on_a_read_only_file_system_a_sound_state_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "relay.sqlite3"
    remembering(path)
    with monkeypatch.context() as read_only:

        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        read_only.setattr(os, "open", refuse)
        store = opened(path)
    assert "Read-only file system" in store.problem
    assert known(store) == (50, 1, 1)
    store.close()
    untouched(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the state file for itself."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("CREATE TABLE IF NOT EXISTS held (x)")
    holder.execute("COMMIT")
    try:
        yield
    finally:
        holder.close()


def test_a_locked_state_is_waited_for_and_never_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_supervisor.state.mirror._BUSY", 0.01)
    monkeypatch.setattr("relay_supervisor.state.database._LOCKED", 0.2)
    path = tmp_path / "relay.sqlite3"
    remembering(path)
    with locked(path):
        store = opened(path)
        assert "locked" in store.problem
        assert known(store) == (50, 1, 1)
        store.close()
    untouched(path)
    monkeypatch.setattr("relay_supervisor.state.database._LOCKED", 5.0)
    holding = contextlib.ExitStack()
    holding.enter_context(locked(path))
    monkeypatch.setattr(time, "sleep", lambda _: holding.close())
    untouched(path)
