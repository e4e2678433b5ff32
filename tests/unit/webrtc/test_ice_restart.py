"""An ICE restart under a connection that stays: what a fragment says, and the way that it finds."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay_common.sdp_lines import MAX_SDP
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.sdp import MAX_CANDIDATES, AnswerError, LocalTransport, RemoteTransport
from relay_worker.webrtc.sdp_fragment import read_restart, write_patch
from relay_worker.webrtc.transport import PeerConnectError
from tests.fixtures.two_ends import TwoEnds, remote

CANDIDATE = "1 1 udp 2130706431 192.0.2.7 5000 typ host"
BEFORE = RemoteTransport("ufra", "p" * 22, False, (CANDIDATE,), (("sha-256", "AA:BB"),), "client")
NEW = "a=ice-ufrag:newfrag\r\na=ice-pwd:" + "n" * 24 + "\r\n"


def test_our_fragment_stands_for_all_that_is_bundled() -> None:
    local = LocalTransport("ours", "o" * 22, "AA:BB", (CANDIDATE,))
    assert write_patch(local, "video", ["0", "1"]).split("\r\n") == [
        "a=group:BUNDLE 0 1",
        "a=ice-ufrag:ours",
        "a=ice-pwd:" + "o" * 22,
        "m=video 9 UDP/TLS/RTP/SAVPF 0",
        "a=mid:0",
        "a=candidate:" + CANDIDATE,
        "a=end-of-candidates",
        "",
    ]
    assert "end-of-candidates" not in write_patch(local, "video", ["0"], complete=False)


def test_what_the_fragment_leaves_out_is_as_before() -> None:
    found = read_restart("a=ice-lite\r\n" + NEW, BEFORE)
    assert found == dataclasses.replace(BEFORE, ice_ufrag="newfrag", ice_pwd="n" * 24, ice_lite=True)
    other = "2 1 udp 2130706431 192.0.2.8 5001 typ host"
    found = read_restart(
        f"{NEW}m=video 9 X 0\na=mid:0\na=candidate:{other}\na=candidate:3 1 tcp 1 a 9 typ host", BEFORE
    )
    assert (found.candidates, found.fingerprints, found.ice_lite) == ((other,), BEFORE.fingerprints, False)
    many = "".join(f"a=candidate:{n} 1 udp 1 192.0.2.8 {5000 + n} typ host\n" for n in range(200))
    assert len(read_restart(NEW + many, BEFORE).candidates) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("fragment", "why"),
    [
        ("", "no credentials"),
        ("a=ice-ufrag:newfrag\r\n", "no credentials"),
        (NEW.replace("n" * 24, "short"), "no credentials"),
        (NEW.replace("newfrag", "new frag"), "no credentials"),
        (NEW.replace("newfrag", "x" * 300), "no credentials"),
        (NEW.replace("newfrag", "ufra"), "of before"),
        (NEW.replace("n" * 24, "p" * 22), "of before"),
        (NEW + "x" * MAX_SDP, "longer than"),
    ],
)
def test_what_restarts_nothing_is_refused_and_not_quoted(fragment: str, why: str) -> None:
    with pytest.raises(AnswerError, match=why) as caught:
        read_restart(fragment, BEFORE)
    assert "newfrag" not in str(caught.value)


async def test_packets_go_another_way_with_the_same_keys() -> None:
    ends = TwoEnds()
    try:
        await ends.connect()
        await ends.report(7)
        ours, protector, path = ends.ours, ends.ours.protector, ends.ours.path
        before = ours._connection._nominated[1].protocol.transport
        assert isinstance(path, UdpPath)
        path.drops = 5
        for ssrc in (8, 9):  # more than once
            await ends.restart()
            await ends.report(ssrc)
        assert before.is_closing()
        assert (ours.protector, ours.path, path.drops) == (protector, path, 5)
        assert ours._dtls.state == "connected"
        assert not ends.lost.is_set(), "the end of the old way is no end of the connection"
        await ends.peer.close()
        async with asyncio.timeout(30):
            await ends.lost.wait()  # DTLS' farewell comes by the new way
    finally:
        await ends.close()


async def test_a_restart_that_finds_no_way_leaves_the_one_in_use() -> None:
    ends = TwoEnds()
    try:
        await ends.connect()
        here = await ends.ours.gather_again()
        nowhere = dataclasses.replace(remote(here, "client"), candidates=("1 1 udp 1 127.0.0.1 9 typ host",))
        with pytest.raises(PeerConnectError, match="after an ICE restart within"):
            await ends.ours.reconnect(nowhere, 0.2)
        await ends.report(7)
        assert not ends.lost.is_set()
        await ends.restart()
        await ends.report(8)
    finally:
        await ends.close()
