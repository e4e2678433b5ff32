"""No address leaves this machine but those that viewers are to be told."""

from __future__ import annotations

from relay_supervisor.local.answers import only_announced

ANSWER = "\r\n".join(
    (
        *("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=video 9 UDP/TLS/RTP/SAVPF 102", "c=IN IP4 10.0.0.5"),
        "a=rtcp:9 IN IP4 10.0.0.5",
        "a=candidate:1 1 udp 2130706431 10.0.0.5 8560 typ host",
        "a=candidate:2 1 udp 2130706430 192.168.1.10 8560 typ host",
        "a=candidate:3 1 udp 1694498815 192.168.1.10 9000 typ srflx raddr 10.0.0.5 rport 8560",
        "a=candidate:4 1 udp 2130706431 fd00::10 8560 typ host",
        *("a=candidate:broken", "a=ice-ufrag:abcd", ""),
    )
)


def test_only_what_is_announced_is_told() -> None:
    told = only_announced(ANSWER, {"192.168.1.10"})
    assert "10.0.0.5" not in told
    assert "fd00::10" not in told
    assert "a=candidate:2 1 udp 2130706430 192.168.1.10 8560 typ host\r\n" in told
    assert "a=candidate:3 1 udp 1694498815 192.168.1.10 9000 typ srflx\r\n" in told
    assert "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n" in told
    assert told.endswith("a=ice-ufrag:abcd\r\n")


def test_nothing_else_is_touched() -> None:
    addresses = {"10.0.0.5", "192.168.1.10", "fd00::10"}
    assert only_announced(ANSWER, addresses) == ANSWER.replace("a=candidate:broken\r\n", "")
