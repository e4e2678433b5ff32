"""State that outlives the supervisor: leases with their tokens, the quota log, devices, publications, workers.

Of an account's part, what is kept is said in `account_rows.py`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from relay_common.clock import Clock
from relay_supervisor.google.errors import MinuteUnknown
from relay_supervisor.google.models import Device
from relay_supervisor.google.quota.budget import Call, LoggedCall
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.state.account_rows import AccountRows, SavedLease
from relay_supervisor.state.database import Database
from relay_supervisor.state.rows import AbandonedRow, CallRow, LeaseRow, PortRow, RowReader, WorkerRow, columns
from relay_supervisor.state.state_database import LEASES, StateDatabase

STATE_FILE: Final = "relay.sqlite3"
"""The file in the state directory of a supervisor that is alone."""
_DEVICES_KEPT = 200
_WRITE_LEASE = "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_WRITE_CALL = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SavedPublication(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a camera publishes at a sink: the opaque publication name, the session behind it and its tracks."""

    camera: str
    publication: str
    session: str
    tracks: dict[str, str] = {}
    created_at: float = 0.0
    sink: str = ""
    """"" for the SFU."""
    rids: list[str] = []
    """The layers of its video, best first; empty: one encoding."""


class SavedWorker(msgspec.Struct, frozen=True):
    """A worker: instance id, camera, what its launcher knows it by (`Handle.ref`), and what it was working on."""

    instance: str
    camera: str
    ref: str
    generation: int = 0
    publication: str = ""
    protocol: int = 0
    key: str = ""
    """Its public key on the bus; "" for one of a release without keys."""
    contested_until: int = 0
    """Until when (Unix seconds) a worker of the camera's that was lost from sight may still live elsewhere."""


class LinkCredential(msgspec.Struct, frozen=True):
    """A signed link, as its holder showed it (`http/links.py`). The signature is a secret."""

    camera: str
    expires: str
    signature: str


class SavedLocalViewer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A viewer that a worker answers itself, as the next supervisor has to know it to end it."""

    viewer: str
    """Its name, which is a secret."""
    camera: str
    instance: str
    """The worker process that answers it."""
    owner: str
    """Whose it is (`local.sessions.owner_of`): it obeys nobody else."""
    credential: str = ""
    """A digest of the operator's token that it was made with; "" for others."""
    link: LinkCredential | None = None
    ends_at: float = 0.0
    """Unix seconds; 0: never."""
    quality: str = ""
    """`small` for one that had the small picture when it was answered."""


