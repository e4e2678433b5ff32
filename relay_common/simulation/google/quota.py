"""Google's Sandbox limits as the simulator enforces them, with its own accounting and a clock that is passed in.

Every call is charged to all of its buckets, refused and failed calls included.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

MINUTE: Final = 60.0
HOUR: Final = 3600.0


@dataclass(frozen=True)
class Limits:
    """Calls allowed; the defaults are Google's published Sandbox limits.

    `window` "sliding" refuses a call when any span would exceed the limit; "fixed" counts in windows that begin with a
    first call. Types of device that are not in `limited_types` have no limit of their own.
    """

    commands_per_minute: int = 10
    lists_per_minute: int = 5
    gets_per_minute: int = 10
    structures_per_minute: int = 5
    device_command_per_minute: int = 5
    device_per_minute: int = 30
    device_per_hour: int = 100
    limited_types: frozenset[str] = frozenset({"CAMERA", "DOORBELL"})
    window: Literal["sliding", "fixed"] = "sliding"


_PLENTY: Final = 1_000_000

UNLIMITED: Final = Limits(
    commands_per_minute=_PLENTY,
    lists_per_minute=_PLENTY,
    gets_per_minute=_PLENTY,
    structures_per_minute=_PLENTY,
    device_command_per_minute=_PLENTY,
    device_per_minute=_PLENTY,
    device_per_hour=_PLENTY,
)
"""For benchmarks and tests that are not about quota."""


@dataclass
class Bucket:
    """One limit: at most `limit` calls in `span` seconds."""

    limit: int
    span: float
    window: Literal["sliding", "fixed"] = "sliding"
    _recent: deque[float] = field(init=False)
    _since: float = field(default=float("-inf"), init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # Only the last `limit` calls matter: the one before them decides.
        self._recent = deque(maxlen=self.limit)

    def charge(self, now: float) -> bool:
        """Count a call at `now`; False when it is over the limit."""
        if self.window == "fixed":
            if now >= self._since + self.span:
                self._since, self._count = now, 0
            self._count += 1
            return self._count <= self.limit
        full = len(self._recent) == self.limit
        within = not full or now - self._recent[0] >= self.span
        self._recent.append(now)
        return within


class Accounting:
    """All buckets of one project and user."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, Bucket] = {}
        self.refused: Counter[str] = Counter()
        """Calls over a limit, by the limit's name."""

    def list_devices(self, now: float) -> str | None:
        """Charge a devices.list; the name of the exhausted bucket, or None."""
        return self._charge([("ListDevices API", "", self._limits.lists_per_minute, MINUTE)], now)

    def get_device(self, now: float) -> str | None:
        """Charge a devices.get; the name of the exhausted bucket, or None."""
        return self._charge([("GetDevice API", "", self._limits.gets_per_minute, MINUTE)], now)

    def structures(self, now: float) -> str | None:
        """Charge a read of structures or rooms; the name of the exhausted bucket, or None."""
        return self._charge([("ListStructures API", "", self._limits.structures_per_minute, MINUTE)], now)

    def execute(self, device: str, kind: str, command: str, now: float) -> str | None:
        """Charge an executeCommand for a device of type `kind`; the name of the exhausted bucket, or None."""
        limits = self._limits
        buckets = [
            ("ExecuteDeviceCommand API", "", limits.commands_per_minute, MINUTE),
            (f"{command} API", device, limits.device_command_per_minute, MINUTE),
        ]
        if kind in limits.limited_types:
            buckets.append((f"{kind} device per minute", device, limits.device_per_minute, MINUTE))
            buckets.append((f"{kind} device per hour", device, limits.device_per_hour, HOUR))
        return self._charge(buckets, now)

    def _charge(self, buckets: Iterable[tuple[str, str, int, float]], now: float) -> str | None:
        exhausted = None
        for name, device, limit, span in buckets:
            key = f"{name}/{device}"
            if key not in self._buckets:
                self._buckets[key] = Bucket(limit, span, self._limits.window)
            if not self._buckets[key].charge(now) and exhausted is None:
                exhausted = name
        if exhausted is not None:
            self.refused[exhausted] += 1
        return exhausted


def most_in_any(times: Iterable[float], span: float) -> int:
    """The largest number of `times` (ascending) within any half-open span of `span` seconds."""
    recent: deque[float] = deque()
    most = 0
    for moment in times:
        recent.append(moment)
        while moment - recent[0] >= span:
            recent.popleft()
        most = max(most, len(recent))
    return most
