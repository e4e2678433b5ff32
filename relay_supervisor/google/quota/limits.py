"""Google's published limits as data, and which of them a call counts against.

Source: https://developers.google.com/nest/device-access/project/limits (Sandbox).
"""

from __future__ import annotations

import enum
import math
from typing import Final, NamedTuple

import msgspec

from relay_common.config import LimitsConfig

EXECUTE: Final = "ExecuteDeviceCommand"
GET: Final = "GetDevice"
LIST: Final = "ListDevices"


class Scope(enum.Enum):
    """Which calls a limit counts together."""

    METHOD = "method"
    """All calls of one API method, per project and user."""
    COMMAND = "command"
    """One trait command to one device, per project and user."""
    DEVICE = "device"
    """All commands to one device, over all projects."""


class BucketKey(NamedTuple):
    """Key of one sliding log: its scope, its subject, and its span in seconds."""

    scope: Scope
    subject: str
    span: float


class Limit(msgspec.Struct, frozen=True):
    """At most `count` calls in any `span` seconds; `subjects` names the methods or device types (empty: all)."""

    scope: Scope
    count: int
    span: float
    subjects: frozenset[str] = frozenset()


class Limits(msgspec.Struct, frozen=True):
    """The limits in force. `share` is the part of each that this program may use (at least one call).

    `guard` seconds are added to every span to allow for drift between our clock and Google's.
    """

    table: tuple[Limit, ...]
    share: float = 1.0
    guard: float = 0.25

    def allowed(self, limit: Limit) -> int:
        """Calls that this program may make under `limit`."""
        return max(1, math.floor(limit.count * self.share + 1e-9))

    def draws_on(self, method: str, command: str, device: str, kind: str) -> list[tuple[BucketKey, Limit]]:
        """Every log that a call counts in.

        `method` is EXECUTE, GET or LIST; `command` and `device` are empty for the latter two (the device limits do
        not count them); `kind` is the device's type.
        """
        drawn: list[tuple[BucketKey, Limit]] = []
        for limit in self.table:
            match limit.scope:
                case Scope.METHOD if method in limit.subjects:
                    drawn.append((BucketKey(limit.scope, method, limit.span), limit))
                case Scope.COMMAND if command:
                    drawn.append((BucketKey(limit.scope, f"{command} {device}", limit.span), limit))
                case Scope.DEVICE if command and kind in limit.subjects:
                    drawn.append((BucketKey(limit.scope, device, limit.span), limit))
                case _:
                    pass
        return drawn

    def per_minute(self) -> Limit:
        """The executeCommand limit, which bounds the number of cameras."""
        return next(limit for limit in self.table if limit.scope is Scope.METHOD and EXECUTE in limit.subjects)

    def device_pace(self, kind: str) -> float:
        """Shortest interval in seconds between commands to a device that its own limits sustain indefinitely."""
        spans = [
            limit.span / self.allowed(limit)
            for limit in self.table
            if limit.scope is Scope.COMMAND or (limit.scope is Scope.DEVICE and kind in limit.subjects)
        ]
        return max(spans, default=0.0)


_CAMERAS: Final = frozenset({"CAMERA", "DOORBELL"})


def limits_from(config: LimitsConfig | None = None, *, guard: float = 0.25) -> Limits:
    """The table of limits; without `config` Google's published ones."""
    config = config or LimitsConfig()
    table = (
        Limit(Scope.METHOD, config.commands_per_minute, 60.0, frozenset({EXECUTE})),
        Limit(Scope.METHOD, config.devices_get_per_minute, 60.0, frozenset({GET})),
        Limit(Scope.METHOD, config.devices_list_per_minute, 60.0, frozenset({LIST})),
        Limit(Scope.COMMAND, config.device_commands_per_minute, 60.0),
        Limit(Scope.DEVICE, config.camera_per_minute, 60.0, _CAMERAS),
        Limit(Scope.DEVICE, config.camera_per_hour, 3600.0, _CAMERAS),
    )
    return Limits(table, config.share, guard)
