"""RTP packetisation by FFmpeg's `rtp` muxer, so that the product's depacketisers are tested on foreign packets.

A clip is packetised once; `player` replays the packets with its own sequence numbers, timestamps and SSRC.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

import av
import av.stream
from av.bitstream import BitStreamFilterContext

from relay_common.simulation.camera.media import (
    OPUS_RATE,
    AudioSpec,
    Clip,
    VideoSpec,
    audio_clip,
    opus_clip,
    video_clip,
)

RTP_HEADER: Final = 12
VIDEO_PAYLOAD_TYPE: Final = 96
AUDIO_PAYLOAD_TYPE: Final = 97
VIDEO_CLOCK_RATE: Final = 90_000
DEFAULT_PAYLOAD: Final = 1200

_CACHED_TRACKS: Final = 512

ParameterSets = Literal["in_band", "out_of_band", "absent"]
"""Where SPS and PPS are: in the stream and the SDP, only in the SDP, or nowhere."""


@dataclass(frozen=True)
class RtpUnit:
    """One access unit as packets.

    `time` is when it is sent, in seconds after the loop's start; `timestamp` is its presentation time in RTP ticks. A
    packet is (the second header byte: marker and payload type, payload).
    """

    time: float
    timestamp: int
    keyframe: bool
    packets: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class RtpTrack:
    """One loop of a track: `seconds` long, `ticks` in RTP time, with the SDP lines that describe it."""

    kind: Literal["video", "audio"]
    payload_type: int
    clock_rate: int
    seconds: float
    ticks: int
    units: tuple[RtpUnit, ...]
    sdp: tuple[str, ...]


@functools.lru_cache(maxsize=_CACHED_TRACKS)
def video_track(
    spec: VideoSpec,
    payload: int = DEFAULT_PAYLOAD,
    parameter_sets: ParameterSets = "in_band",
    keyframes_only: bool = False,
) -> RtpTrack:
    """`spec`'s clip in packets of at most `payload` bytes after the RTP header (RFC 6184, packetisation mode 1).

    With `keyframes_only`, only its IDRs, in a loop of the same length.
    """
    clip = video_clip(spec)
    if keyframes_only:
        clip = replace(clip, units=tuple(unit for unit in clip.units if unit.keyframe))
    sps, pps = _parameter_sets(clip.units[0].data)
    strip = None if parameter_sets == "in_band" else BitStreamFilterContext("filter_units=remove_types=7-8", "h264")
    scale = VIDEO_CLOCK_RATE // clip.clock_rate

    def open_stream(container: av.container.OutputContainer) -> av.stream.Stream:
        return container.add_mux_stream("h264", width=spec.width, height=spec.height)

    packets = _mux(clip, VIDEO_PAYLOAD_TYPE, payload, open_stream, strip)
    fmtp = f"packetization-mode=1; profile-level-id={sps[1:4].hex().upper()}"
    if parameter_sets != "absent":
        fmtp += "; sprop-parameter-sets=" + ",".join(base64.b64encode(unit).decode() for unit in (sps, pps))
    lines = (
        f"m=video 0 RTP/AVP {VIDEO_PAYLOAD_TYPE}",
        f"a=rtpmap:{VIDEO_PAYLOAD_TYPE} H264/{VIDEO_CLOCK_RATE}",
        f"a=fmtp:{VIDEO_PAYLOAD_TYPE} {fmtp}",
    )
    return _track("video", VIDEO_PAYLOAD_TYPE, VIDEO_CLOCK_RATE, scale, clip, packets, lines)


@functools.lru_cache(maxsize=_CACHED_TRACKS)
def audio_track(spec: AudioSpec, payload: int = DEFAULT_PAYLOAD) -> RtpTrack:
    """`spec`'s clip as RFC 3640 AAC-hbr, one access unit a packet."""
    clip = audio_clip(spec)

    def open_stream(container: av.container.OutputContainer) -> av.stream.Stream:
        # The muxer needs the decoder configuration, which only a stream with its own encoder supplies.
        stream = container.add_stream("aac", rate=spec.rate)
        stream.layout = "mono" if spec.channels == 1 else "stereo"
        return stream

    packets = _mux(clip, AUDIO_PAYLOAD_TYPE, payload, open_stream, None)
    lines = (
        f"m=audio 0 RTP/AVP {AUDIO_PAYLOAD_TYPE}",
        f"a=rtpmap:{AUDIO_PAYLOAD_TYPE} mpeg4-generic/{spec.rate}/{spec.channels}",
        f"a=fmtp:{AUDIO_PAYLOAD_TYPE} streamtype=5; profile-level-id=1; mode=AAC-hbr; sizelength=13; indexlength=3; "
        f"indexdeltalength=3; config={clip.config.hex().upper()}",
    )
    return _track("audio", AUDIO_PAYLOAD_TYPE, spec.rate, 1, clip, packets, lines)


