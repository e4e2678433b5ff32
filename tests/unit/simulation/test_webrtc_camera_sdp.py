"""Offers that Google takes or refuses, and each defect of its answers in the text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from relay_common.simulation.camera.webrtc_habits import WebRtcHabits
from relay_common.simulation.camera.webrtc_sdp import Answer, Transport, make_answer, read_offer
from relay_common.simulation.google.errors import NoHostCandidate, OfferError

SECRET = "v" * 22
HEAD = f"""v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=ice-ufrag:abcd
a=ice-pwd:{SECRET}
a=fingerprint:sha-256 AA:BB
a=setup:actpass
"""
AUDIO = """m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=recvonly
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=candidate:1 1 udp 1 127.0.0.1 4000 typ host
"""
VIDEO = """m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100
a=mid:1
a=recvonly
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=0;profile-level-id=42e01f
a=rtpmap:97 H264/90000
a=fmtp:97 packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
a=rtcp-fb:97 transport-cc
a=rtpmap:98 H264/90000
a=fmtp:98 packetization-mode=1;profile-level-id=4d001f
a=rtcp-fb:98 ccm fir
a=rtpmap:99 rtx/90000
a=fmtp:99 apt=98
a=rtpmap:100 VP8/90000
"""
APPLICATION = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=mid:2
a=sctp-port:5000
"""
OFFER = HEAD + AUDIO + VIDEO + APPLICATION

PLAIN = WebRtcHabits(
    ice_lite=False,
    bundle_out_of_order=False,
    no_foundation=False,
    sendrecv=False,
    no_final_newline=False,
    two_h264_types=False,
    unserved_candidates=False,
    ssrc_lines=False,
    rtx=False,
)


def answer(offer: str = OFFER, *, has_audio: bool = True, **habits: bool) -> Answer:
    transport = Transport("user", "p" * 22, "CC:DD", "127.0.0.1", 19305)
    changed = PLAIN.changed(**habits)
    return make_answer(read_offer(offer), changed, transport, (1, 2, 3), has_audio=has_audio, parameter_sets="Z0,aM")


@pytest.mark.parametrize(
    ("offer", "complaint"),
    [
        ("", "not a session description"),
        (HEAD, "no media section"),
        (HEAD + VIDEO + AUDIO + APPLICATION, "in this order, not video, audio, application"),
        (HEAD + AUDIO + VIDEO, "in this order, not audio, video"),
        (OFFER.replace("a=recvonly", "a=sendrecv", 1), "audio must be recvonly, not sendrecv"),
        (OFFER.replace("a=mid:1\na=recvonly", "a=mid:1\na=sendonly"), "video must be recvonly, not sendonly"),
        (OFFER.replace("a=candidate", "a=x"), "no host candidate"),
        (OFFER.replace("typ host", "typ relay"), "no host candidate"),
        (OFFER.replace("opus", "PCMU"), "must have Opus"),
        (OFFER.replace("packetization-mode=1", "packetization-mode=0"), "H264 with packetization-mode=1"),
        (OFFER.replace("a=fingerprint", "a=x"), "fingerprint is missing"),
    ],
)
def test_offers_that_google_refuses(offer: str, complaint: str) -> None:
    with pytest.raises(OfferError, match=complaint):
        read_offer(offer)


def test_a_lenient_camera_takes_an_offer_without_a_host_candidate() -> None:
    offer = OFFER.replace("typ host", "typ relay")
    with pytest.raises(NoHostCandidate):
        read_offer(offer)
    assert read_offer(offer, lenient=True).opus


@pytest.mark.parametrize("sections", [(VIDEO, AUDIO, APPLICATION), (APPLICATION, VIDEO, AUDIO)])
def test_a_lenient_camera_takes_sections_in_another_order_and_answers_in_that_order(sections: tuple[str, ...]) -> None:
    offer = HEAD + "".join(sections)
    with pytest.raises(OfferError, match="in this order"):
        read_offer(offer)
    transport = Transport("user", "p" * 22, "CC:DD", "127.0.0.1", 19305)
    text = make_answer(read_offer(offer, lenient=True), PLAIN, transport, (1, 2, 3)).text

    def order(sdp: str, line: str) -> list[str]:
        return [found.split()[0] for found in sdp.splitlines() if found.startswith(line)]

    assert order(text, "m=") == order(offer, "m=")
    assert order(text, "a=mid:") == order(offer, "a=mid:")


