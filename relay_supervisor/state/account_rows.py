"""What is kept of a Google account, as rows and back: leases, streams to be stopped, the quota log. No I/O.

Times are kept twice: on the wall clock, and on the machine's monotonic clock together with its boot id. After a restart
on the same boot the monotonic times are valid, whatever the wall clock did; otherwise the wall times are, of a clock
that may have been `clocks_apart` seconds ahead of ours or behind.
"""

from __future__ import annotations

from typing import Final

import msgspec

from relay_common.clock import Clock
from relay_common.secrets import Secret
from relay_supervisor.google.models import LiveStream
from relay_supervisor.google.quota.budget import Call, LoggedCall
from relay_supervisor.google.quota.command import Command, stop_of
from relay_supervisor.state.rows import AbandonedRow, CallRow, LeaseRow

CALLS_KEPT: Final = 3700.0
"""Seconds after which no limit looks back on a call any more."""
_LONGEST_STREAM: Final = 600.0


class SavedLease(msgspec.Struct, frozen=True):
    """A lease as of the end of its supervisor; times are on the present monotonic clock."""

    camera: str
    device: str
    generation: int
    granted: float
    expires: float
    stream: LiveStream


class AccountRows:
    """Rows of one boot's supervisor, by its clocks."""

    def __init__(self, clock: Clock, boot: str, clocks_apart: float = 0.0) -> None:
        self._clock, self.boot, self._apart = clock, boot, clocks_apart

    @property
    def _offset(self) -> float:
        return self._clock.wall() - self._clock.now()

    def _moment(self, wall: float, mono: float, boot: str) -> float:
        """A stored moment on the present monotonic clock."""
        return mono if self._ours(boot) else wall - self._offset

    def _ours(self, boot: str) -> bool:
        return bool(boot) and boot == self.boot

    def _doubt(self, boot: str) -> float:
        """Seconds by which moments of that boot may be wrong."""
        return 0.0 if self._ours(boot) else self._apart

    def lease_row(self, lease: SavedLease) -> LeaseRow:
        """The row of a lease."""
        stream, offset = lease.stream, self._offset
        return LeaseRow(
            lease.camera,
            lease.device,
            stream.protocol,
            stream.url.reveal() if stream.url else "",
            stream.handle.reveal(),
            lease.generation,
            lease.granted + offset,
            lease.granted,
            lease.expires + offset,
            lease.expires,
            self.boot,
        )

    def lease(self, row: LeaseRow) -> SavedLease | None:
        """The lease of a row; None for one that has ended."""
        now = self._clock.now()
        granted = self._moment(row.granted_wall, row.granted_mono, row.boot)
        # No clock step makes a lease last longer than it was granted for.
        lasts = row.expires_wall - row.granted_wall
        expires = min(self._moment(row.expires_wall, row.expires_mono, row.boot) - self._doubt(row.boot), now + lasts)
        if expires <= now:
            return None
        url = Secret(row.url) if row.url else None
        stream = LiveStream(row.protocol, Secret(row.handle), expires - now, row.expires_wall, url=url)
        return SavedLease(row.camera, row.device, row.generation, granted, expires, stream)

    def abandoned_row(self, stop: Command) -> AbandonedRow:
        """The row of a stream that is to be stopped."""
        ends = stop.deadline
        place = (stop.camera, stop.device, stop.kind, stop.protocol)
        return AbandonedRow(*place, stop.handle.reveal(), ends + self._offset, ends, self.boot)

    def abandoned(self, row: AbandonedRow) -> Command | None:
        """The Stop of a row; None for a stream that has ended by itself."""
        now = self._clock.now()
        # Google grants five minutes: clocks that say otherwise are wrong.
        ends = min(self._moment(row.ends_wall, row.ends_mono, row.boot), now + _LONGEST_STREAM)
        if ends <= now:
            return None
        return stop_of(row.camera, row.device, row.kind, row.protocol, Secret(row.handle), now, ends)

    def call_row(self, call_id: str, call: Call, sent: float, answered: float | None) -> CallRow:
        """The row of a call."""
        return CallRow(
            call_id, call.method, call.command, call.device, call.kind, sent + self._offset, sent, answered, self.boot
        )

    def answered_wall(self, row: CallRow) -> float | None:
        """When the call of a row that was just made was answered, on the wall clock."""
        return None if row.answered_mono is None else row.answered_mono + self._offset

    def call(self, row: CallRow) -> LoggedCall | None:
        """The call of a row; None for one that counts against no limit any more."""
        now = self._clock.now()
        # Where clocks may differ, it is taken to be as recent as it can be.
        sent = min(now, self._moment(row.sent_wall, row.sent_mono, row.boot) + self._doubt(row.boot))
        # Ahead of us if the call was given up: Google may yet count it.
        answered = None if row.answered_mono is None else sent + (row.answered_mono - row.sent_mono)
        if now - sent > CALLS_KEPT:
            return None
        return LoggedCall(Call(row.method, row.command, row.device, row.kind), sent, answered)

    def oldest_call(self) -> tuple[float, float]:
        """Until when calls have been sent that no limit looks back on: on the monotonic and on the wall clock."""
        return self._clock.now() - CALLS_KEPT, self._clock.wall() - CALLS_KEPT
