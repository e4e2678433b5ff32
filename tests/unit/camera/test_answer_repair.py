"""Google's answers as they come, defect by defect, and what is read from them once they are mended."""

from __future__ import annotations

from pathlib import Path

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_worker.camera.answer_repair import repair_answer
from relay_worker.camera.ingest_answer import parse_ingest_answer
from relay_worker.camera.ingest_offer import make_ingest_offer
from relay_worker.media.stream import Kind
from relay_worker.webrtc.sdp import AnswerError, LocalTransport

GOOGLE = (Path(__file__).parents[2] / "fixtures/webrtc/google_answer.sdp").read_text()
UDP = "a=candidate: 1 udp 2113932031 142.250.31.127 19305 typ host generation 0"


def repaired(old: str = "", new: str = "") -> tuple[list[str], dict[str, int]]:
    """Lines and repairs of Google's answer with `old` replaced, which must be in it."""
    assert old in GOOGLE
    result = repair_answer(GOOGLE.replace(old, new) if old else GOOGLE)
    return result.sdp.split("\r\n"), dict(result.repairs)


def test_every_defect_of_a_whole_answer_is_mended_and_counted() -> None:
    lines, repairs = repaired()
    assert repairs == {"line-endings": 1, "foundation": 2, "transport": 2, "direction": 2, "bundle": 1}
    assert "a=group:BUNDLE 0 1 2" in lines
    assert lines.count("a=sendonly") == 2
    assert "a=sendrecv" not in lines
    assert lines[-1] == ""
    candidates = [line for line in lines if line.startswith("a=candidate")]
    assert candidates == [
        "a=candidate:1 1 udp 2113939711 2607:f8b0:4004:c0b::7f 19305 typ host generation 0",
        "a=candidate:1 1 udp 2113932031 142.250.31.127 19305 typ host generation 0",
    ]


def test_a_mended_answer_has_nothing_to_mend() -> None:
    once = repair_answer(GOOGLE)
    twice = repair_answer(once.sdp)
    assert twice.sdp == once.sdp
    assert not twice.repairs


@pytest.mark.parametrize(
    ("candidate", "mended", "name"),
    [
        ("a=candidate: 1 udp 7 10.0.0.1 9 typ host", "a=candidate:1 1 udp 7 10.0.0.1 9 typ host", "foundation"),
        ("a=candidate:842 udp 7 10.0.0.1 9 typ host", "a=candidate:842 1 udp 7 10.0.0.1 9 typ host", "component"),
        ("a=candidate:udp 7 10.0.0.1 9 typ host", "a=candidate:1 1 udp 7 10.0.0.1 9 typ host", "foundation"),
        ("a=candidate:842 1 UDP 7 10.0.0.1 9 typ host", "a=candidate:842 1 udp 7 10.0.0.1 9 typ host", ""),
        ("a=candidate:842 2 udp 7 10.0.0.1 9 typ host", "", "transport"),
        ("a=candidate:842 1 tcp 7 10.0.0.1 9 typ host tcptype passive", "", "transport"),
        ("a=candidate:842 1 ssltcp 7 10.0.0.1 443 typ host", "", "transport"),
        ("a=candidate:842 1 udp 7 10.0.0.1 99999 typ host", "", "malformed"),
        ("a=candidate:842 1 udp x 10.0.0.1 9 typ host", "", "malformed"),
        ("a=candidate:842 1 udp 7 10.0.0.1 9", "", "malformed"),
        ("a=candidate:", "", "malformed"),
    ],
)
def test_candidates(candidate: str, mended: str, name: str) -> None:
    before = repaired(UDP, "")[1]
    lines, repairs = repaired(UDP, candidate)
    assert [line for line in lines if "10.0.0.1" in line] == ([mended] if mended else [])
    if name:
        assert repairs[name] == before.get(name, 0) + 1
    else:
        assert repairs == before


def test_lines_that_are_no_sdp_are_left_out_and_counted() -> None:
    lines, repairs = repaired("a=ice-lite", "a=ice-lite\nnonsense\n\x00")
    assert "nonsense" not in lines
    assert repairs["malformed"] == 2


def test_actpass_in_an_answer_means_passive() -> None:
    text = GOOGLE.replace("a=setup:passive", "a=setup:actpass")
    assert parse_ingest_answer(text).transport.dtls_role == "client"
    assert repair_answer(text).repairs["setup"] == 3


