"""Rows of the state database as they are read: SQLite holds a column to no type, so each is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from relay_common.proc import process_of, process_ref
from relay_common.protocol import Protocol

Moment = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Seconds, on either clock."""

T = TypeVar("T")


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


def checked(rows: Iterable[tuple[Any, ...]], kind: type[T]) -> Iterator[T]:
    """The rows that are of that kind; one that is not counts as if it were not there."""
    for row in rows:
        try:
            yield msgspec.convert(row, kind)
        except msgspec.ValidationError:
            continue
