"""The states of one publication at the SFU. Rules:

1. A publication is one SFU session with one offer and one answer. It is never renegotiated: whatever changes (tracks,
   addresses, the SFU's mind) is met by another publication, which its keeper makes (`keeper.py`). Only its way to a
   WHIP server that takes an ICE restart may be replaced while it is CONNECTED.

2. NEW has no sockets. OFFERING has gathered its addresses and waits for the SDP answer, CONNECTING for ICE and DTLS,
   each for a limited time; passing it is FAIL. Media is sent in CONNECTED alone; before, payloads are dropped and
   counted.

3. CONNECTED ends with FAIL when the transport closes, or when the SFU stops acknowledging what is sent
   (`Publisher.check`) and no ICE restart finds another way; meanwhile media goes on by the old way, on which perhaps
   only the answers are lost. FAILED sends nothing, keeps its reason, and waits to be closed.

4. CLOSE is legal in every state but CLOSED, which is final and has released everything. Closing a connected publication
   sends BYE first, so that the SFU need not wait for a timeout.
"""

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
