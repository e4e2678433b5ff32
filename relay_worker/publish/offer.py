"""The SDP offer of a publisher, written by us: BUNDLE, sendonly, H.264 and Opus only.

Writing it ourselves keeps order, mids and payload types in our hands and avoids what aiortc's peer connection adds
(three fingerprints, three video codecs, profile labels it knows). Grammar: RFC 8866, RFC 8829 (JSEP), RFC 8839 (ICE),
RFC 4588 (RTX), RFC 6184 §8.1 (H.264), RFC 7587 (Opus).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay_common.rendition_messages import FULL_RID, SMALL_RID
from relay_worker.publish.extensions import ABS_SEND_TIME_ID, ABS_SEND_TIME_URI, TRANSPORT_CC_ID, TRANSPORT_CC_URI
from relay_worker.publish.simulcast import extension_lines, layer_lines
from relay_worker.webrtc.sdp import OPUS, H264Format, LocalTransport

BASELINE_LEVEL: Final = "42e01f"
MAIN_LEVEL: Final = "4d001f"


BASELINE: Final = H264Format(106, 107, BASELINE_LEVEL)
MAIN: Final = H264Format(108, 109, MAIN_LEVEL)

_PROFILE_BASELINE: Final = 66


def h264_formats(profile_idc: int | None) -> tuple[H264Format, ...]:
    """Labels for a stream whose SPS says `profile_idc` (None: not known yet), preferred first.

    Browsers take 42e01f and 4d001f everywhere; Chromium refuses 64xxxx, so a High stream travels as Main
    (decoders read the profile from the SPS, the label only matters to negotiation).
    """
    return (BASELINE, MAIN) if profile_idc in (None, _PROFILE_BASELINE) else (MAIN, BASELINE)


@dataclass(frozen=True)
class OfferedTrack:
    """One m-section: what is sent on it and under which identifiers."""

    kind: str
    """`"video"` or `"audio"`."""
    mid: str
    ssrc: int
    rtx_ssrc: int | None
    """SSRC of the retransmission stream; None for audio."""
    formats: tuple[H264Format, ...] = ()
    """Video only, preferred first."""
    rid: str = ""
    """Of a simulcast track: the layer that this is."""
    small: OfferedTrack | None = None
    """The other layer of the section, where this is the first of a simulcast track."""

    @property
    def rids(self) -> tuple[str, ...]:
        """The layers of the section, best first; none of a plain one."""
        return (self.rid, self.small.rid) if self.small is not None else ()


@dataclass(frozen=True)
class Offer:
    """The contents of an offer; `sdp()` serialises it."""

    tracks: tuple[OfferedTrack, ...]
    cname: str
    stream_id: str
    session_id: int
    stereo: bool = False

    def sdp(self, local: LocalTransport) -> str:
        """The offer as SDP text, candidates included (no trickle)."""
        mids = " ".join(track.mid for track in self.tracks)
        lines = [
            "v=0",
            f"o=- {self.session_id} 1 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            f"a=group:BUNDLE {mids}",
            "a=extmap-allow-mixed",
            f"a=msid-semantic: WMS {self.stream_id}",
        ]
        for track in self.tracks:
            lines += self._section(track, local)
        return "\r\n".join(lines) + "\r\n"

    def _section(self, track: OfferedTrack, local: LocalTransport) -> list[str]:
        payload_types, codecs = _video_codecs(track.formats) if track.kind == "video" else _opus(self.stereo)
        msid = f"{self.stream_id} {track.kind}-{track.mid}"
        lines = [
            f"m={track.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, payload_types))}",
            "c=IN IP4 0.0.0.0",
            "a=rtcp:9 IN IP4 0.0.0.0",
            *(f"a=candidate:{candidate}" for candidate in local.candidates),
            "a=end-of-candidates",
            f"a=ice-ufrag:{local.ice_ufrag}",
            f"a=ice-pwd:{local.ice_pwd}",
            f"a=fingerprint:sha-256 {local.fingerprint}",
            "a=setup:actpass",
            f"a=mid:{track.mid}",
            f"a=extmap:{ABS_SEND_TIME_ID} {ABS_SEND_TIME_URI}",
            f"a=extmap:{TRANSPORT_CC_ID} {TRANSPORT_CC_URI}",
            *(extension_lines() if track.small is not None else ()),
            "a=sendonly",
            f"a=msid:{msid}",
            "a=rtcp-mux",
            "a=rtcp-rsize",
            *codecs,
        ]
        if track.small is not None:
            return lines + layer_lines()
        if track.rtx_ssrc is not None:
            lines.append(f"a=ssrc-group:FID {track.ssrc} {track.rtx_ssrc}")
        for ssrc in (track.ssrc, track.rtx_ssrc):
            if ssrc is not None:
                lines += [f"a=ssrc:{ssrc} cname:{self.cname}", f"a=ssrc:{ssrc} msid:{msid}"]
        return lines


def _video_codecs(formats: Sequence[H264Format]) -> tuple[list[int], list[str]]:
    payload_types: list[int] = []
    lines: list[str] = []
    for pt, rtx, level in formats:
        payload_types += [pt, rtx]
        lines += [
            f"a=rtpmap:{pt} H264/90000",
            *(f"a=rtcp-fb:{pt} {kind}" for kind in ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")),
            f"a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={level}",
            f"a=rtpmap:{rtx} rtx/90000",
            f"a=fmtp:{rtx} apt={pt}",
        ]
    return payload_types, lines


def _opus(stereo: bool) -> tuple[list[int], list[str]]:
    # RFC 7587 §7: the encoding is always opus/48000/2; `sprop-stereo` states the actual channels.
    channels = ";stereo=1;sprop-stereo=1" if stereo else ""
    return [OPUS], [
        f"a=rtpmap:{OPUS} opus/48000/2",
        f"a=rtcp-fb:{OPUS} transport-cc",
        f"a=fmtp:{OPUS} minptime=10;useinbandfec=1{channels}",
    ]


def make_offer(*, audio: bool, profile_idc: int | None = None, stereo: bool = False, simulcast: bool = False) -> Offer:
    """A new offer with fresh SSRCs: video as mid 0, in two layers when `simulcast`, and Opus as mid 1 when `audio`."""
    ssrcs = _distinct_ssrcs(5)
    formats = h264_formats(profile_idc)
    video = OfferedTrack("video", "0", ssrcs[0], ssrcs[1], formats)
    if simulcast:
        small = OfferedTrack("video", "0", ssrcs[3], ssrcs[4], formats, SMALL_RID)
        video = OfferedTrack("video", "0", ssrcs[0], ssrcs[1], formats, FULL_RID, small)
    tracks = [video]
    if audio:
        tracks.append(OfferedTrack("audio", "1", ssrcs[2], None))
    return Offer(
        tracks=tuple(tracks),
        cname=secrets.token_hex(8),
        stream_id=secrets.token_hex(8),
        session_id=secrets.randbits(62),
        stereo=stereo,
    )


def _distinct_ssrcs(count: int) -> list[int]:
    ssrcs: set[int] = set()
    while len(ssrcs) < count:
        ssrcs.add(1 + secrets.randbelow(0xFFFFFFFE))
    return list(ssrcs)
