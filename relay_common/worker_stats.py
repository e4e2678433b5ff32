"""The report a worker sends every second or two, from its PUB to the supervisor's SUB (`wire.stats_reader`).

Like every message on the bus: new fields go last, with a default; a field never changes its type.
"""

from __future__ import annotations

from typing import Final

import msgspec

from relay_common.local_messages import LocalStats
from relay_common.protocol import Stage, WorkerState


class TrackStats(msgspec.Struct, kw_only=True):
    """Counters of one media track; all are totals since the worker started unless a unit says otherwise."""

    codec: str = ""
    packets_in: int = 0
    bytes_in: int = 0
    lost_in: int = 0
    """Packets missing between the source's sequence numbers."""
    jitter_in: float = 0.0
    """Interarrival jitter at the source side, seconds (RFC 3550 6.4.1)."""
    frames: int = 0
    """Video: access units; audio: encoded frames."""
    keyframes: int = 0
    keyframe_interval: float = 0.0
    """Seconds between the last two keyframes."""
    fps: float = 0.0
    """Frames per second over the last stats interval."""
    bitrate_in: float = 0.0
    """Bits per second received over the last stats interval."""
    bitrate_out: float = 0.0
    dropped: int = 0
    """Packets received but deliberately not forwarded (before the first IDR, after a gap, over a bound)."""
    packets_out: int = 0
    bytes_out: int = 0
    retransmitted: int = 0
    nacks: int = 0
    plis: int = 0
    firs: int = 0
    send_drops: int = 0
    """Packets that the socket did not accept."""
    loss_out: float = 0.0
    """Fraction lost as last reported by the SFU, 0..1."""
    rtt: float = 0.0
    """Round trip to the SFU from receiver reports, seconds."""
    width: int = 0
    height: int = 0
    profile: str = ""
    """H.264 profile-level-id, six hex digits."""
    thinned: int = 0
    """Frames dropped because the uplink could not carry them in time."""
    ceiling: float = 0.0
    """Bit/s that video is held to for the uplink, an estimate; 0 while it is not the limit. `carried` is measured."""
    b_frames: bool = False
    """Whether pictures are sent out of display order; browsers may play them unevenly."""
    tolerated: dict[str, int] = msgspec.field(default_factory=dict)
    """Deviations of the camera's stream that were corrected, by name (docs/quirks.md), without those at zero."""
    carried: float = 0.0
    """Bit/s of video that arrived at the SFU over the last seconds, repairs left out, as receiver reports say. Like
    `offered`, 0 while nothing has to be left out for the uplink."""
    offered: float = 0.0
    """Bit/s that the camera sent meanwhile."""

    def copied(self) -> TrackStats:
        """A copy that can be modified."""
        return msgspec.structs.replace(self, tolerated=dict(self.tolerated))


class SinkStats(msgspec.Struct, kw_only=True):
    """What one sink gets of a camera; counters are totals since the worker started, over all publications there."""

    name: str = ""
    """"" for the SFU."""
    state: str = "new"
    """State of the publishing transport."""
    live: bool = False
    """Whether packets of every track have left for it."""
    publications: int = 0
    """Publications made there so far."""
    stage: str = ""
    """Where the last failure was, as long as it is not live."""
    reason: str = ""
    """The last failure in words, as long as it is not live."""
    video_packets: int = 0
    audio_packets: int = 0
    bytes: int = 0
    bitrate: float = 0.0
    """Bits per second over the last stats interval."""
    retransmitted: int = 0
    nacks: int = 0
    keyframe_requests: int = 0
    dropped: int = 0
    """Packets not sent for want of room on the way there."""
    thinned: int = 0
    """Frames left out because the way there could not carry them in time."""
    loss: float = 0.0
    """Fraction of the video lost, as last reported from there, 0..1."""
    rtt: float = 0.0
    """Round trip in seconds."""
    ceiling: float = 0.0
    """Bit/s that video is held to; 0 while that is not the limit."""
    delay_p50: float = 0.0
    """Seconds from a video packet's arrival to its departure, over the last interval."""
    delay_p99: float = 0.0
    restarts: int = 0
    """ICE restarts that kept a publication."""
    restarts_failed: int = 0
    """Those that did not: another publication took its place."""


