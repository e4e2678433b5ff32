"""The vocabulary of the media path: kinds, formats, tracks, what arrives, and what can be sent.

It imports nothing else of the relay, so that every folder can speak it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from relay_worker import native
    from relay_worker.rtp.rtcp import ReportBlock

VIDEO_CLOCK_RATE: Final = 90000
"""Hz, for every video format that is carried (RFC 6184 §8.2.1)."""
AUDIO_CLOCK_RATE: Final = 48000
"""Hz, of Opus whatever its sampling rate is (RFC 7587 §4.1)."""

Payload = bytes | bytearray | memoryview
PayloadRun = Sequence[tuple[Payload, bool]]
"""RTP payloads in order, each with its marker bit."""


class Kind(enum.StrEnum):
    """Kind of media."""

    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of a media line."""

    payload_type: int
    encoding: str
    """Upper-case encoding name, empty when nothing says."""
    clock_rate: int
    """Hz; 0 when nothing says."""
    channels: int = 1
    parameters: dict[str, str] = field(default_factory=dict)
    """fmtp parameters; names in lower case."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One track to be played. Compared by identity: a reconnect makes new ones."""

    kind: Kind
    format: Format
    control: str = field(repr=False)
    """URL for SETUP; may hold a token. Empty for a track of a WebRTC camera."""
    ordered: bool = True
    """Whether packets arrive in order and only with the format's payload type: as over TCP, unlike over UDP."""

    @property
    def clock_rate(self) -> int:
        """RTP clock rate in Hz, never 0."""
        return self.format.clock_rate or (VIDEO_CLOCK_RATE if self.kind is Kind.VIDEO else 8000)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The fmtp parameters; names in lower case."""
        return self.format.parameters


class Batch(msgspec.Struct, gc=False):
    """What arrived for one track in one wake-up, in order."""

    track: Track
    rtp: list[bytes]
    rtcp: list[bytes]


class Frame(msgspec.Struct, gc=False):
    """Media ready to be sent: RTP payloads, each with its marker bit."""

    kind: Kind
    payloads: PayloadRun
    media_time: float
    """Seconds on the media clock, of the first payload."""
    step: float = 0.0
    """Seconds from one payload to the next: sound. The payloads of a picture share one time."""


class MediaSink(Protocol):
    """Receives a source's media; called on the event loop, must not block."""

    def on_playing(self, tracks: Sequence[Track], now: float) -> None:
        """The stream begins; `tracks` are those that follow in batches."""
        ...

    def on_media(self, batches: Sequence[Batch], now: float) -> None:
        """Everything received in one wake-up: per track its RTP and RTCP packets in order."""
        ...

    def receiver_report(self, track: Track, now: float) -> ReportBlock | None:
        """The report on this track for the server, or None when there is none yet."""
        ...


class Feed(NamedTuple):
    """Where the packets of a video track come from: a session and its parser, and the track's interleaved channels.

    The session's packets of other tracks come behind the video's.
    """

    track: Track
    session: Any
    parser: Any
    playing: object
    """The session's `state` while it plays."""
    rtp: int
    rtcp: int
    sound: tuple[int, int] | None = None
    """The same two of the sound, where there is any."""


@runtime_checkable
class WakeSink(Protocol):
    """A sink that may take all that one wake brought as undivided bytes."""

    wake: native.Wake | None
    """What takes them with one call, for who asks it directly."""

    def take_wake(self, feed: Feed, data: bytes, now: float, done: int | None = None) -> int:
        """What was done with them, as `native.Wake.take` says; unless it is done, nothing has happened.

        `done` is what `wake` has said of them already, None where it was not asked.
        """
        ...

    def hear_wake(self, data: bytes, now: float) -> bool:
        """Whether these bytes, of the session whose sound was heard last, were sound that has been taken; else nothing
        has happened.
        """
        ...

    def take_left(self, feed: Feed, now: float) -> None:
        """Take the packets of other tracks, which have been left in the parser's lists: `OTHERS_LEFT`."""
        ...


class Output(Protocol):
    """Where frames go: a publication at the SFU, a file, or nowhere."""

    def send(self, frame: Frame, now: float) -> None:
        """Send the frame (or the available part of it), which arrived at `now`; must not block or raise."""
        ...
