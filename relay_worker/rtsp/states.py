"""The states of an RTSP client session (RFC 2326 §A.1, with the steps before SETUP)."""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class State(enum.Enum):
    INIT = "init"
    OPTIONS = "options"
    DESCRIBE = "describe"
    SETUP = "setup"
    PLAY = "play"
    PLAYING = "playing"
    TEARDOWN = "teardown"
    REDIRECTED = "redirected"
    CLOSED = "closed"


class Event(enum.Enum):
    START = "start"
    OPTIONS_ANSWERED = "options answered"
    DESCRIBED = "described"
    TRACK_DONE = "track set up or given up"
    ALL_SET_UP = "all tracks set up"
    STARTED = "play answered"
    REDIRECT = "redirect"
    STOP = "stop"
    END = "end"


_OPEN: Final = (State.OPTIONS, State.DESCRIBE, State.SETUP, State.PLAY, State.PLAYING)

TABLE: Final[Table[State, Event]] = Table(
    "RTSP session",
    State.INIT,
    {
        (State.INIT, Event.START): State.OPTIONS,
        (State.OPTIONS, Event.OPTIONS_ANSWERED): State.DESCRIBE,
        (State.DESCRIBE, Event.DESCRIBED): State.SETUP,
        (State.SETUP, Event.TRACK_DONE): State.SETUP,
        (State.SETUP, Event.ALL_SET_UP): State.PLAY,
        (State.PLAY, Event.STARTED): State.PLAYING,
        **{(state, Event.REDIRECT): State.REDIRECTED for state in _OPEN},
        **{(state, Event.STOP): State.TEARDOWN for state in (State.SETUP, State.PLAY, State.PLAYING)},
        **{(state, Event.STOP): State.CLOSED for state in (State.INIT, State.OPTIONS, State.DESCRIBE)},
        **{(state, Event.END): State.CLOSED for state in (*_OPEN, State.TEARDOWN, State.REDIRECTED)},
    },
)
