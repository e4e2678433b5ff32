"""The shape of the simulated SFU's descriptions, and its ICE-lite agent."""

from __future__ import annotations

import pytest
from aioice import stun
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.ice import IceLite, local_ufrag
from relay_common.simulation.sfu.sdp import LocalTransport, SdpError

OFFER = "\r\n".join(
    """v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
a=fingerprint:sha-256 aa:bb
m=audio 9 UDP/TLS/RTP/SAVPF 96 9 0 8
a=mid:0
a=ice-ufrag:ufra
a=ice-pwd:pwdpwdpwdpwdpwdpwdpwdpwd
a=setup:actpass
a=sendrecv
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=rtpmap:96 opus/48000/2
a=rtpmap:9 G722/8000
m=video 9 UDP/TLS/RTP/SAVPF 101 102 103
a=mid:1
a=ice-ufrag:ufra
a=ice-pwd:pwdpwdpwdpwdpwdpwdpwdpwd
a=setup:actpass
a=sendonly
a=rtpmap:101 H264/90000
a=fmtp:101 packetization-mode=1;profile-level-id=4d001f
a=rtcp-fb:101 nack
a=rtcp-fb:101 nack pli
a=rtcp-fb:101 goog-remb
a=rtpmap:102 rtx/90000
a=fmtp:102 apt=101
a=rtpmap:103 flexfec-03/90000
a=ssrc:11 cname:x
a=ssrc:12 cname:x
a=ssrc-group:FID 11 12""".splitlines()
)
TRANSPORT = LocalTransport(42, "lu", "lp", "CC:DD", "127.0.0.1", 1473)


def answer(h264_profiles: tuple[str, ...] | None = None) -> str:
    feedback = frozenset({"nack", "nack pli"})
    sections = [
        sfu_sdp.accept(section, h264_profiles=h264_profiles, feedback=feedback, extensions=frozenset())
        for section in sfu_sdp.parse(OFFER)
    ]
    return sfu_sdp.write(sections, TRANSPORT, 1)


def test_answer_has_the_captured_shape() -> None:
    candidates = [f"a=candidate:513273236 {component} udp 2130706431 127.0.0.1 1473 typ host" for component in (1, 2)]
    transport = ["a=ice-ufrag:lu", "a=ice-pwd:lp", "a=rtcp-mux", "a=rtcp-rsize"]
    assert answer().split("\r\n") == [
        "v=0",
        "o=- 42 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS*",
        "a=fingerprint:sha-256 CC:DD",
        "a=ice-lite",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96 0 8",
        "c=IN IP4 0.0.0.0",
        "a=setup:passive",
        "a=mid:0",
        *transport,
        "a=rtpmap:96 opus/48000/2",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=recvonly",
        *candidates,
        "a=end-of-candidates",
        "m=video 9 UDP/TLS/RTP/SAVPF 101 102",
        "c=IN IP4 0.0.0.0",
        "a=setup:passive",
        "a=mid:1",
        *transport,
        "a=rtpmap:101 H264/90000",
        "a=fmtp:101 packetization-mode=1;profile-level-id=4d001f",
        "a=rtcp-fb:101 nack",
        "a=rtcp-fb:101 nack pli",
        "a=rtpmap:102 rtx/90000",
        "a=fmtp:102 apt=101",
        "a=recvonly",
        "",
    ]


def test_a_refused_profile_refuses_the_section() -> None:
    lines = answer(("42e01f",)).split("\r\n")
    assert "m=video 0 UDP/TLS/RTP/SAVPF 0" in lines
    assert "a=group:BUNDLE 0" in lines


def test_parse_reads_what_routing_needs() -> None:
    video = sfu_sdp.parse(OFFER)[1]
    assert (video.ssrcs, video.rtx_ssrcs, video.ufrag, video.fingerprints) == (
        [11, 12],
        {11: 12},
        "ufra",
        [("sha-256", "AA:BB")],
    )


@pytest.mark.parametrize(
    "text", ["", "v=0\r\n", OFFER.replace("a=mid:1", "a=mid:0"), OFFER.replace("a=ice-ufrag:ufra", ""), "v=0\r\nm=x"]
)
def test_unusable_descriptions_are_refused(text: str) -> None:
    with pytest.raises(SdpError):
        sfu_sdp.parse(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(OFFER.splitlines()) | st.text(max_size=30).map(lambda t: f"a={t}"), max_size=40))
def test_shuffled_descriptions_parse_or_are_refused(lines: list[str]) -> None:
    try:
        sections = sfu_sdp.parse("v=0\r\n" + "\r\n".join(lines))
    except SdpError:
        return
    for section in sections:
        sfu_sdp.accept(section, feedback=frozenset(), extensions=frozenset())


def check(username: str, key: bytes = b"pwd", **attributes: object) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes = {"USERNAME": username, "PRIORITY": 1, "ICE-CONTROLLING": 1, **attributes}
    message.add_message_integrity(key)
    return bytes(message)


def negotiated() -> IceLite:
    agent = IceLite("ours", "pwd")
    agent.remote_ufrag = "theirs"
    return agent


def test_checks_before_the_description_are_dropped() -> None:
    agent = IceLite("ours", "pwd")
    assert agent.receive(check("ours:theirs"), ("127.0.0.1", 5000)) is None
    assert (agent.remote, agent.answered, agent.refused) == (None, 0, 0)


def test_a_check_is_answered_and_names_the_address() -> None:
    agent = negotiated()
    request = check("ours:theirs")
    assert local_ufrag(request) == "ours"
    response = agent.receive(request, ("127.0.0.1", 5000))
    assert response is not None
    read = stun.parse_message(response)
    assert read.message_class is stun.Class.RESPONSE
    assert read.attributes["XOR-MAPPED-ADDRESS"] == ("127.0.0.1", 5000)
    assert read.check_message_integrity(b"pwd")
    assert agent.remote == ("127.0.0.1", 5000)


def test_a_nomination_moves_the_address_and_a_plain_check_does_not() -> None:
    agent = negotiated()
    for port, attributes in ((1, {}), (2, {}), (3, {"USE-CANDIDATE": None}), (4, {})):
        agent.receive(check("ours:theirs", **attributes), ("127.0.0.1", port))
    assert agent.remote == ("127.0.0.1", 3)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (check("ours:theirs", b"wrong"), 401),
        (check("ours:stranger"), 401),
        (check("ours:theirs", **{"ICE-CONTROLLED": 1}), 487),
    ],
    ids=["wrong password", "unknown peer", "not controlling"],
)
def test_bad_checks_are_refused(request_: bytes, code: int) -> None:
    agent = negotiated()
    response = agent.receive(request_, ("127.0.0.1", 1))
    assert response is not None
    assert stun.parse_message(response).error_code == code
    assert agent.remote is None
    assert agent.refused == 1


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_datagram_is_survived(data: bytes) -> None:
    agent = negotiated()
    for datagram in (data, b"\x00\x01\x00\x10\x21\x12\xa4\x42" + data):
        local_ufrag(datagram)
        agent.receive(datagram, ("127.0.0.1", 1))
    assert agent.remote is None
