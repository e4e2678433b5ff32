"""The life of one publication at the SFU, as a table: it is made, connects, and is never renegotiated."""

from __future__ import annotations

import enum
from typing import Final

from relay_common.fsm import Table


class PublisherState(enum.Enum):
    NEW = "new"
    OFFERING = "offering"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


class PublisherEvent(enum.Enum):
    START = "start"
    ANSWERED = "answered"
    ESTABLISHED = "established"
    FAIL = "fail"
    CLOSE = "close"


_S, _E = PublisherState, PublisherEvent

PUBLISHER_TABLE: Final = Table(
    "publisher",
    _S.NEW,
    {
        (_S.NEW, _E.START): _S.OFFERING,
        (_S.NEW, _E.CLOSE): _S.CLOSED,
        (_S.OFFERING, _E.ANSWERED): _S.CONNECTING,
        (_S.OFFERING, _E.FAIL): _S.FAILED,
        (_S.OFFERING, _E.CLOSE): _S.CLOSED,
        (_S.CONNECTING, _E.ESTABLISHED): _S.CONNECTED,
        (_S.CONNECTING, _E.FAIL): _S.FAILED,
        (_S.CONNECTING, _E.CLOSE): _S.CLOSED,
        (_S.CONNECTED, _E.FAIL): _S.FAILED,
        (_S.CONNECTED, _E.CLOSE): _S.CLOSED,
        (_S.FAILED, _E.CLOSE): _S.CLOSED,
    },
)
