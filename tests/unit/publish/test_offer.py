"""The offer we write: read back by aiortc's own SDP parser and taken by a stock peer connection."""

from __future__ import annotations

import re

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription

from relay_worker.publish.extensions import ABS_SEND_TIME_URI, TRANSPORT_CC_URI
from relay_worker.publish.offer import BASELINE, MAIN, h264_formats, make_offer
from relay_worker.webrtc.sdp import LocalTransport

LOCAL = LocalTransport(
    ice_ufrag="uFrG",
    ice_pwd="p" * 24,
    fingerprint=":".join(["AB"] * 32),
    candidates=("1 1 udp 2130706431 192.0.2.10 40000 typ host",),
)


def test_sections_mids_and_directions() -> None:
    parsed = SessionDescription.parse(make_offer(audio=True).sdp(LOCAL))
    assert [(m.kind, m.rtp.muxId, m.direction, m.port) for m in parsed.media] == [
        ("video", "0", "sendonly", 9),
        ("audio", "1", "sendonly", 9),
    ]
    assert [group.items for group in parsed.group] == [["0", "1"]]
    for media in parsed.media:
        assert media.rtcp_mux
        assert media.ice.usernameFragment == "uFrG"
        assert media.ice.password == "p" * 24
        assert [(f.algorithm, f.value) for f in media.dtls.fingerprints] == [("sha-256", LOCAL.fingerprint)]
        assert media.dtls.role == "auto"
        assert [(c.ip, c.port) for c in media.ice_candidates] == [("192.0.2.10", 40000)]
        assert media.ice_candidates_complete
        extensions = [(extension.id, extension.uri) for extension in media.rtp.headerExtensions]
        assert extensions == [(2, ABS_SEND_TIME_URI), (3, TRANSPORT_CC_URI)]


def test_video_codecs_and_feedback() -> None:
    media = SessionDescription.parse(make_offer(audio=False, profile_idc=77).sdp(LOCAL)).media[0]
    h264 = [codec for codec in media.rtp.codecs if codec.mimeType == "video/H264"]
    assert [codec.parameters["profile-level-id"] for codec in h264] == ["4d001f", "42e01f"]
    for codec in h264:
        assert codec.parameters["packetization-mode"] == "1"
        assert codec.parameters["level-asymmetry-allowed"] == "1"
        feedback = {(f.type, f.parameter) for f in codec.rtcpFeedback}
        assert feedback >= {
            ("nack", None),
            ("nack", "pli"),
            ("ccm", "fir"),
            ("goog-remb", None),
            ("transport-cc", None),
        }
    rtx = {codec.payloadType: codec.parameters["apt"] for codec in media.rtp.codecs if codec.mimeType == "video/rtx"}
    assert rtx == {MAIN.rtx_payload_type: MAIN.payload_type, BASELINE.rtx_payload_type: BASELINE.payload_type}


def test_ssrcs_are_distinct_and_grouped() -> None:
    offer = make_offer(audio=True)
    parsed = SessionDescription.parse(offer.sdp(LOCAL))
    video, audio = offer.tracks
    assert [str(group) for group in parsed.media[0].ssrc_group] == [f"FID {video.ssrc} {video.rtx_ssrc}"]
    assert {s.ssrc for s in parsed.media[0].ssrc} == {video.ssrc, video.rtx_ssrc}
    assert {s.ssrc for s in parsed.media[1].ssrc} == {audio.ssrc}
    assert {s.cname for m in parsed.media for s in m.ssrc} == {offer.cname}
    assert len({video.ssrc, video.rtx_ssrc, audio.ssrc}) == 3
    assert make_offer(audio=True).tracks[0].ssrc != video.ssrc


@pytest.mark.parametrize(
    ("profile", "first"), [(None, "42e01f"), (66, "42e01f"), (77, "4d001f"), (88, "4d001f"), (100, "4d001f")]
)
def test_the_label_follows_the_streams_profile(profile: int | None, first: str) -> None:
    labels = [label.profile_level_id for label in h264_formats(profile)]
    assert labels[0] == first
    assert sorted(labels) == ["42e01f", "4d001f"]  # never 64xxxx, which Chromium refuses


def test_opus_is_always_two_channels_in_sdp() -> None:
    mono, stereo = (make_offer(audio=True, stereo=stereo).sdp(LOCAL) for stereo in (False, True))
    assert "opus/48000/2" in mono
    assert "opus/48000/2" in stereo
    assert "stereo=1" not in mono
    assert "sprop-stereo=1" in stereo


def test_video_only() -> None:
    sdp = make_offer(audio=False).sdp(LOCAL)
    assert "m=audio" not in sdp
    assert "a=group:BUNDLE 0\r\n" in sdp


def test_every_line_is_sdp() -> None:
    sdp = make_offer(audio=True).sdp(LOCAL)
    assert sdp.endswith("\r\n")
    assert all(re.fullmatch(r"[vostcma]=\S.*", line) for line in sdp.split("\r\n")[:-1])


def test_the_password_is_not_in_the_repr() -> None:
    assert LOCAL.ice_pwd not in repr(LOCAL)


async def test_a_stock_peer_takes_the_offer() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        await peer.setRemoteDescription(RTCSessionDescription(make_offer(audio=True).sdp(LOCAL), "offer"))
        answer = (await peer.createAnswer()).sdp
    finally:
        await peer.close()
    assert "m=video 9" in answer
    assert f"a=rtpmap:{BASELINE.payload_type} H264/90000" in answer
    assert "opus/48000/2" in answer