@functools.lru_cache(maxsize=_CACHED_TRACKS)
def opus_track(spec: AudioSpec) -> RtpTrack:
    """`spec`'s clip as Opus, one packet a payload (RFC 7587 4.2: nothing is added, so no packetiser is needed)."""
    clip = opus_clip(spec)
    units = (RtpUnit(u.dts / clip.clock_rate, u.pts, True, ((AUDIO_PAYLOAD_TYPE, u.data),)) for u in clip.units)
    lines = (f"m=audio 0 RTP/AVP {AUDIO_PAYLOAD_TYPE}", f"a=rtpmap:{AUDIO_PAYLOAD_TYPE} opus/{OPUS_RATE}/2")
    return RtpTrack("audio", AUDIO_PAYLOAD_TYPE, OPUS_RATE, clip.ticks / OPUS_RATE, clip.ticks, tuple(units), lines)


class _Writes(io.RawIOBase):
    """Collects each packet that the muxer writes as one entry of `packets`."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        packet = bytes(data)  # type: ignore[call-overload]
        self.packets.append(packet)
        return len(packet)


def _mux(
    clip: Clip,
    payload_type: int,
    payload: int,
    open_stream: Callable[[av.container.OutputContainer], av.stream.Stream],
    bitstream_filter: BitStreamFilterContext | None,
) -> list[bytes]:
    sink = _Writes()
    options = {
        "packetsize": str(payload + RTP_HEADER),
        "payload_type": str(payload_type),
        "rtpflags": "skip_rtcp",
        "max_delay": "0",  # one AAC access unit a packet
    }
    with av.open(sink, "w", format="rtp", buffer_size=65536, options=options) as container:
        stream = open_stream(container)
        stream.time_base = Fraction(1, clip.clock_rate)
        # The muxer holds back the last AAC unit until another follows; the extra unit's packets are discarded.
        first = clip.units[0]
        follower = replace(first, pts=first.pts + clip.ticks, dts=first.dts + clip.ticks)
        for unit in (*clip.units, follower):
            packet = av.Packet(unit.data)
            packet.pts, packet.dts, packet.time_base = unit.pts, unit.dts, Fraction(1, clip.clock_rate)
            packet.is_keyframe = unit.keyframe
            for out in bitstream_filter.filter(packet) if bitstream_filter else [packet]:
                out.stream = stream
                container.mux(out)
    return sink.packets


def _track(
    kind: Literal["video", "audio"],
    payload_type: int,
    clock_rate: int,
    scale: int,
    clip: Clip,
    packets: list[bytes],
    sdp: tuple[str, ...],
) -> RtpTrack:
    """Assign the muxer's packets to their access units, each of which has its own RTP timestamp."""
    origin = (int.from_bytes(packets[0][4:8], "big") - clip.units[0].pts * scale) & 0xFFFFFFFF
    by_timestamp: dict[int, list[tuple[int, bytes]]] = {}
    for packet in packets:
        timestamp = (int.from_bytes(packet[4:8], "big") - origin) & 0xFFFFFFFF
        by_timestamp.setdefault(timestamp, []).append((packet[1], packet[RTP_HEADER:]))
    units = tuple(
        RtpUnit(u.dts / clip.clock_rate, u.pts * scale, u.keyframe, tuple(by_timestamp[u.pts * scale]))
        for u in clip.units
    )
    seconds = clip.ticks / clip.clock_rate
    return RtpTrack(kind, payload_type, clock_rate, seconds, clip.ticks * scale, units, sdp)


def _parameter_sets(access_unit: bytes) -> tuple[bytes, bytes]:
    """The first SPS and PPS of an Annex B access unit, without start codes."""
    found: dict[int, bytes] = {}
    for chunk in access_unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        found.setdefault(chunk[0] & 0x1F, chunk)
    return found[7], found[8]