def test_both_h264_payload_types_are_bound_to_the_one_video_track() -> None:
    answer = parse_ingest_answer(GOOGLE)
    video, audio = answer.tracks
    assert (video.kind, audio.kind) == (Kind.VIDEO, Kind.AUDIO)
    assert answer.payload_types == {106: video, 112: video, 111: audio}
    assert answer.rtx == {107: 106, 113: 112}
    assert answer.ssrcs == {6666: video}, "the SSRC of retransmissions is not the video's"
    assert answer.nack
    assert not video.ordered
    assert answer.transport.ice_lite
    assert answer.transport.dtls_role == "client"


def test_a_camera_without_a_microphone_is_video_only() -> None:
    answer = parse_ingest_answer(GOOGLE.replace("m=audio 19305", "m=audio 0"))
    assert [track.kind for track in answer.tracks] == [Kind.VIDEO]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("H264/90000", "VP8/90000"),
        ("m=video 9", "m=video 0"),
        (" udp ", " tcp "),
        ("v=0", "hello"),
        ("a=ice-pwd", "a=ice-past"),
        ("a=fingerprint", "a=thumbprint"),
    ],
)
def test_what_cannot_be_saved_is_a_typed_error(old: str, new: str) -> None:
    assert old in GOOGLE
    with pytest.raises(AnswerError):
        parse_ingest_answer(GOOGLE.replace(old, new))


def test_an_endless_answer_is_refused() -> None:
    with pytest.raises(AnswerError, match="longer than"):
        repair_answer("v=0\n" + "a=x\n" * 100_000)


def test_of_endless_candidates_some_are_kept() -> None:
    lines = repair_answer(GOOGLE.replace(UDP, "\n".join([UDP] * 500))).sdp.split("\r\n")
    sections = "\n".join(lines).split("\nm=")
    assert max(section.count("a=candidate:") for section in sections) == 64


async def test_a_stock_peer_refuses_the_answer_as_it_came_and_takes_it_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    peer.createDataChannel("dataSendChannel")
    try:
        await peer.setLocalDescription(await peer.createOffer())
        with pytest.raises((ValueError, AssertionError)):
            await peer.setRemoteDescription(RTCSessionDescription(GOOGLE, "answer"))
        await peer.setRemoteDescription(RTCSessionDescription(repair_answer(GOOGLE).sdp, "answer"))
        assert peer.signalingState == "stable"
    finally:
        await peer.close()


def test_the_offer_has_googles_shape() -> None:
    local = LocalTransport("ufrag", "password", "AB:CD", ("1 1 udp 7 127.0.0.1 9 typ host",))
    lines = make_ingest_offer().sdp(local).split("\r\n")
    assert [line.split()[0] for line in lines if line.startswith("m=")] == ["m=audio", "m=video", "m=application"]
    assert lines.count("a=recvonly") == 2
    assert "a=group:BUNDLE 0 1 2" in lines
    assert lines.count("a=candidate:1 1 udp 7 127.0.0.1 9 typ host") == 3
    assert lines.count("a=end-of-candidates") == 3
    assert "a=ice-options:trickle" not in lines
    assert not any("transport-cc" in line for line in lines), "Google's sender would go by it and not by REMB"
    assert {"nack", "nack pli", "ccm fir", "goog-remb"} <= {
        line.partition(" ")[2] for line in lines if line.startswith("a=rtcp-fb:")
    }


_PIECES = st.sampled_from(
    [*GOOGLE.split("\n"), "\r", "a=candidate:", "a=mid:²", "a=fmtp:107 apt=٣", "m=video", "a=ssrc:-1"]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=300), st.lists(_PIECES, max_size=80).map("\n".join)))
def test_any_text_is_an_answer_or_an_answer_error(text: str) -> None:
    for candidate in (text, "v=0\n" + text):
        try:
            answer = parse_ingest_answer(candidate)
        except AnswerError:
            continue
        assert answer.transport.candidates
        assert answer.tracks[0].kind is Kind.VIDEO


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOGLE)), st.integers(0, 30), st.text(max_size=20))
def test_a_damaged_answer_is_an_answer_or_an_answer_error(at: int, length: int, instead: str) -> None:
    try:
        parse_ingest_answer(GOOGLE[:at] + instead + GOOGLE[at + length :])
    except AnswerError:
        pass


@pytest.mark.parametrize("before", [" ", "\r", "\t"])
def test_white_space_before_a_line_costs_no_line(before: str) -> None:
    """Found by the fuzzer: such a first line was accepted and then left out, and what remained was no SDP."""
    plain = repair_answer(GOOGLE).sdp
    assert repair_answer("\n".join(before + line for line in plain.splitlines())).sdp == plain
