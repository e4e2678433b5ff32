"""Answers: Cloudflare's shape (cloudflare-sfu.md 2.1), its variants, and what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_common.errors import Remedy
from relay_common.sdp_lines import MAX_SDP
from relay_worker.publish.answer import Answer, parse_answer
from relay_worker.publish.extensions import ABS_SEND_TIME_URI, NO_EXTENSIONS, TRANSPORT_CC_URI
from relay_worker.publish.offer import BASELINE, MAIN, Offer, make_offer
from relay_worker.webrtc.sdp import AnswerError

PASSWORD = "secretsecretsecretsecret"
FINGERPRINT = ":".join(["0F"] * 32)

SESSION = f"""\
v=0
o=- 7000 1700 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic:WMS*
a=fingerprint:sha-256 {FINGERPRINT}
a=ice-lite
a=group:BUNDLE 0 1
"""
TRANSPORT = f"""\
c=IN IP4 0.0.0.0
a=setup:passive
a=ice-ufrag:rEmT
a=ice-pwd:{PASSWORD}
a=rtcp-mux
a=rtcp-rsize
"""
CANDIDATES = """\
a=candidate:513273236 1 udp 2130706431 203.0.113.9 1473 typ host
a=candidate:513273236 2 udp 2130706431 203.0.113.9 1473 typ host
a=end-of-candidates
"""
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8
{TRANSPORT}a=mid:1
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=recvonly
"""


def video(*, profiles: tuple[tuple[int, int, str], ...] = ((106, 107, "42e01f"),), extra: str = "") -> str:
    formats = " ".join(f"{pt} {rtx}" for pt, rtx, _ in profiles)
    codecs = "".join(
        f"a=rtpmap:{pt} H264/90000\na=rtcp-fb:{pt} nack\na=rtcp-fb:{pt} nack pli\n"
        f"a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={level}\n"
        f"a=rtpmap:{rtx} rtx/90000\na=fmtp:{rtx} apt={pt}\n"
        for pt, rtx, level in profiles
    )
    return f"m=video 9 UDP/TLS/RTP/SAVPF {formats}\n{TRANSPORT}{CANDIDATES}a=mid:0\n{codecs}a=recvonly\n{extra}"


def answer_to(offer: Offer, sdp: str) -> Answer:
    return parse_answer(sdp.replace("\n", "\r\n"), offer)


def cloudflare() -> str:
    return SESSION + video() + AUDIO


def test_cloudflares_answer() -> None:
    offer = make_offer(audio=True)
    answer = answer_to(offer, cloudflare())
    transport = answer.transport
    assert transport.ice_lite
    assert (transport.ice_ufrag, transport.ice_pwd) == ("rEmT", PASSWORD)
    assert transport.candidates == ("513273236 1 udp 2130706431 203.0.113.9 1473 typ host",)
    assert transport.fingerprints == (("sha-256", FINGERPRINT),)
    assert transport.dtls_role == "client"
    picture, sound = answer.tracks
    assert (picture.payload_type, picture.rtx_payload_type, picture.profile_level_id) == (106, 107, "42e01f")
    assert picture.nack
    assert (sound.payload_type, sound.rtx_payload_type, sound.nack) == (111, None, False)
    assert picture.extensions == sound.extensions == NO_EXTENSIONS
    assert not picture.remb
    assert (picture.offered, sound.offered) == offer.tracks
    assert answer.rejected == ()


def test_line_ends_without_carriage_return_are_taken() -> None:
    assert parse_answer(cloudflare(), make_offer(audio=True)).tracks


def test_candidates_and_fingerprint_are_found_wherever_they_stand() -> None:
    fingerprint = f"a=fingerprint:sha-256 {FINGERPRINT}\n"
    sdp = SESSION.replace(fingerprint, "") + video().replace(CANDIDATES, "") + AUDIO + CANDIDATES + fingerprint
    transport = answer_to(make_offer(audio=True), sdp).transport
    assert len(transport.candidates) == 1
    assert transport.fingerprints == (("sha-256", FINGERPRINT),)


