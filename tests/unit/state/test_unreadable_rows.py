"""Rows that cannot be read cost themselves alone, are counted, and are said once, without what they hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.models import LiveStream
from relay_supervisor.google.quota.budget import Call
from relay_supervisor.google.quota.command import stop_of
from relay_supervisor.state.account_rows import SavedLease
from relay_supervisor.state.links import LinkRows, SavedLink
from relay_supervisor.state.store import SavedLocalViewer, SavedPublication, SavedWorker, Store

CAMERAS = ("0a1b2c3d", "4e5f6071")
TOKEN = "hush"


def opened(directory: Path) -> Store:
    return Store(directory / "relay.db", ManualClock(now=1000.0), boot="boot").open()


def filled(directory: Path) -> Store:
    """A store with two rows in each table, the second of which is to be spoilt."""
    store = opened(directory)
    for number, camera in enumerate(CAMERAS):
        handle, instance = Secret(f"{TOKEN} {number}"), f"{camera}.{number}"
        stream = LiveStream(Protocol.RTSP, handle, 300.0, 0.0, url=Secret(f"rtsps://h/p?auth={TOKEN}"))
        store.save_lease("acct", SavedLease(camera, "dev", 7, 1000.0, 1300.0, stream))
        store.save_abandoned("acct", stop_of(camera, "dev", "DOORBELL", Protocol.WEB_RTC, handle, 1000.0, 1300.0))
        store.write_call("acct", f"call {number}", Call("ExecuteDeviceCommand", "Extend", "dev"), 1000.0, 1000.0)
        store.save_publication(SavedPublication(camera, f"publication {number}", TOKEN))
        store.save_publication(SavedPublication(camera, f"publication {number}", TOKEN, sink="door"))
        store.save_worker(SavedWorker(instance, camera, "pod name"))
        store.save_local_port(camera, 5000 + number)
        viewer = SavedLocalViewer(viewer=f"{TOKEN} {number}", camera=camera, instance=instance, owner="o")
        store.save_local_viewer(viewer)
        LinkRows(store).save_link(SavedLink(id=f"link {number}", camera=camera, expires=2000, key="key"))
    store.save_devices("acct", [])
    return store


_ROWS = [
    ("leases", "url = CAST(x'68757368ff' AS TEXT)", "leases", lambda store: store.leases("acct")),
    ("leases", "expires_wall = 'hush'", "leases", lambda store: store.leases("acct")),
    ("leases", "protocol = 'hush'", "leases", lambda store: store.leases("acct")),
    ("abandoned_streams", "kind = x'00'", "streams to be stopped", lambda store: store.abandoned("acct")),
    ("publications", 'body = \'{"camera": "hush"}\'', "publications", lambda store: store.publications()),
    ("sink_publications", "body = CAST(x'68757368ff' AS TEXT)", "publications", lambda store: store.publications()),
    ("workers", "body = 'hush'", "workers", lambda store: store.workers()),
    ("local_ports", "port = 70000", "ports of local viewers", lambda store: store.local_ports()),
]


@pytest.mark.parametrize(("table", "spoilt", "what", "read"), _ROWS, ids=[f"{row[0]} {row[1][:8]}" for row in _ROWS])
def test_of_which_camera_it_was_is_said(
    table: str,
    spoilt: str,
    what: str,
    read: Callable[[Store], list[Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = filled(tmp_path)
    store.database.write(("test", ""), f"UPDATE {table} SET {spoilt} WHERE camera = '{CAMERAS[1]}'")
    store.close()
    again = opened(tmp_path)
    left = read(again)
    rows = 4 if what == "publications" else 2
    assert len(left) == rows - 1, "the others are as they were"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            f"1 of {rows} {what} in the state cannot be read and count as missing (of {CAMERAS[1]}): damaged, or of "
            "another release",
        )
    ]
    assert (again.counters()["unreadable"], again.problem) == (1, "")


@pytest.mark.parametrize(
    ("table", "spoilt", "words", "read"),
    [
        ("calls", "sent_mono = 'hush' WHERE id = 'call 1'", "1 of 2 calls", lambda store: store.calls("acct")),
        ("devices", "body = 'hush'", "1 of 1 lists of devices", lambda store: store.devices("acct")),
        ("local_viewers", "body = 'hush'", "2 of 2 local viewers", lambda store: store.local_viewers()),
        ("links", "body = 'hush'", "revoked is valid again", lambda store: LinkRows(store).links()),
        ("workers", "camera = 'hush', body = ''", "2 of 2 workers", lambda store: store.workers()),
    ],
)
def test_nothing_else_of_them_is_said(
    table: str,
    spoilt: str,
    words: str,
    read: Callable[[Store], list[Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No camera is named where the row has none, or something else in its place."""
    store = filled(tmp_path)
    store.database.write(("test", ""), f"UPDATE {table} SET {spoilt}")
    store.close()
    read(opened(tmp_path))
    (record,) = caplog.records
    assert words in record.getMessage()
    assert TOKEN not in record.getMessage()
    assert "(of " not in record.getMessage()


def test_of_many_cameras_ten_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    for number in range(25):
        store.save_local_port(f"{number:08x}", 5000)
    store.database.write(("test", ""), "UPDATE local_ports SET port = 0")
    store.close()
    assert opened(tmp_path).local_ports() == {}
    (record,) = caplog.records
    assert "00000000, 00000001" in record.getMessage()
    assert "00000009 and 15 others)" in record.getMessage()
