"""Offers of viewers: which H.264 they get, what is agreed of the rest, and what is refused in words of ours."""

from __future__ import annotations

import pytest

from relay_worker.local.answer import AnswerTerms, write_answer
from relay_worker.local.ice import IceCredentials
from relay_worker.local.offer import MAX_OFFER, MAX_SECTIONS, ViewerOffer, ViewerRefused, read_offer
from relay_worker.publish.extensions import ABS_SEND_TIME_URI, TRANSPORT_CC_URI

FINGERPRINT = ":".join(["AB"] * 32)
CHROMIUM = (
    ("VP8/90000", ""),
    ("H264/90000", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    ("H264/90000", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
    ("H264/90000", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    ("H264/90000", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f"),
)
TERMS = AnswerTerms(
    ice=IceCredentials("ufrag", "password"),
    fingerprint=FINGERPRINT,
    addresses=[("192.168.1.10", 8560), ("fd00::1", 8560)],
    session_id=7,
    cname="cname",
    stream_id="stream",
)


def video(*codecs: tuple[str, str], feedback: tuple[str, ...] = ("nack", "nack pli"), more: str = "") -> str:
    lines = []
    for place, (rtpmap, fmtp) in enumerate(codecs):
        pt = 96 + 2 * place
        lines += [f"a=rtpmap:{pt} {rtpmap}", f"a=rtpmap:{pt + 1} rtx/90000", f"a=fmtp:{pt + 1} apt={pt}"]
        lines += [f"a=fmtp:{pt} {fmtp}"] if fmtp else []
        lines += [f"a=rtcp-fb:{pt} {kind}" for kind in feedback]
    numbers = " ".join(str(96 + place) for place in range(2 * len(codecs)))
    return section("video", numbers, "0", *lines) + more


def sound() -> str:
    return section("audio", "111 0", "1", "a=rtpmap:111 opus/48000/2", "a=rtpmap:0 PCMU/8000")


def section(kind: str, numbers: str, mid: str, *lines: str) -> str:
    return "\r\n".join(
        (
            f"m={kind} 9 UDP/TLS/RTP/SAVPF {numbers}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{mid}",
            "a=recvonly",
            *SHARED,
            *lines,
            "",
        )
    )


SHARED = ("a=rtcp-mux", "a=ice-ufrag:abcd", "a=ice-pwd:very-secret-password-of-it", "a=setup:actpass")


def offer(*sections: str, head: str = "a=group:BUNDLE 0 1\r\n") -> str:
    return f"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{head}a=fingerprint:sha-256 {FINGERPRINT}\r\n" + "".join(
        sections
    )


def read(sdp: str, *, profile_idc: int | None = 66, audio: bool = True) -> ViewerOffer:
    return read_offer(sdp, profile_idc=profile_idc, audio=audio, ssrcs=(1, 2, 3))


def refused(sdp: str) -> ViewerRefused:
    with pytest.raises(ViewerRefused) as failure:
        read(sdp)
    assert "very-secret" not in failure.value.reason
    return failure.value


@pytest.mark.parametrize(("profile_idc", "chosen"), [(66, "42e01f"), (None, "42e01f"), (77, "4d001f"), (100, "4d001f")])
def test_the_offered_profile_that_is_nearest_to_the_streams_is_taken(profile_idc: int | None, chosen: str) -> None:
    (track, _) = read(offer(video(*CHROMIUM), sound()), profile_idc=profile_idc).tracks
    assert track.profile_level_id == chosen


@pytest.mark.parametrize("level_id", ["42000a", "42e00a", "640c1f", "64000a", "f4001f", "4D001F"])
def test_any_level_and_profile_is_answered_as_it_was_offered(level_id: str) -> None:
    """RFC 6184 §8.2.2: the answer's profile is the offer's; a level below the stream's is the viewer's to judge."""
    answered = read(offer(video(("H264/90000", f"packetization-mode=1;profile-level-id={level_id}"))))
    sdp = write_answer(answered, TERMS)
    assert f"a=fmtp:96 packetization-mode=1;profile-level-id={level_id.lower()}\r\n" in sdp


def test_without_a_level_it_is_baseline_level_1() -> None:
    (track,) = read(offer(video(("H264/90000", "packetization-mode=1")))).tracks
    assert track.profile_level_id == "420010"


def test_what_is_agreed_is_what_was_offered() -> None:
    extensions = f"a=extmap:4 {TRANSPORT_CC_URI}\r\na=extmap:14 {ABS_SEND_TIME_URI}\r\na=extmap:3 urn:other\r\n"
    feedback = ("nack", "nack pli", "ccm fir", "transport-cc", "made-up")
    answered = read(offer(video(*CHROMIUM, feedback=feedback, more=extensions), sound()))
    picture, music = answered.tracks
    assert (picture.payload_type, picture.rtx_payload_type, picture.nack, picture.remb) == (102, 103, True, False)
    assert picture.extensions == (14, 4)
    assert (music.payload_type, music.nack) == (111, False)
    sdp = write_answer(answered, TERMS)
    assert [line[14:] for line in sdp.splitlines() if line.startswith("a=rtcp-fb:102")] == list(feedback[:-1]), (
        "nothing that was not offered"
    )
    assert "a=extmap:3" not in sdp
    plain = read(offer(video(*CHROMIUM, more=extensions)))
    assert plain.tracks[0].extensions == (14, None), "no numbers without the feedback on them"


def test_the_answer_is_lite_sendonly_and_bundled() -> None:
    sdp = write_answer(read(offer(video(*CHROMIUM), sound())), TERMS)
    assert "a=ice-lite\r\n" in sdp
    assert "a=group:BUNDLE 0 1\r\n" in sdp
    assert sdp.count("a=sendonly") == 2
    assert sdp.count("a=setup:passive") == 2
    assert "a=ssrc-group:FID 1 2\r\n" in sdp
    assert sdp.count("a=ssrc:2 cname:cname") == 1
    candidates = [line.split()[4:6] for line in sdp.splitlines() if line.startswith("a=candidate")]
    assert candidates == [["192.168.1.10", "8560"], ["fd00::1", "8560"]]


def test_a_viewer_that_wants_to_be_passive_is_called() -> None:
    assert read(offer(video(*CHROMIUM)).replace("actpass", "passive")).setup == "active"
    assert read(offer(video(*CHROMIUM)).replace("actpass", "active")).setup == "passive"


def test_sections_that_are_not_answered_keep_their_place() -> None:
    data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n"
    sdp = write_answer(read(offer(sound(), data, video(*CHROMIUM), head="a=group:BUNDLE 0 1 2\r\n")), TERMS)
    lines = [line.split()[:2] for line in sdp.splitlines() if line.startswith("m=")]
    assert lines == [["m=audio", "8560"], ["m=application", "0"], ["m=video", "8560"]]
    assert "a=group:BUNDLE 1 0\r\n" in sdp


def test_without_bundle_only_the_picture_is_sent() -> None:
    assert [track.offered.kind for track in read(offer(sound(), video(*CHROMIUM), head="")).tracks] == ["video"]


def test_sound_alone_is_answered_and_so_is_a_camera_without_it() -> None:
    assert [track.offered.kind for track in read(offer(sound())).tracks] == ["audio"]
    assert [track.offered.kind for track in read(offer(video(*CHROMIUM), sound()), audio=False).tracks] == ["video"]


@pytest.mark.parametrize(
    "codecs",
    [
        (("VP8/90000", ""), ("AV1/90000", "")),
        (("H264/90000", "packetization-mode=0;profile-level-id=42e01f"),),
        (("H264/90000", "packetization-mode=1;profile-level-id=nonsense"),),
    ],
)
def test_without_h264_the_codecs_that_there_are_are_named(codecs: tuple[tuple[str, str], ...]) -> None:
    refusal = refused(offer(video(*codecs), sound()))
    assert refusal.status == 406
    assert "H264/90000" in refusal.reason
    assert "opus/48000/2" in refusal.reason


@pytest.mark.parametrize(
    ("sdp", "words"),
    [
        ("", "is not SDP"),
        ("very-secret", "is not SDP"),
        (offer(), "no media section"),
        (offer(*[video(*CHROMIUM)] * (MAX_SECTIONS + 1)), "more than 16"),
        (offer(video(*CHROMIUM, more="a=x:" + "y" * MAX_OFFER)), "longer than 65536"),
        (offer(video(*CHROMIUM)).replace("a=setup:actpass", "a=setup:very-secret"), "a=setup"),
        (offer(video(*CHROMIUM)).replace("a=ice-ufrag:abcd", ""), "no a=ice-ufrag"),
        (offer(video(*CHROMIUM)).replace(f"sha-256 {FINGERPRINT}", ""), "no a=fingerprint"),
        (offer(video(*CHROMIUM)).replace("a=mid:0", "a=mid:very secret"), "cannot be read"),
        (
            offer(video(*CHROMIUM), "a=fingerprint:x y\r\n" * 2)
            + "".join(f"a=fingerprint:a {n}\r\n" for n in range(9)),
            "8",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_without_a_quote(sdp: str, words: str) -> None:
    refusal = refused(sdp)
    assert refusal.status == 400
    assert words in refusal.reason


@pytest.mark.parametrize("line", ["a=rtcp-mux", "a=recvonly"])
def test_a_section_that_receives_nothing_over_this_transport_is_not_answered(line: str) -> None:
    replaced = "" if line == "a=rtcp-mux" else "a=sendonly"
    assert refused(offer(video(*CHROMIUM)).replace(line, replaced)).status == 406