def test_a_peer_with_thousands_of_candidates_has_the_first_64_tried(caplog: pytest.LogCaptureFixture) -> None:
    many = "".join(f"a=candidate:{n} 1 udp {n} 203.0.113.9 {n} typ host\n" for n in range(1, 1501))
    transport = answer_to(make_offer(audio=True), SESSION + video().replace(CANDIDATES, many) + AUDIO).transport
    assert transport.candidates == tuple(f"{n} 1 udp {n} 203.0.113.9 {n} typ host" for n in range(1, 65))
    assert "1500 candidates" in caplog.text


def test_the_streams_own_profile_is_preferred_over_the_answers_order() -> None:
    both = ((106, 107, "42e01f"), (108, 109, "4d001f"))
    for profile, expected in ((66, BASELINE), (77, MAIN)):
        offer = make_offer(audio=False, profile_idc=profile)
        assert answer_to(offer, SESSION + video(profiles=both)).tracks[0].payload_type == expected.payload_type
    # What was refused cannot be preferred.
    offer = make_offer(audio=False, profile_idc=77)
    assert answer_to(offer, SESSION + video()).tracks[0].profile_level_id == "42e01f"


def test_the_answerers_own_payload_type_numbers_are_used() -> None:
    track = answer_to(make_offer(audio=False), SESSION + video(profiles=((120, 121, "42e01f"),))).tracks[0]
    assert (track.payload_type, track.rtx_payload_type) == (120, 121)


def test_a_lower_level_is_the_same_profile() -> None:
    track = answer_to(make_offer(audio=False), SESSION + video(profiles=((106, 107, "42e015"),))).tracks[0]
    assert track.payload_type == 106


def test_transport_cc_needs_both_the_extension_and_the_feedback() -> None:
    extension = f"a=extmap:5 {TRANSPORT_CC_URI}\n"
    offer = make_offer(audio=False)
    assert answer_to(offer, SESSION + video(extra=extension)).tracks[0].extensions.transport_cc is None
    both = extension + "a=rtcp-fb:106 transport-cc\n"
    assert answer_to(offer, SESSION + video(extra=both)).tracks[0].extensions.transport_cc == 5
    anyone = f"a=extmap:5/sendrecv {TRANSPORT_CC_URI}\na=rtcp-fb:* transport-cc\n"
    assert answer_to(offer, SESSION + video(extra=anyone)).tracks[0].extensions.transport_cc == 5


def test_only_what_is_echoed_is_agreed() -> None:
    offer = make_offer(audio=True)
    sendtime, feedback = f"a=extmap:7 {ABS_SEND_TIME_URI}\n", "a=rtcp-fb:106 goog-remb\n"
    picture, sound = answer_to(offer, SESSION + video(extra=sendtime + feedback) + AUDIO).tracks
    assert (picture.extensions, picture.remb) == ((7, None), True)
    assert (sound.extensions, sound.remb) == ((None, None), False)
    for unusable in ("7/sendonly", "7/inactive", "0", "15", "x"):
        extension = sendtime.replace("7 ", f"{unusable} ")
        assert answer_to(offer, SESSION + video(extra=extension) + AUDIO).tracks[0].extensions.abs_send_time is None


def test_an_answer_without_rtx_is_used_without_it() -> None:
    sdp = SESSION + video().replace("106 107", "106")
    assert answer_to(make_offer(audio=False), sdp).tracks[0].rtx_payload_type is None


@pytest.mark.parametrize("change", [("m=audio 9", "m=audio 0"), ("a=rtpmap:111 opus/48000/2\n", "")])
def test_refused_audio_leaves_video(change: tuple[str, str]) -> None:
    answer = answer_to(make_offer(audio=True), cloudflare().replace(*change))
    assert [track.offered.kind for track in answer.tracks] == ["video"]
    assert answer.rejected == ("audio",)


