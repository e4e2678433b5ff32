"""What outlives the supervisor, and what happens to a file that cannot be used."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.models import Device, LiveStream, Resolution
from relay_supervisor.google.quota.budget import UNANSWERED, Call
from relay_supervisor.google.quota.command import Command, Verb, stop_of
from relay_supervisor.state import database
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.schema import MIGRATIONS
from relay_supervisor.state.store import (
    LinkCredential,
    SavedLocalViewer,
    SavedPublication,
    SavedWorker,
    Store,
)
from tests.fixtures.sqlite_state import sqlite_of

STREAM = LiveStream(Protocol.RTSP, Secret("handle"), 300.0, 0.0, url=Secret("rtsps://h/p?auth=t"))


def opened(directory: Path, clock: ManualClock, boot: str = "boot1") -> Store:
    return Store(directory / "state" / "relay.db", clock, boot=boot).open()


def lease(now: float, camera: str = "cam", life: float = 300.0) -> SavedLease:
    return SavedLease(camera, "dev", 7, now, now + life, STREAM)


def test_a_lease_survives_and_has_aged(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0))
    store.save_lease("other", lease(1000.0, "elsewhere"))
    store.close()
    clock._now += 40.0
    (found,) = opened(tmp_path, clock).leases("acct")
    assert (found.camera, found.device, found.generation) == ("cam", "dev", 7)
    assert (found.granted, found.expires) == (1000.0, 1300.0)
    assert found.stream.expires_in == 260.0
    assert found.stream.handle == Secret("handle")
    assert found.stream.url == Secret("rtsps://h/p?auth=t")


def test_the_last_write_of_a_row_wins_and_expired_or_forgotten_leases_are_gone(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    for n in range(50):
        store.save_lease("acct", lease(950.0 + n))
    store.save_lease("acct", lease(1000.0, "short", 10.0))
    store.save_lease("acct", lease(1000.0, "stopped"))
    store.forget_lease("acct", "stopped")
    store.close()
    clock._now += 20.0
    found = opened(tmp_path, clock).leases("acct")
    assert [(saved.camera, saved.expires) for saved in found] == [("cam", 1299.0)]


@pytest.mark.parametrize("step", [-7200.0, 0.0, 7200.0])
def test_on_the_same_boot_no_clock_step_matters(tmp_path: Path, step: float) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0))
    store.write_call("acct", "1", Call("m"), 990.0, 991.0)
    store.close()
    clock.step_wall(step)
    again = opened(tmp_path, clock)
    assert [saved.expires for saved in again.leases("acct")] == [1300.0]
    assert [(call.sent, call.answered) for call in again.calls("acct")] == [(990.0, 991.0)]


def test_after_a_reboot_the_wall_clock_tells(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0, wall=5000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0))
    store.write_call("acct", "1", Call("m", "c", "d", "k"), 990.0, None)
    store.close()
    after = ManualClock(now=3.0, wall=5100.0)
    again = opened(tmp_path, after, boot="boot2")
    assert [saved.stream.expires_in for saved in again.leases("acct")] == [200.0]
    (call,) = again.calls("acct")
    assert (call.call, call.sent, call.answered) == (Call("m", "c", "d", "k"), -107.0, None)


def test_after_a_reboot_with_the_clock_set_back_nothing_lies_in_the_future(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock(now=1000.0, wall=5000.0))
    store.save_lease("acct", lease(1000.0))
    store.write_call("acct", "1", Call("m"), 990.0, 991.0)
    store.close()
    again = opened(tmp_path, ManualClock(now=3.0, wall=100.0), boot="boot2")
    assert [saved.stream.expires_in for saved in again.leases("acct")] == [300.0]
    assert [(call.sent, call.answered) for call in again.calls("acct")] == [(3.0, 4.0)], "it took a second"


@pytest.mark.parametrize("boot", ["boot1", "boot2"])
async def test_a_call_that_was_given_up_is_held_by_the_next_process_too(tmp_path: Path, boot: str) -> None:
    """Google may read it until half a minute after it was sent; whoever answers earlier has counted it."""
    clock = ManualClock(now=1000.0, wall=5000.0)
    store = opened(tmp_path, clock)
    journal = store.journal("acct")
    for name, counted_by in (("given up", 1000.0 + UNANSWERED), ("answered", 1003.0)):
        command = Command(verb=Verb.EXTEND, camera=name, device=name)
        await journal.sending(command)
        journal.settled(command, counted_by)
    await store.database.flush(60.0)
    shutil.copytree(tmp_path / "state", tmp_path / "killed" / "state")  # nobody closes what a SIGKILL ends
    after = clock if boot == "boot1" else ManualClock(now=3.0, wall=5000.0)
    found = {call.call.device: call for call in opened(tmp_path / "killed", after, boot).calls("acct")}
    assert found["given up"].answered == after.now() + UNANSWERED
    assert found["answered"].answered == after.now() + 3.0
    store.close()


def test_calls_older_than_an_hour_are_dropped(tmp_path: Path) -> None:
    clock = ManualClock(now=10_000.0)
    store = opened(tmp_path, clock)
    store.write_call("acct", "old", Call("m"), 5000.0, 5001.0)
    store.write_call("acct", "new", Call("m"), 9000.0, 9001.0)
    store.write_call("acct", "unsent", Call("m"), 9999.0, None)
    store.forget_call("unsent")
    store.close()
    assert [call.sent for call in opened(tmp_path, clock).calls("acct")] == [9000.0]


def test_a_step_of_the_wall_clock_drops_no_call_that_still_counts(tmp_path: Path) -> None:
    clock = ManualClock(now=10_000.0)
    store = opened(tmp_path, clock)
    store.write_call("acct", "before", Call("ExecuteDeviceCommand"), 10_000.0, 10_000.0)
    clock.step_wall(7200.0)
    store.write_call("acct", "after", Call("ExecuteDeviceCommand"), 10_000.0, 10_000.0)
    store.close()
    assert len(opened(tmp_path, clock).calls("acct")) == 2


async def test_the_journal_is_on_disk_before_the_call_is_sent(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    journal = store.journal("acct")
    first, second, unsent = (Command(verb=Verb.GENERATE, camera=name, device=name) for name in "abc")
    for command in (first, second, unsent):
        await journal.sending(command)
    reader = sqlite3.connect(tmp_path / "state" / "relay.db")
    assert reader.execute("SELECT count(*) FROM calls").fetchone() == (3,)
    clock._now += 1.0
    journal.settled(first, clock.now())
    journal.settled(unsent, None)
    await store.database.flush(60.0)
    rows = reader.execute("SELECT device, answered_mono FROM calls ORDER BY device").fetchall()
    assert rows == [("a", 1001.0), ("b", None)]
    reader.close()
    store.close()


def test_publications_and_workers(tmp_path: Path) -> None:
    clock = ManualClock()
    publication = SavedPublication("cam", "pub1", "session", {"video": "v", "audio": "a"}, 5.0)
    worker = SavedWorker("inst", "cam", "process 4711 99", 7, "pub1", 1)
    store = opened(tmp_path, clock)
    store.save_publication(publication)
    store.save_publication(msgspec.structs.replace(publication, camera="gone"))
    store.forget_publication("gone")
    store.save_worker(worker)
    store.save_worker(msgspec.structs.replace(worker, instance="gone"))
    store.forget_worker("gone")
    store.close()
    again = opened(tmp_path, clock)
    assert again.publications() == [publication]
    assert again.workers() == [worker]


def test_workers_are_where_releases_find_them_that_know_processes_only(tmp_path: Path) -> None:
    """One by its pid and start time, as such a release had it; any other has none, which is one that has ended."""
    store = opened(tmp_path, ManualClock())
    elsewhere = SavedWorker("w2", "cam2", "pod w-2 8f14", key="k" * 40)
    store.save_worker(elsewhere)
    store.save_worker(SavedWorker("w1", "cam1", "process 4711 99", 7))
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "relay.db")) as database:
        bodies = dict(database.execute("SELECT instance, body FROM workers"))
        assert msgspec.json.decode(bodies["w1"]) == {
            "instance": "w1", "camera": "cam1", "pid": 4711, "started": 99, "generation": 7
        }  # fmt: skip
        assert [msgspec.json.decode(bodies["w2"])[name] for name in ("pid", "started")] == [0, 0]
        earlier = b'{"instance":"w3","camera":"cam3","pid":12,"started":34}'
        with database:
            database.execute("INSERT INTO workers VALUES ('w3', 'cam3', ?)", (earlier,))
    again = {worker.instance: worker for worker in opened(tmp_path, ManualClock()).workers()}
    assert again["w2"] == elsewhere
    assert (again["w1"].ref, again["w3"].ref) == ("process 4711 99", "process 12 34")


def known(n: int) -> Device:
    name = f"enterprises/p/devices/d{n}"
    return Device(name, f"d{n}", "DOORBELL", f"Door {n}", (Protocol.WEB_RTC,), ("H264",), ("OPUS",), Resolution(4, 3))


def test_an_accounts_devices_survive_as_they_were_last_known(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_devices("acct", [known(1), known(2)])
    store.save_devices("acct", [msgspec.structs.replace(known(2), named=False)])
    store.save_devices("other", [known(3)])
    store.close()
    again = opened(tmp_path, ManualClock())
    assert again.devices("acct") == [msgspec.structs.replace(known(2), named=False)]
    assert again.devices("elsewhere") == []
    again.save_devices("acct", [known(n) for n in range(1000)])
    again.close()
    assert len(opened(tmp_path, ManualClock()).devices("acct")) == 200


@pytest.mark.parametrize("body", [b"", b"[{}]", b"{}", b'[{"name": "\xff"}]', b"\xff", 7, b'[{"protocols": ["MOQ"]}]'])
def test_devices_that_cannot_be_read_are_as_if_unknown(tmp_path: Path, body: object) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_devices("acct", [known(1)])
    store.database.write(("devices", "acct"), "INSERT OR REPLACE INTO devices VALUES (?, ?)", "acct", body)
    store.close()
    again = opened(tmp_path, ManualClock())
    assert again.devices("acct") == []
    assert again.problem == ""


def test_streams_that_are_to_be_stopped_are_kept_until_they_end(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    for handle, ends in (("long", 1300.0), ("short", 1020.0), ("stopped", 1300.0)):
        store.save_abandoned("acct", stop_of("cam", "dev", "DOORBELL", Protocol.WEB_RTC, Secret(handle), 1000.0, ends))
    store.forget_abandoned("acct", "stopped")
    store.close()
    clock._now += 40.0
    again = opened(tmp_path, clock)
    (found,) = again.abandoned("acct")
    assert (found.verb, found.orphan, found.deadline) == (Verb.STOP, True, 1300.0)
    assert (found.camera, found.device, found.kind, found.protocol) == ("cam", "dev", "DOORBELL", Protocol.WEB_RTC)
    assert found.handle == Secret("long")
    assert again.abandoned("other") == []
    again.close()
    assert len(opened(tmp_path, clock).database.read("SELECT * FROM abandoned_streams")) == 1


_WITHOUT_LOCAL = "DROP TABLE links; DROP TABLE abandoned_streams; DROP TABLE local_ports; DROP TABLE local_viewers;"


def test_local_viewers_and_ports_are_kept_and_an_older_store_gets_room_for_them(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_publication(SavedPublication("cam", "at the SFU", "session", {"0": "video v"}, 1.5))
    store.close()
    connection = sqlite3.connect(tmp_path / "state" / "relay.db")
    connection.executescript(f"{_WITHOUT_LOCAL} PRAGMA user_version = 3;")
    connection.close()
    again = opened(tmp_path, ManualClock())
    assert again.notice == ""
    assert len(again.publications()) == 1
    assert (again.local_ports(), again.local_viewers()) == ({}, [])
    link = LinkCredential("cam", "1700000000", "5167")
    one = SavedLocalViewer(viewer="v1", camera="cam", instance="cam.1", owner="link cam.1", link=link, ends_at=1.7e9)
    other = SavedLocalViewer(viewer="v2", camera="cam", instance="cam.1", owner="operator", credential="d")
    for viewer in (one, other):
        again.save_local_viewer(viewer)
    again.save_local_port("cam", 8560)
    again.save_local_port("yard", 8561)
    again.save_local_port("cam", 8562)
    again.close()
    third = opened(tmp_path, ManualClock())
    assert (third.local_ports(), third.local_viewers()) == ({"cam": 8562, "yard": 8561}, [one, other])
    third.forget_local_viewer("v1")
    third.forget_local_port("yard")
    third.close()
    fourth = opened(tmp_path, ManualClock())
    assert (fourth.local_ports(), fourth.local_viewers()) == ({"cam": 8562}, [other])


def test_publications_of_a_release_with_one_sink_are_kept_and_others_saved_beside_them(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_publication(SavedPublication("cam", "at the SFU", "session", {"0": "video v"}, 1.5))
    store.close()
    connection = sqlite3.connect(tmp_path / "state" / "relay.db")
    connection.executescript(f"{_WITHOUT_LOCAL} DROP TABLE sink_publications; PRAGMA user_version = 2;")
    connection.close()
    again = opened(tmp_path, ManualClock())
    assert again.notice == ""
    (kept,) = again.publications()
    assert (kept.publication, kept.sink) == ("at the SFU", "")
    there = SavedPublication("cam", "at the studio", "https://studio.example/s/1", sink="studio")
    again.save_publication(there)
    again.close()
    third = opened(tmp_path, ManualClock())
    assert third.publications() == [kept, there]
    third.forget_publication("cam", "studio")
    third.close()
    assert opened(tmp_path, ManualClock()).publications() == [kept]


def test_a_store_of_the_first_version_keeps_what_it_holds(tmp_path: Path) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0))
    store.close()
    connection = sqlite3.connect(tmp_path / "state" / "relay.db")
    connection.executescript(
        f"{_WITHOUT_LOCAL} DROP TABLE devices; DROP TABLE sink_publications; PRAGMA user_version = 1;"
    )
    connection.close()
    again = opened(tmp_path, clock)
    assert again.notice == ""
    assert len(again.leases("acct")) == 1
    assert again.devices("acct") == []


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_lease("acct", lease(1000.0))
    for name in os.listdir(tmp_path / "state"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    store.close()


@pytest.mark.parametrize(
    "content", [b"this is not a database, not at all" * 100, b"SQLite format 3\x00" + b"\x07" * 4096]
)
def test_a_corrupt_store_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state" / "relay.db"
    path.parent.mkdir()
    path.write_bytes(content)
    store = opened(tmp_path, ManualClock(wall=1234.0))
    assert "set aside as relay.db.corrupt-1234" in store.notice
    assert store.problem == ""
    assert (tmp_path / "state" / "relay.db.corrupt-1234").read_bytes() == content
    store.save_lease("acct", lease(1000.0))
    store.close()
    assert len(opened(tmp_path, ManualClock()).leases("acct")) == 1


def test_a_store_of_a_newer_program_is_set_aside(tmp_path: Path) -> None:
    opened(tmp_path, ManualClock()).close()
    connection = sqlite3.connect(tmp_path / "state" / "relay.db")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    assert "newer" in opened(tmp_path, ManualClock()).notice


def test_a_downgrade_keeps_what_the_older_program_can_use(tmp_path: Path) -> None:
    store = opened(tmp_path, ManualClock())
    store.save_lease("acct", lease(1000.0))
    store.write_call("acct", "1", Call("ExecuteDeviceCommand"), 990.0, 991.0)
    store.close()
    connection = sqlite3.connect(tmp_path / "state" / "relay.db")
    connection.execute("ALTER TABLE leases ADD COLUMN novelty TEXT NOT NULL DEFAULT 'x'")
    connection.execute("ALTER TABLE workers RENAME COLUMN body TO something_else")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    older = opened(tmp_path, ManualClock())
    assert "with what this program understands" in older.notice
    assert [kept.stream.handle for kept in older.leases("acct")] == [lease(1000.0).stream.handle]
    assert len(older.calls("acct")) == 1
    assert older.workers() == []
    assert older.problem == ""
    older.close()
    assert len(opened(tmp_path, ManualClock()).leases("acct")) == 1, "and saved"


@pytest.mark.parametrize("state", ["sound", "corrupt", "newer", "missing"])
def test_who_only_looks_changes_nothing(tmp_path: Path, state: str) -> None:
    path = tmp_path / "state" / "relay.db"
    if state != "missing":
        store = opened(tmp_path, ManualClock())
        store.save_lease("acct", lease(1000.0))
        store.close()
    if state == "corrupt":
        path.write_bytes(b"this is not a database" * 100)
    if state == "newer":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()

    def seen() -> dict[str, tuple[bytes, int]]:
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.rglob("*.*")}

    before = seen()
    looking = Store(path, ManualClock(), read_only=True).open()
    assert len(looking.leases("acct")) == (state == "sound")
    looking.forget_lease("acct", "cam")
    looking.close()
    assert bool(looking.problem) == (state != "sound")
    assert seen() == before


def test_an_empty_file_is_a_store_at_version_0(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "relay.db").touch()
    store = opened(tmp_path, ManualClock())
    assert store.notice == store.problem == ""
    assert store.database.read("PRAGMA user_version") == [(len(MIGRATIONS),)]
    store.close()


def test_without_a_usable_directory_it_runs_in_memory_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    store = opened(tmp_path, ManualClock())
    assert "will not survive a restart" in store.problem
    store.save_lease("acct", lease(1000.0))
    store.close()


async def test_a_full_disk_is_told_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_supervisor.state.database._RETRY", 0.05)
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    await store.database.flush(60.0)
    connection = sqlite_of(store)._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    for n in range(300):
        store.save_lease("acct", lease(1000.0, f"cam{n}"))
    until(lambda: "full" in store.problem)
    assert store.full
    connection.execute("PRAGMA max_page_count = 100000")
    await store.database.flush(60.0)
    assert (store.problem, store.full) == ("", False)
    store.close()
    assert len(opened(tmp_path, clock).leases("acct")) == 300


def test_power_loss_leaves_a_readable_store(tmp_path: Path) -> None:
    """A copy of the files taken at any moment opens, and holds whole rows."""
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    for n in range(40):
        store.save_lease("acct", lease(1000.0, f"cam{n}"))
        copy = tmp_path / f"copy{n}" / "state"
        copy.mkdir(parents=True)
        for name in ("relay.db", "relay.db-wal"):
            source = tmp_path / "state" / name
            if source.exists():
                (copy / name).write_bytes(source.read_bytes())
        again = opened(tmp_path / f"copy{n}", clock)
        assert again.notice == ""
        assert len(again.leases("acct")) <= n + 1
        again.close()
    store.close()


SPOILT = 400
"""Leases in a file that is spoilt: enough that one more does not touch, and mend, all of its pages."""


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE somebody_elses (a)")
    connection.close()
    other.replace(path)


def overwritten_in_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def index_overwritten(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        sql = "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'leases'"
        page, size = connection.execute(sql).fetchone()[0], connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


def one_row_changed(path: Path) -> None:
    content = path.read_bytes()
    assert b"auth=t" in content
    with path.open("r+b") as file:
        file.write(content.replace(b"auth=t", b"auth=x"))


def with_its_log_deleted(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def made_read_only(path: Path) -> None:
    path.chmod(0o400)


def all_truncated(path: Path) -> None:
    for tail in ("", "-wal", "-shm"):
        os.truncate(f"{path}{tail}", 0)


def directory_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    ("spoil", "said", "kept"),
    [
        (Path.unlink, "was deleted", False),
        (directory_deleted, "was deleted", False),
        (with_its_log_deleted, "was deleted", True),
        (replaced, "was replaced by another file", True),
        (truncated, "does not hold what was written|is damaged", True),
        (overwritten_in_the_middle, "is damaged", True),
        (index_overwritten, "is damaged|cannot be used", True),
        (one_row_changed, "does not hold what was written", True),
        (all_truncated, "was truncated", True),
        (made_read_only, "had its permissions changed", True),
    ],
)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "written to"])
def test_a_file_that_somebody_spoils_while_it_is_open_is_written_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    said: str,
    kept: bool,
    busy: bool,
) -> None:
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    for n in range(SPOILT):
        store.save_lease("acct", lease(1000.0, f"cam{n}"))
    path = sqlite_of(store).path
    with_the_file_complete(store)
    spoil(path)
    monkeypatch.setattr(database, "FILE_CHECK", 0.0)
    if busy:
        store.save_lease("acct", lease(1000.0, "later"))
    sqlite_of(store)._barrier().result(60.0)
    assert (store.counters()["rewritten"], store.problem) == (1, "")
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert path.with_name(f"{path.name}.damaged").exists() == kept
    # The supervisor is killed now: nothing is closed, and its files are found as they are.
    with sqlite3.connect(path) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found.execute("SELECT count(*) FROM leases WHERE url LIKE '%auth=t'").fetchone() == (SPOILT + busy,)
    found.close()
    store.save_lease("acct", lease(1000.0, "last"))
    store.close()
    assert store.counters()["rewritten"] == 1
    assert len(opened(tmp_path, clock).leases("acct")) == SPOILT + 1 + busy
    (line,) = [record.message for record in caplog.records if "written again from memory" in record.message]
    assert re.search(said, line)


def test_what_leaves_the_file_as_it_was_makes_nobody_write_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs may read the file, hold it open and move its write-ahead log into it."""
    monkeypatch.setattr(database, "FILE_CHECK", 0.0)
    store = opened(tmp_path, ManualClock(now=1000.0))
    reader = sqlite3.connect(sqlite_of(store).path)
    reader.execute("BEGIN")
    for n in range(100):
        store.save_lease("acct", lease(1000.0, f"cam{n % 7}"))
        sqlite_of(store)._barrier().result(60.0)
        reader.execute("SELECT count(*) FROM leases").fetchone()
        if n == 50:
            reader.execute("COMMIT")
            reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reader.close()
    store.close()
    assert store.counters()["rewritten"] == 0
    assert store.problem == ""


