"""Rows of the state database as they are read: SQLite holds a column to no type, so each is checked."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from relay_common.ids import is_camera_id
from relay_common.proc import process_of, process_ref
from relay_common.protocol import Protocol
from relay_common.undecodable import UNDECODABLE

log = logging.getLogger(__name__)

_MOST_NAMED: Final = 10

Moment = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Seconds, on either clock."""

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class LeaseRow(msgspec.Struct, array_like=True, frozen=True):
    """A lease; moments are on the wall clock and on the monotonic clock of `boot`."""

    camera: str
    device: str
    protocol: Protocol
    url: str
    handle: str
    generation: int
    granted_wall: Moment
    granted_mono: Moment
    expires_wall: Moment
    expires_mono: Moment
    boot: str


class CallRow(msgspec.Struct, array_like=True, frozen=True):
    """A call in the quota log."""

    id: str
    method: str
    command: str
    device: str
    kind: str
    sent_wall: Moment
    sent_mono: Moment
    answered_mono: Moment | None
    boot: str


class AbandonedRow(msgspec.Struct, array_like=True, frozen=True):
    """A stream that is to be stopped."""

    camera: str
    device: str
    kind: str
    protocol: Protocol
    handle: str
    ends_wall: Moment
    ends_mono: Moment
    boot: str


class PortRow(msgspec.Struct, array_like=True, frozen=True):
    """The UDP port of a camera's local viewers."""

    camera: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class WorkerRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker, as `workers.body` has it: releases before `ref` know each by its pid and kernel start time.

    Those of a process of this machine stay where such a release finds them, and its `ref` follows from them; any other
    worker has none, which to such a release is one that has ended.
    """

    instance: str
    camera: str
    pid: int
    started: int
    generation: int = 0
    publication: str = ""
    protocol: int = 0
    key: str = ""
    ref: str = ""
    contested_until: int = 0

    @classmethod
    def of(cls, ref: str, **fields: Any) -> WorkerRow:
        """The row of the worker that its launcher knows by `ref`."""
        pid, started = process_of(ref)
        return cls(pid=pid, started=started, ref="" if started else ref, **fields)

    @property
    def known_by(self) -> str:
        """What its launcher knows it by."""
        return self.ref or process_ref(self.pid, self.started)


def columns(kind: type[msgspec.Struct]) -> str:
    """The columns of a kind of row, as SQL names them."""
    return ", ".join(kind.__struct_fields__)


class RowReader:
    """Turns rows into what they stand for, and says what it could not read.

    A row that is damaged, or of a release with another format, counts as if it were not there: `unreadable` counts
    those. The log names their cameras and nothing else of them: such a row may hold a secret in any column.
    """

    def __init__(self) -> None:
        self.unreadable = 0

    def checked(self, what: str, rows: Sequence[tuple[Any, ...]], kind: type[S]) -> list[S]:
        """Rows with the columns of `kind`; `what` is what they are in words."""
        names = kind.__struct_fields__
        cameras = [row[names.index("camera")] if "camera" in names else None for row in rows]
        reads = [functools.partial(msgspec.convert, row, kind) for row in rows]
        return self._read(what, list(zip(cameras, reads, strict=True)))

    def decoded(self, what: str, rows: Sequence[tuple[Any, ...]], kind: type[T]) -> list[T]:
        """Rows with a camera, or None, and a body, which is JSON of `kind`; `what` is what they are in words."""
        return self._read(
            what, [(camera, functools.partial(msgspec.json.decode, body, type=kind)) for camera, body in rows]
        )

    def _read(self, what: str, rows: Sequence[tuple[object, Callable[[], T]]]) -> list[T]:
        found, unread = [], []
        for camera, read in rows:
            try:
                found.append(read())
            except (*UNDECODABLE, TypeError):
                unread.append(camera)
        if unread:
            self.unreadable += len(unread)
            log.warning(
                "%d of %d %s in the state cannot be read and count as missing%s: damaged, or of another release",
                *(len(unread), len(rows), what, _whose(unread)),
            )
        return found


def _whose(cameras: Sequence[object]) -> str:
    """Whose rows they are in words, as far as that is known."""
    known = sorted({camera for camera in cameras if isinstance(camera, str) and is_camera_id(camera)})
    more = f" and {len(known) - _MOST_NAMED} others" if len(known) > _MOST_NAMED else ""
    return f" (of {', '.join(known[:_MOST_NAMED])}{more})" if known else ""
