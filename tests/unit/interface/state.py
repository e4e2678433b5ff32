"""The state database as it is made, and a row of each table as it is written."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from tests.unit.interface import product

_CALLS = ("extend", "stop", "generate", "get", "list")


async def database() -> list[str]:
    """Version, tables, columns, and one row of each table; times are of a clock that stands still."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "state.sqlite3")
        store = product.Store(path, product.ManualClock(), boot="boot").open()
        await _fill(store)
        store.close()
        connection = sqlite3.connect(path)
        try:
            return _dump(connection)
        finally:
            connection.close()


async def _fill(store: product.Store) -> None:
    for protocol in product.Protocol:
        stream = product.LiveStream(
            protocol, product.Secret("handle"), 300.0, 1_700_000_300.0, url=product.Secret("rtsps://host/a?auth=b")
        )
        store.save_lease("account", product.SavedLease(f"camera {protocol.value}", "device", 2, 990.0, 1290.0, stream))
    device = product.Device(
        "enterprises/p/devices/d", "d", "DOORBELL", "Front door", tuple(product.Protocol), ("H264",), ("AAC",),
        product.Resolution(1920, 1080),
    )  # fmt: skip
    store.save_devices("account", [device])
    store.save_publication(product.SavedPublication("camera", "publication", "session", {"0": "video name"}, 1.5))
    store.save_publication(product.SavedPublication("camera", "other", "https://h/s", {"0": "video name"}, 1.5, "sink"))
    store.save_worker(product.SavedWorker("camera.1", "camera", "process 300 70000", 2, "publication", 1))
    store.save_worker(product.SavedWorker("camera.2", "camera", "process 301 70001", key="0" * 40))
    for number, (protocol, verb) in enumerate((p, v) for p in product.Protocol for v in product.CommandVerb):
        assert verb.value in _CALLS
        call = product.Command(verb=verb, camera="camera", device="device", kind="CAMERA", protocol=protocol).call
        store.write_call("account", f"call {number}", call, 995.0, 996.0 if number else None)
    stop = product.Command(
        verb=product.CommandVerb.STOP,
        camera="camera",
        device="device",
        kind="CAMERA",
        protocol=product.Protocol.WEB_RTC,
        handle=product.Secret("handle"),
        deadline=1290.0,
    )
    store.save_abandoned("account", stop)
    store.save_local_port("camera", 8560)
    link = product.LinkCredential("camera", "1700000300", "signature")
    for owner, credential, shown in (("operator", "digest", None), ("link camera.1700000300", "", link)):
        store.save_local_viewer(
            product.SavedLocalViewer(
                viewer=f"viewer {owner}",
                camera="camera",
                instance="camera.1",
                owner=owner,
                credential=credential,
                link=shown,
                ends_at=1_700_000_300.0,
            )
        )
    shared = product.SavedLink(id="0123456789", camera="camera", expires=1_700_000_300, key="0" * 16, made_at=1.5)
    product.LinkRows(store).save_link(shared)
    await store.database.flush(10.0)


def _dump(connection: sqlite3.Connection) -> list[str]:
    lines = [f"user_version {connection.execute('PRAGMA user_version').fetchone()[0]}"]
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        for _, name, kind, required, default, key in connection.execute(f"PRAGMA table_info({table})"):
            notes = (
                f"{' NOT NULL' if required else ''}{f' DEFAULT {default}' if default else ''}{' KEY' if key else ''}"
            )
            lines.append(f"table {table}: {name} {kind}{notes}")
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
            lines.append(f"row {table}: {' | '.join(_text(value) for value in row)}")
    return lines


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
