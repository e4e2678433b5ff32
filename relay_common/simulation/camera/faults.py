"""Faults that can be switched on at a simulated camera.

A fault has a kind, parameters and a duration. `parse_fault` takes the JSON of the control interface; `FaultSet` holds
a camera's currently active faults.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


class FaultKind(enum.Enum):
    """Kinds of fault; their parameters and defaults are in `PARAMETERS`."""

    BURST = "burst"
    """`period` seconds of silence, then everything at once, repeatedly."""
    STALL = "stall"
    """Nothing is written, not even keep-alive responses; the TCP connection stays open. With `backlog`, held packets
    are written when the stall ends."""
    SILENCE = "silence"
    """No RTP on `track` ("video", "audio" or "both"), while RTSP is still answered."""
    RESET = "reset"
    """The TCP connection is reset, once."""
    GARBAGE = "garbage"
    """`bytes` random bytes before every access unit; only once if no duration is given."""
    PARAMETERS = "parameters"
    """The picture becomes `width` x `height` at the next IDR: new SPS and PPS in mid-stream."""
    NO_PARAMETER_SETS = "no_parameter_sets"
    """No SPS and PPS in band from the next IDR on; new DESCRIBE responses have sprop-parameter-sets only with
    `sprop`."""
    B_FRAMES = "b_frames"
    """`count` B-frames between references from the next IDR on."""
    TIMESTAMP_JUMP = "timestamp_jump"
    """RTP timestamps of `track` jump by `by` seconds (may be negative), once."""
    DRIFT = "drift"
    """The camera's clock runs `ppm` millionths fast (negative: slow) against the wall clock of its sender reports."""
    LOSS = "loss"
    """A fraction `rate` of RTP packets is missing from the stream."""
    REORDER = "reorder"
    """A fraction `rate` of RTP packets is sent after its successor (WebRTC only)."""
    NO_AUDIO = "no_audio"
    """New DESCRIBE responses have no audio."""
    CODEC = "codec"
    """New DESCRIBE responses call the video's codec `name`."""
    DESCRIBE_STATUS = "describe_status"
    """DESCRIBE is answered with `status`; with `one_stream` only for the first stream described."""
    SLOW_DESCRIBE = "slow_describe"
    """Every DESCRIBE takes `delay` seconds."""
    NO_SENDER_REPORTS = "no_sender_reports"
    """No RTCP sender reports."""
    DRIBBLE = "dribble"
    """Every packet is written separately (and is one TLS record)."""


PARAMETERS: Final[Mapping[FaultKind, Mapping[str, Any]]] = {
    FaultKind.BURST: {"period": 0.5},
    FaultKind.STALL: {"backlog": False},
    FaultKind.SILENCE: {"track": "both"},
    FaultKind.GARBAGE: {"bytes": 64},
    FaultKind.PARAMETERS: {"width": 320, "height": 240},
    FaultKind.NO_PARAMETER_SETS: {"sprop": True},
    FaultKind.B_FRAMES: {"count": 2},
    FaultKind.TIMESTAMP_JUMP: {"by": 3600.0, "track": "both"},
    FaultKind.DRIFT: {"ppm": 200.0},
    FaultKind.LOSS: {"rate": 0.01},
    FaultKind.REORDER: {"rate": 0.01},
    FaultKind.CODEC: {"name": "H265"},
    FaultKind.DESCRIBE_STATUS: {"status": 404, "one_stream": False},
    FaultKind.SLOW_DESCRIBE: {"delay": 8.0},
}
"""Parameters by kind with their defaults; a kind that is not listed has none."""

_TRACKS: Final = ("video", "audio", "both")


@dataclass(frozen=True)
class Fault:
    """One fault; `seconds` None means until cleared (or once, for instantaneous kinds)."""

    kind: FaultKind
    seconds: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        defaults = PARAMETERS.get(self.kind, {})
        for name, value in self.parameters.items():
            if name not in defaults:
                known = ", ".join(defaults) or "none"
                raise ValueError(f"fault {self.kind.value!r} has no parameter {name!r} (it has: {known})")
            wanted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
            if not isinstance(value, wanted):
                raise ValueError(f"fault {self.kind.value!r}: {name!r} must be like {defaults[name]!r}, not {value!r}")
            if name == "track" and value not in _TRACKS:
                raise ValueError(f"fault {self.kind.value!r}: track must be one of {', '.join(_TRACKS)}")

    def __getitem__(self, name: str) -> Any:
        """The parameter `name`, or its default."""
        return self.parameters.get(name, PARAMETERS[self.kind][name])

    def concerns(self, track: str) -> bool:
        """Whether a fault with a `track` parameter applies to `track`."""
        return self["track"] in (track, "both")


def parse_fault(kind: str, seconds: float | None = None, **parameters: Any) -> Fault:
    """A fault by its kind's name; ValueError names the mistake and the valid choices."""
    try:
        known = FaultKind(kind)
    except ValueError:
        raise ValueError(f"unknown fault {kind!r}; there are: {', '.join(k.value for k in FaultKind)}") from None
    return Fault(known, seconds, parameters)


class FaultSet:
    """The faults of one camera: at most one of each kind, each with its end."""

    def __init__(self) -> None:
        self._active: dict[FaultKind, tuple[Fault, float]] = {}
        self._met: dict[FaultKind, str] = {}

    def __bool__(self) -> bool:
        return bool(self._active)

    def add(self, fault: Fault, now: float) -> None:
        """Switch `fault` on, replacing one of its kind."""
        until = float("inf") if fault.seconds is None else now + fault.seconds
        self._active[fault.kind] = (fault, until)
        self._met.pop(fault.kind, None)

    def clear(self, kind: FaultKind | None = None) -> None:
        """Switch off one kind, or everything."""
        if kind is None:
            self._active.clear()
        else:
            self._active.pop(kind, None)

    def get(self, kind: FaultKind, now: float) -> Fault | None:
        """The active fault of `kind`, if there is one at `now`."""
        entry = self._active.get(kind)
        if entry is None:
            return None
        fault, until = entry
        if now >= until:
            del self._active[kind]
            return None
        return fault

    def of_stream(self, kind: FaultKind, stream: str, now: float) -> Fault | None:
        """Like `get`, but a fault with `one_stream` applies only to the stream that met it first."""
        fault = self.get(kind, now)
        if fault is not None and fault["one_stream"] and self._met.setdefault(kind, stream) != stream:
            return None
        return fault

    def names(self, now: float) -> list[str]:
        """The kinds that are active at `now`."""
        return [kind.value for kind in list(self._active) if self.get(kind, now)]