def test_attributes_of_a_refused_section_do_not_count() -> None:
    sdp = SESSION + video() + AUDIO.replace("m=audio 9", "m=audio 0").replace("rEmT", "other")
    assert answer_to(make_offer(audio=True), sdp).transport.ice_ufrag == "rEmT"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("v=0", "{", "not SDP"),
        ("m=video 9", "m=video 0", "refuses our H.264"),
        ("profile-level-id=42e01f", "profile-level-id=64001f", "refuses our H.264"),
        ("packetization-mode=1", "packetization-mode=0", "refuses our H.264"),
        ("H264", "VP8", "refuses our H.264"),
        (f"a=fingerprint:sha-256 {FINGERPRINT}\n", "", "no a=fingerprint"),
        (f"sha-256 {FINGERPRINT}", "sha-256", "has no value"),
        ("a=ice-ufrag:rEmT\n", "", "no a=ice-ufrag"),
        (f"a=ice-pwd:{PASSWORD}\n", "", "no a=ice-pwd"),
        ("a=setup:passive\n", "", "no a=setup"),
        ("a=setup:passive", "a=setup:actpass", "neither active nor passive"),
        (" udp ", " tcp ", "no UDP candidate"),
        ("1473 typ", "99999 typ", "no UDP candidate"),
        ("a=mid:0", "a=mid:video", "names mid"),
        ("a=recvonly", "a=sendonly", "wants to send"),
        ("m=audio 9", "m=application 9", "has application where the offer has audio"),
    ],
)
def test_what_cannot_work_is_refused(old: str, new: str, message: str) -> None:
    assert old in cloudflare()
    with pytest.raises(AnswerError, match=message) as failure:
        answer_to(make_offer(audio=True), cloudflare().replace(old, new))
    assert failure.value.remedy is Remedy.REGENERATE
    assert PASSWORD not in str(failure.value)


def test_the_answerer_may_begin_dtls_itself() -> None:
    passive = answer_to(make_offer(audio=True), cloudflare())
    active = answer_to(make_offer(audio=True), cloudflare().replace("a=setup:passive", "a=setup:active"))
    assert (passive.transport.dtls_role, active.transport.dtls_role) == ("client", "server")


def test_a_first_candidate_over_tcp_is_passed_over() -> None:
    over_tcp = "a=candidate:1 1 tcp 2130706431 203.0.113.9 9 typ host tcptype active\n"
    answer = answer_to(make_offer(audio=True), cloudflare().replace(CANDIDATES, over_tcp + CANDIDATES))
    assert answer.transport == answer_to(make_offer(audio=True), cloudflare()).transport
    assert all(" udp " in candidate for candidate in answer.transport.candidates)


def test_missing_sections_are_refused() -> None:
    with pytest.raises(AnswerError, match="has 1 media sections, the offer 2"):
        answer_to(make_offer(audio=True), SESSION + video())


def test_a_giant_answer_is_refused_unread() -> None:
    with pytest.raises(AnswerError, match="longer than"):
        parse_answer("v=0\r\n" + "a" * MAX_SDP, make_offer(audio=True))


def test_the_password_is_not_in_the_repr() -> None:
    assert PASSWORD not in repr(answer_to(make_offer(audio=True), cloudflare()))


@given(st.text(max_size=400))
def test_any_text_gives_a_typed_error(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_answer("v=0\n" + text, make_offer(audio=True))


@given(st.data())
def test_any_damage_gives_an_answer_or_a_typed_error(data: st.DataObject) -> None:
    lines = cloudflare().split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        line = lines[index]
        cut = data.draw(st.integers(0, len(line)))
        lines[index] = line[:cut] + data.draw(st.text("0123456789 :/=;a\0é-", max_size=6)) + line[cut + 1 :]
    try:
        parse_answer("\n".join(lines), make_offer(audio=True))
    except AnswerError:
        pass
