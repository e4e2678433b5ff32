"""What a publication needs and reports: its signalling, its settings, how it fails, and a snapshot of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from aiortc import RTCIceServer

from relay_common.errors import RelayError, Remedy
from relay_common.protocol import Stage
from relay_worker.publish.feedback import Estimate
from relay_worker.publish.outgoing import SentStats
from relay_worker.publish.pacer import PacerSettings, PacerStats
from relay_worker.publish.share import UplinkShare
from relay_worker.webrtc.transport import CONNECT_TIMEOUT

REPORT_SILENCE: Final = 7.0
"""Seconds without acknowledgement after which a session counts as dead: the SFU collects a track after 30 s and ICE
consent notices only after 33 s.
"""
SOUND_REPORT_SILENCE: Final = 16.0
"""The same for sound alone: receivers may report on it only every 2.5 to 7.5 s (RFC 3550 §6.2), as libwebrtc does, and
one report may be lost."""


class PublishTrack(NamedTuple):
    """A track as named in signalling."""

    mid: str
    kind: str
    """`"video"` or `"audio"`."""
    rids: tuple[str, ...] = ()
    """The layers of a simulcast track, best first."""


class Signaling(Protocol):
    """Carries an offer to the SFU and the answer back."""

    async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
        """Open a new session, publish `tracks` with this SDP offer, and return the SDP answer.

        Raises RelayError when the SFU refuses or cannot be reached.
        """
        ...


class Patch(Protocol):
    """Tells the sink of a change of the ICE session there (`sdp_fragment.py`), and returns its own end of one that was
    restarted. Raises RelayError where the sink does not take it.
    """

    async def __call__(self, fragment: str, *, restart: bool) -> str: ...


class PublishError(RelayError):
    """The publication could not be made or was lost at `stage`; a new session is the remedy."""

    remedy = Remedy.REGENERATE

    def __init__(self, camera: str, stage: Stage, message: str, *, hint: str = "") -> None:
        super().__init__(f"{camera}: {message}", hint=hint)
        self.stage = stage


@dataclass(frozen=True)
class PublisherSettings:
    """How to publish. Times in seconds."""

    ice_servers: tuple[RTCIceServer, ...] = ()
    """TURN servers; set where the SFU cannot be reached directly (`turn.py`)."""
    loopback: bool = False
    """Use 127.0.0.1 only: for an SFU on this machine."""
    loopback_too: bool = False
    """Use 127.0.0.1 beside the others: for a WHIP server on this machine, which may answer with either alone. Janus
    answers with the others, and takes nothing from 127.0.0.1 there."""
    notice_refusals: bool = False
    """Check the other end at once when its port is called unreachable: for a WHIP server, which may be started again at
    any time. At the SFU a needless new session would move the viewers."""
    gso: bool = True
    connect_timeout: float = CONNECT_TIMEOUT
    signaling_timeout: float = 30.0
    report_silence: float = REPORT_SILENCE
    stereo: bool = False
    peer: str = "the SFU"
    """What errors call the other end."""
    pacer: PacerSettings = field(default_factory=PacerSettings)


@dataclass(frozen=True)
class PublisherStats:
    """A snapshot of one publication."""

    tracks: dict[str, SentStats]
    """By kind; live objects, to be read at once."""
    estimate: Estimate
    pacer: PacerStats
    ceiling: float | None
    """Bit/s of video that the uplink carries; None when it is not the limit."""
    share: UplinkShare | None
    """What arrived at the SFU of what the camera sent; None while the uplink carries all of it."""
    queued_bytes: int
    drops: int
    """Packets that the socket did not accept."""