def boot_id() -> str:
    """The kernel's id of this boot; "" where there is none, which makes every restart look like a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Store:
    """Typed access to the state database. Reads are for the start; writes return at once and are durable soon after.

    `where` is the database, or the path of its file. With `read_only` the file is neither created, changed nor renamed,
    whatever it contains. `clocks_apart` is by how many seconds the clocks of machines may differ that write to it.
    Before `unsure_until` (monotonic seconds) the quota log may lack what another supervisor has sent: nothing is sent.
    """

    def __init__(
        self,
        where: Path | StateDatabase,
        clock: Clock,
        *,
        boot: str | None = None,
        read_only: bool = False,
        clocks_apart: float = 0.0,
        unsure_until: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        self.clock, self.unsure_until, self.reader = clock, unsure_until, RowReader()
        self._rows = AccountRows(clock, boot_id() if boot is None else boot, clocks_apart)
        self.database: StateDatabase = (
            Database(where, stamp=int(clock.wall()), read_only=read_only) if isinstance(where, Path) else where
        )

    def open(self) -> Self:
        """Open the file, and return the store; see `Database.open`."""
        self.database.open()
        return self

    @property
    def problem(self) -> str:
        """What is wrong with the state directory, in words; "" when nothing is."""
        return self.database.problem

    @property
    def full(self) -> bool:
        """Whether that is for want of space."""
        return self.database.full

    @property
    def notice(self) -> str:
        """What was done with a state file that could not be used as it was, to be logged once; "" otherwise."""
        return self.database.notice

    def close(self) -> None:
        """Write what is left; blocks for two seconds at most."""
        self.database.close()

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self.database.counters() | {"unreadable": self.reader.unreadable}

    # --- leases

    def save_lease(self, account: str, lease: SavedLease) -> None:
        """Save a lease in its present form."""
        row: list[object] = msgspec.to_builtins(self._rows.lease_row(lease))
        self.database.write((f"{LEASES}{account}", lease.camera), _WRITE_LEASE, account, *row)

    def forget_lease(self, account: str, camera: str) -> None:
        """Delete a lease that is gone."""
        sql = "DELETE FROM leases WHERE account = ? AND camera = ?"
        self.database.write((f"{LEASES}{account}", camera), sql, account, camera)

    def leases(self, account: str) -> list[SavedLease]:
        """Leases that are still alive; the others are deleted."""
        found = []
        sql = f"SELECT {columns(LeaseRow)} FROM leases WHERE account = ?"
        for row in self.reader.checked("leases", self.database.read(sql, account), LeaseRow):
            if (lease := self._rows.lease(row)) is None:
                self.forget_lease(account, row.camera)
            else:
                found.append(lease)
        return found

    # --- streams that are to be stopped

    def save_abandoned(self, account: str, stop: Command) -> None:
        """Save a stream that nobody receives any more, with what its Stop needs."""
        sql = "INSERT OR REPLACE INTO abandoned_streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        row = self._rows.abandoned_row(stop)
        self.database.write(
            (f"abandoned {account}", row.handle),
            sql,
            *(account, row.handle, row.camera, row.device, row.kind, row.protocol.value),
            *(row.ends_wall, row.ends_mono, row.boot),
        )

    def forget_abandoned(self, account: str, handle: str) -> None:
        """Delete a stream that was stopped, or that has ended by itself."""
        sql = "DELETE FROM abandoned_streams WHERE account = ? AND handle = ?"
        self.database.write((f"abandoned {account}", handle), sql, account, handle)

    def abandoned(self, account: str) -> list[Command]:
        """The Stops of streams that an earlier process abandoned; those that have ended by themselves are deleted."""
        found = []
        sql = f"SELECT {columns(AbandonedRow)} FROM abandoned_streams WHERE account = ?"
        for row in self.reader.checked("streams to be stopped", self.database.read(sql, account), AbandonedRow):
            if (stop := self._rows.abandoned(row)) is None:
                self.forget_abandoned(account, row.handle)
            else:
                found.append(stop)
        return found

    # --- quota log

    def journal(self, account: str) -> CallJournal:
        """The quota log of one account, for its dispatcher."""
        return CallJournal(self, account)

    def calls(self, account: str) -> list[LoggedCall]:
        """Calls that may still count against a limit."""
        found = []
        sql = f"SELECT {columns(CallRow)} FROM calls WHERE account = ?"
        for row in self.reader.checked("calls of the quota log", self.database.read(sql, account), CallRow):
            if (logged := self._rows.call(row)) is None:
                self.forget_call(row.id)
            else:
                found.append(logged)
        return found

    # --- devices

    def save_devices(self, account: str, devices: Sequence[Device]) -> None:
        """Save an account's known devices, 200 at most, replacing those saved before."""
        body = msgspec.json.encode(devices[:_DEVICES_KEPT])
        self.database.write(("devices", account), "INSERT OR REPLACE INTO devices VALUES (?, ?)", account, body)

    def devices(self, account: str) -> list[Device]:
        """The saved devices; none if they cannot be read."""
        rows = self.database.read("SELECT NULL, body FROM devices WHERE account = ?", account)
        return [device for devices in self.reader.decoded("lists of devices", rows, list[Device]) for device in devices]

    # --- publications and workers

    def save_publication(self, saved: SavedPublication) -> None:
        """Save what a camera publishes at a sink."""
        row, body = ("publication", f"{saved.camera} {saved.sink}"), msgspec.json.encode(saved)
        if saved.sink:
            sql = "INSERT OR REPLACE INTO sink_publications VALUES (?, ?, ?, ?)"
            self.database.write(row, sql, saved.camera, saved.sink, saved.publication, body)
        else:
            sql = "INSERT OR REPLACE INTO publications VALUES (?, ?, ?)"
            self.database.write(row, sql, saved.camera, saved.publication, body)

    def forget_publication(self, camera: str, sink: str = "") -> None:
        """Delete the publication of a camera that no longer publishes there."""
        row = ("publication", f"{camera} {sink}")
        if sink:
            sql = "DELETE FROM sink_publications WHERE camera = ? AND sink = ?"
            self.database.write(row, sql, camera, sink)
        else:
            self.database.write(row, "DELETE FROM publications WHERE camera = ?", camera)

    def publications(self) -> list[SavedPublication]:
        """All saved publications."""
        rows = self.database.read("SELECT camera, body FROM publications")
        rows += self.database.read("SELECT camera, body FROM sink_publications")
        return self.reader.decoded("publications", rows, SavedPublication)

    def save_worker(self, saved: SavedWorker) -> None:
        """Save a worker."""
        sql = "INSERT OR REPLACE INTO workers VALUES (?, ?, ?)"
        body = msgspec.json.encode(WorkerRow.of(**msgspec.structs.asdict(saved)))
        self.database.write(("worker", saved.instance), sql, saved.instance, saved.camera, body)

    def forget_worker(self, instance: str) -> None:
        """Delete a worker that has ended."""
        self.database.write(("worker", instance), "DELETE FROM workers WHERE instance = ?", instance)

    def workers(self) -> list[SavedWorker]:
        """All saved workers."""
        rows = self.reader.decoded("workers", self.database.read("SELECT camera, body FROM workers"), WorkerRow)
        names = [name for name in SavedWorker.__struct_fields__ if name != "ref"]
        return [SavedWorker(ref=row.known_by, **{name: getattr(row, name) for name in names}) for row in rows]

    # --- local viewers

    def save_local_port(self, camera: str, port: int) -> None:
        """Save which UDP port was dealt to a camera."""
        sql = "INSERT OR REPLACE INTO local_ports VALUES (?, ?)"
        self.database.write(("local port", camera), sql, camera, port)

    def forget_local_port(self, camera: str) -> None:
        """Delete the port of a camera whose port another one has now."""
        self.database.write(("local port", camera), "DELETE FROM local_ports WHERE camera = ?", camera)

    def local_ports(self) -> dict[str, int]:
        """The ports that were dealt, by camera."""
        rows = self.database.read(f"SELECT {columns(PortRow)} FROM local_ports")
        return {row.camera: row.port for row in self.reader.checked("ports of local viewers", rows, PortRow)}

    def save_local_viewer(self, saved: SavedLocalViewer) -> None:
        """Save a viewer that a worker answers itself."""
        sql = "INSERT OR REPLACE INTO local_viewers VALUES (?, ?)"
        self.database.write(("local viewer", saved.viewer), sql, saved.viewer, msgspec.json.encode(saved))

    def forget_local_viewer(self, viewer: str) -> None:
        """Delete a viewer that has ended."""
        self.database.write(("local viewer", viewer), "DELETE FROM local_viewers WHERE viewer = ?", viewer)

    def local_viewers(self) -> list[SavedLocalViewer]:
        """All saved viewers."""
        rows = self.database.read("SELECT NULL, body FROM local_viewers")
        return self.reader.decoded("local viewers", rows, SavedLocalViewer)

    # --- the journal's part

    def write_call(self, account: str, call_id: str, call: Call, sent: float, answered: float | None) -> None:
        """Save a call, and later under the same id by when it was answered; deletes calls that no longer count."""
        row = self._rows.call_row(call_id, call, sent, answered)
        self.database.write(
            ("call", call_id),
            _WRITE_CALL,
            *(call_id, account, row.method, row.command, row.device, row.kind, row.sent_wall, row.sent_mono),
            *(self._rows.answered_wall(row), row.answered_mono, row.boot),
        )
        # A step of the wall clock must not make calls of this boot look old: they still count.
        sql = "DELETE FROM calls WHERE CASE boot WHEN ? THEN sent_mono < ? ELSE sent_wall < ? END"
        self.database.write(("calls", "old"), sql, row.boot, *self._rows.oldest_call())

    def forget_call(self, call_id: str) -> None:
        """Delete a call that was never sent."""
        self.database.write(("call", call_id), "DELETE FROM calls WHERE id = ?", call_id)


class CallJournal:
    """The quota log of one account: every call is on disk before it is sent."""

    def __init__(self, store: Store, account: str) -> None:
        self._store, self._account = store, account
        self._under_way: dict[int, tuple[str, float]] = {}

    async def sending(self, command: Command) -> None:
        """Record the call before it is sent; waits for a bounded time. Raises NestError when it must not be sent."""
        call_id, sent = uuid.uuid4().hex, self._store.clock.now()
        if (wait := self._store.unsure_until() - sent) > 0:
            raise MinuteUnknown(wait)
        self._under_way[id(command)] = (call_id, sent)
        self._store.write_call(self._account, call_id, command.call, sent, None)
        await self._store.database.before_sending(extends=command.verb is Verb.EXTEND)

    def settled(self, command: Command, counted_by: float | None) -> None:
        """Record by when Google has counted the command; None: it never reached Google."""
        call_id, sent = self._under_way.pop(id(command), ("", 0.0))
        if not call_id:
            return
        if counted_by is None:
            self._store.forget_call(call_id)
        else:
            self._store.write_call(self._account, call_id, command.call, sent, counted_by)