class RenditionStats(msgspec.Struct, kw_only=True):
    """The smaller picture of a camera; counters are totals since the worker started."""

    mode: str = "off"
    """What the present publication was configured to make: `off`, `keyframes` or `smooth`."""
    active: str = "off"
    """What is made now: `keyframes` while `smooth` does not fit its budget."""
    reason: str = ""
    """Why nothing or less is made, in words."""
    width: int = 0
    height: int = 0
    pictures: int = 0
    """Sent."""
    packets: int = 0
    bytes: int = 0
    cpu: float = 0.0
    """Milliseconds a second, over the last 10 s."""
    replaced: int = 0
    """Pictures dropped for a newer one: one waits at most."""
    failed: int = 0
    """Pictures that could not be decoded or encoded."""
    refused: int = 0
    """Pictures of a kind that is not made smaller: with B-frames, interlaced, too large."""
    stuck: int = 0
    """Times that the thread which makes them was given up."""
    refusals: int = 0
    """Answers that refused simulcast."""


class WorkerStats(msgspec.Struct, kw_only=True, tag_field="t", tag="stats"):
    """One report of a worker, about once a second."""

    instance: str
    camera: str
    sequence: int
    at: float
    uptime: float
    state: WorkerState
    stage: Stage = Stage.NONE
    reason: str = ""
    source: str = "idle"
    """RTSP (or ingest) state."""
    webrtc: str = "new"
    """State of the publishing transport."""
    publication: str = ""
    generation: int = 0
    expires_at: float = 0.0
    source_sessions: int = 0
    """Sessions opened to the camera since the worker started."""
    video: TrackStats = msgspec.field(default_factory=TrackStats)
    audio: TrackStats = msgspec.field(default_factory=TrackStats)
    delay_p50: float = 0.0
    """Seconds from a video packet's arrival to its departure, over the last interval."""
    delay_p99: float = 0.0
    skew: float = 0.0
    """Audio behind video on the media clock, seconds."""
    malformed: int = 0
    """Frames or packets that could not be parsed and were counted instead."""
    unknown_messages: int = 0
    cpu: float = 0.0
    """CPU seconds used by the process."""
    rss: int = 0
    """Resident set, bytes."""
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    """Counters of the worker's parts, as `part.name`, zeros left out: what was tolerated, limited, refused or
    repaired; totals of the media itself are in the tracks. Those of a session or a publication restart with it.
    """
    requests_in_vain: float = 0.0
    """Seconds for which viewers have requested keyframes although at least two complete ones were sent; 0 otherwise."""
    code: str = ""
    """The cause of `reason`: a value of `relay_common.causes.Cause`; empty without one, and from earlier releases."""
    sinks: list[SinkStats] = msgspec.field(default_factory=list)
    """Each sink by itself; the tracks' own figures of what was sent are those of the first."""
    local: LocalStats | None = None
    """Viewers that it answers itself; None while it answers none."""
    retry_at: float = 0.0
    """When it does by itself what may end what `code` says (Unix seconds); 0 while nothing is planned."""
    rendition: RenditionStats | None = None
    """The smaller picture; None from a worker of an earlier release, and while none was ever asked for."""


NOT_DECODABLE: Final = "live, not decodable"
"""Status of a camera whose media is sent but which no viewer can decode."""
LOSSY: Final = 0.1
"""Uplink loss above which keyframes hardly arrive complete."""


def uplink_share(video: TrackStats) -> str:
    """What the uplink carries of a stream that is thinned for it, in words; empty while it carries everything."""
    if not video.offered:
        return ""
    carried, offered = video.carried / 1e6, video.offered / 1e6
    digits = 1 if f"{carried:.1f}" != f"{offered:.1f}" else 2
    return f"the uplink carries {carried:.{digits}f} of {offered:.{digits}f} Mbit/s; pictures are left out"


def stage_of(stats: WorkerStats) -> Stage:
    """Stage to blame for undecodable video: `sending` if the uplink loses too much, otherwise `decode`."""
    return Stage.SENDING if stats.video.loss_out >= LOSSY else Stage.DECODE


def describe_requests(stats: WorkerStats) -> str:
    """`requests_in_vain` in words."""
    asked = f"viewers have requested keyframes for {stats.requests_in_vain:.0f} s"
    words = f"{asked}, and the complete ones sent did not help"
    if stage_of(stats) is Stage.SENDING:
        words += f"; the uplink loses {stats.video.loss_out:.0%} of the packets"
    return words
