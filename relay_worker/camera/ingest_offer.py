"""The SDP offer for a WebRTC camera in the form that GenerateWebRtcStream accepts.

Audio, video and a data channel, in that order, both media recvonly, candidates included (no trickle): the only form
known to work (`nest-sdm.md` 2; developers.google.com/nest/device-access/traits/device/camera-live-stream).
Transport-wide feedback is left out deliberately: with it Google's sender would follow that instead of REMB, and REMB is
what makes the first picture fast.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relay_worker.webrtc.sdp import OPUS, H264Format, LocalTransport

AUDIO_MID: Final = "0"
VIDEO_MID: Final = "1"
DATA_MID: Final = "2"

H264_FORMATS: Final = (
    H264Format(106, 107, "42e01f"),
    H264Format(108, 109, "4d001f"),
    H264Format(112, 113, "64001f"),
)
"""Profiles on offer; 1080p cameras send High. The level is only a label here (level-asymmetry-allowed)."""

_RECEIVED: Final = ("a=recvonly", "a=rtcp-mux", "a=rtcp-rsize")
_FEEDBACK: Final = ("nack", "nack pli", "ccm fir", "goog-remb")


@dataclass(frozen=True)
class CameraOffer:
    """One offer; `ssrc` is the sender SSRC of our RTCP."""

    session_id: int
    ssrc: int

    def sdp(self, local: LocalTransport) -> str:
        """The offer as SDP text."""
        video = [pt for format_ in H264_FORMATS for pt in format_[:2]]
        lines = [
            "v=0",
            f"o=- {self.session_id} 1 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            f"a=group:BUNDLE {AUDIO_MID} {VIDEO_MID} {DATA_MID}",
            "a=msid-semantic: WMS",
            *_section("audio", "UDP/TLS/RTP/SAVPF", [OPUS], AUDIO_MID, local),
            *_RECEIVED,
            f"a=rtpmap:{OPUS} opus/48000/2",
            f"a=fmtp:{OPUS} minptime=10;useinbandfec=1",
            *_section("video", "UDP/TLS/RTP/SAVPF", video, VIDEO_MID, local),
            *_RECEIVED,
            *_video_codecs(),
            *_section("application", "UDP/DTLS/SCTP", ["webrtc-datachannel"], DATA_MID, local),
            "a=sctp-port:5000",
            "a=max-message-size:262144",
        ]
        return "\r\n".join(lines) + "\r\n"


def _section(media: str, protocol: str, formats: Iterable[int | str], mid: str, local: LocalTransport) -> list[str]:
    return [
        f"m={media} 9 {protocol} {' '.join(map(str, formats))}",
        "c=IN IP4 0.0.0.0",
        *(f"a=candidate:{candidate}" for candidate in local.candidates),
        "a=end-of-candidates",
        f"a=ice-ufrag:{local.ice_ufrag}",
        f"a=ice-pwd:{local.ice_pwd}",
        f"a=fingerprint:sha-256 {local.fingerprint}",
        "a=setup:actpass",
        f"a=mid:{mid}",
    ]


def _video_codecs() -> list[str]:
    lines: list[str] = []
    for pt, rtx, level in H264_FORMATS:
        lines += [
            f"a=rtpmap:{pt} H264/90000",
            *(f"a=rtcp-fb:{pt} {kind}" for kind in _FEEDBACK),
            f"a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={level}",
            f"a=rtpmap:{rtx} rtx/90000",
            f"a=fmtp:{rtx} apt={pt}",
        ]
    return lines


def make_ingest_offer() -> CameraOffer:
    """A new offer."""
    return CameraOffer(session_id=secrets.randbits(62), ssrc=1 + secrets.randbelow(0xFFFFFFFE))
