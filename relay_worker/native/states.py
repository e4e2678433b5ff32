"""Bases of the classes whose state compiled code reads and writes.

Where the extension module is there, these are types of its own, and the attributes that `native/state.h` names are
plain memory in their objects: 64-bit integers, doubles, booleans, references. The Python reads and writes them like any
others, whether or not compiled code is in use. Elsewhere the bases are empty, and all attributes are the Python's own.

An attribute that holds integers or floats raises TypeError for anything else, and OverflowError beyond 64 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from relay_worker import native

Data = TypeVar("Data")


class Plain:
    """What these classes are derived from where nothing is compiled."""


def in_memory(data: type[Data]) -> type[Data]:
    """A dataclass with attributes of its base: their defaults, which would hide those, are left to `__init__` alone."""
    for name in list(vars(data)):
        if not name.startswith("__") and any(name in vars(base) for base in data.__mro__[1:]):
            delattr(data, name)
    return data


if TYPE_CHECKING:
    ClockState = Plain
    DelayState = Plain
    FeedbackState = Plain
    HistoryState = Plain
    InputState = Plain
    LineState = Plain
    MediaOutState = Plain
    MeterState = Plain
    OutputsState = Plain
    PacerState = Plain
    PacerStatsState = Plain
    ParserState = Plain
    PassthroughState = Plain
    PathState = Plain
    PipelineState = Plain
    ProtectorState = Plain
    ReceiverState = Plain
    ReorderState = Plain
    RepairState = Plain
    SenderState = Plain
    SessionState = Plain
    SoundClockState = Plain
    SoundEncoderState = Plain
    SourceState = Plain
    StreamState = Plain
    StreamStatsState = Plain
    TrackState = Plain
    TranscoderState = Plain
    UnitsState = Plain
    UplinkState = Plain
    WaitClockState = Plain
    WriterState = Plain
else:

    def __getattr__(name: str) -> type:
        if not name.endswith("State"):
            raise AttributeError(name)
        return native.state_type(name) or Plain