def test_a_file_that_nobody_writes_to_is_looked_at_every_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float | None]()
    wait = threading.Condition.wait

    def noted(self: threading.Condition, timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait(self, min(timeout, 0.05) if timeout else timeout)

    monkeypatch.setattr(threading.Condition, "wait", noted)
    store = opened(tmp_path, ManualClock())
    until(lambda: 10.0 in waits)
    sqlite_of(store).path.unlink()
    until(lambda: store.counters()["rewritten"] == 1)
    store.close()


def test_a_deleted_file_that_cannot_be_written_again_is_a_problem_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FILE_CHECK", 0.05)
    monkeypatch.setattr(database, "_RETRY", 0.05)
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0))
    sqlite_of(store)._barrier().result(60.0)
    directory = sqlite_of(store).path.parent
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.write_text("in the way")
    store.save_lease("acct", lease(1000.0, "later"))
    until(lambda: "was deleted" in store.problem)
    directory.unlink()
    until(lambda: not store.problem)
    store.close()
    assert {saved.camera for saved in opened(tmp_path, clock).leases("acct")} == {"cam", "later"}


def test_a_row_that_cannot_be_written_at_all_costs_no_other_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that writes used to end at an error that SQLite does not raise itself, and said nothing."""
    clock = ManualClock(now=1000.0)
    store = opened(tmp_path, clock)
    store.save_lease("acct", lease(1000.0, "before"))
    store.save_local_port("door", 1 << 70)
    store.save_lease("acct", lease(1000.0, "beside"))
    sqlite_of(store)._barrier().result(60.0)
    store.save_lease("acct", lease(1000.0, "after"))
    sqlite_of(store)._barrier().result(60.0)
    assert (store.counters()["dropped"], store.problem) == (1, "")
    assert "failed unexpectedly" in caplog.text
    store.close()
    assert {saved.camera for saved in opened(tmp_path, clock).leases("acct")} == {"before", "beside", "after"}


def test_an_error_that_nobody_foresaw_is_told_until_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> str:
        raise MemoryError

    store = opened(tmp_path, ManualClock(now=1000.0))
    with monkeypatch.context() as spoilt:
        spoilt.setattr(database.Mirror, "changed", broken)
        store.save_lease("acct", lease(1000.0))
        until(lambda: "internal error (MemoryError)" in store.problem)
    store.save_lease("acct", lease(1000.0))
    until(lambda: not store.problem)
    store.close()


def with_the_file_complete(store: Store) -> None:
    """Wait until all is in the file itself, nothing in its write-ahead log only."""
    sqlite_of(store)._barrier().result(60.0)
    reader = sqlite3.connect(sqlite_of(store).path)
    reader.execute("PRAGMA wal_checkpoint(PASSIVE)")
    reader.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