def test_a_lenient_camera_still_wants_one_section_of_each_kind() -> None:
    for sections in (AUDIO + VIDEO, AUDIO + VIDEO + APPLICATION + VIDEO.replace("a=mid:1", "a=mid:9")):
        with pytest.raises(OfferError, match="audio, video and application"):
            read_offer(HEAD + sections, lenient=True)


def test_a_plain_answer_echoes_what_was_offered() -> None:
    made = answer()
    lines = made.text.split("\r\n")
    assert [line for line in lines if line.startswith("m=")] == [
        "m=audio 19305 UDP/TLS/RTP/SAVPF 111",
        "m=video 19305 UDP/TLS/RTP/SAVPF 97",
        "m=application 19305 UDP/DTLS/SCTP webrtc-datachannel",
    ]
    assert lines.count("a=setup:passive") == 3
    assert "a=rtcp-fb:97 nack pli" in lines
    assert "transport-cc" not in made.text
    assert made.audio is not None
    assert (made.audio.payload_type, made.audio.ssrc) == (111, 1)
    assert (made.video.payload_type, made.video.ssrc, made.video.rtx_type, made.video.nack) == (97, 2, None, True)


def contains(text: str) -> Callable[[str], bool]:
    return lambda sdp: text in sdp


@pytest.mark.parametrize(
    ("habit", "shown"),
    [
        ("ice_lite", contains("\r\na=ice-lite\r\n")),
        ("bundle_out_of_order", contains("a=group:BUNDLE 0 2 1\r\n")),
        ("no_foundation", contains("a=candidate: 1 udp 2113939711 127.0.0.1 19305 typ host")),
        ("no_component", contains("a=candidate:1 udp 2113939711 127.0.0.1 19305 typ host")),
        ("sendrecv", lambda sdp: sdp.count("a=sendrecv\r\n") == 2 and "sendonly" not in sdp),
        ("no_final_newline", lambda sdp: not sdp.endswith("\n")),
        ("two_h264_types", contains("m=video 19305 UDP/TLS/RTP/SAVPF 97 98\r\n")),
        ("sprop", contains("a=fmtp:97 packetization-mode=1;profile-level-id=42e01f;sprop-parameter-sets=Z0,aM")),
        ("unserved_candidates", lambda sdp: bool(re.search(r"443 typ host.*", sdp) and "tcptype passive" in sdp)),
        ("ssrc_lines", contains("a=ssrc:2 cname:")),
    ],
)
def test_each_habit_shows_in_the_answer_and_its_absence_does_not(habit: str, shown: Callable[[str], bool]) -> None:
    assert not shown(answer().text)
    assert shown(answer(**{habit: True}).text)


def test_of_two_h264_types_the_second_is_sent_with_its_own_retransmissions() -> None:
    made = answer(two_h264_types=True, rtx=True, ssrc_lines=True)
    assert "m=video 19305 UDP/TLS/RTP/SAVPF 97 98 99\r\n" in made.text
    assert "a=ssrc-group:FID 2 3" in made.text
    assert (made.video.payload_type, made.video.rtx_type, made.video.rtx_ssrc) == (98, 99, 3)


def test_both_kinds_of_malformed_candidate_occur_in_turns() -> None:
    text = answer(no_foundation=True, no_component=True, unserved_candidates=True).text
    candidates = re.findall(r"a=candidate:(.*?) 2113", text)
    assert candidates == [" 1 udp", "2 tcp", " 1 ssltcp"]


def test_a_mute_camera_answers_inactive_audio() -> None:
    made = answer(has_audio=False, sendrecv=True)
    assert made.audio is None
    assert made.text.count("a=inactive") == 1


def test_unknown_habits_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown habit 'ice'"):
        PLAIN.changed(ice=True)
    with pytest.raises(ValueError, match="'rtx' must be like"):
        PLAIN.changed(rtx=1)
    with pytest.raises(ValueError, match="'probe_interval' must be like"):
        PLAIN.changed(probe_interval=True)
