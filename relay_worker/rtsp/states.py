"""The states of an RTSP client session (RFC 2326 §A.1, with the steps before SETUP)."""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class RtspState(enum.Enum):
    INIT = "init"
    OPTIONS = "options"
    DESCRIBE = "describe"
    SETUP = "setup"
    PLAY = "play"
    PLAYING = "playing"
    TEARDOWN = "teardown"
    REDIRECTED = "redirected"
    CLOSED = "closed"


class RtspEvent(enum.Enum):
    START = "start"
    OPTIONS_ANSWERED = "options answered"
    DESCRIBED = "described"
    TRACK_DONE = "track set up or given up"
    ALL_SET_UP = "all tracks set up"
    STARTED = "play answered"
    REDIRECT = "redirect"
    STOP = "stop"
    END = "end"


_OPEN: Final = (RtspState.OPTIONS, RtspState.DESCRIBE, RtspState.SETUP, RtspState.PLAY, RtspState.PLAYING)

TABLE: Final[Table[RtspState, RtspEvent]] = Table(
    "RTSP session",
    RtspState.INIT,
    {
        (RtspState.INIT, RtspEvent.START): RtspState.OPTIONS,
        (RtspState.OPTIONS, RtspEvent.OPTIONS_ANSWERED): RtspState.DESCRIBE,
        (RtspState.DESCRIBE, RtspEvent.DESCRIBED): RtspState.SETUP,
        (RtspState.SETUP, RtspEvent.TRACK_DONE): RtspState.SETUP,
        (RtspState.SETUP, RtspEvent.ALL_SET_UP): RtspState.PLAY,
        (RtspState.PLAY, RtspEvent.STARTED): RtspState.PLAYING,
        **{(state, RtspEvent.REDIRECT): RtspState.REDIRECTED for state in _OPEN},
        **{
            (state, RtspEvent.STOP): RtspState.TEARDOWN
            for state in (RtspState.SETUP, RtspState.PLAY, RtspState.PLAYING)
        },
        **{
            (state, RtspEvent.STOP): RtspState.CLOSED
            for state in (RtspState.INIT, RtspState.OPTIONS, RtspState.DESCRIBE)
        },
        **{(state, RtspEvent.END): RtspState.CLOSED for state in (*_OPEN, RtspState.TEARDOWN, RtspState.REDIRECTED)},
    },
)
