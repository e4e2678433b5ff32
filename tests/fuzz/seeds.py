"""The fuzzer's starting inputs: real messages, and all earlier findings (`corpus/TARGET/`)."""

from __future__ import annotations

from pathlib import Path

from relay_common import protocol, wire
from relay_worker.rtp import rtcp
from tests.fuzz.targets import FIXTURES

CORPUS = Path(__file__).parent / "corpus"

_RTP = bytes.fromhex("8060000100000bb800000001")
_SPS = bytes.fromhex("674d401fda014016e840000003004000000f03c60ca8")
_ANSWER = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE 0 1\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 101 102\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=setup:passive\r\na=recvonly\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtcp-mux\r\n"
    "a=rtpmap:101 H264/90000\r\na=fmtp:101 profile-level-id=42e01f;packetization-mode=1\r\na=rtcp-fb:101 nack\r\n"
    "a=candidate:1 1 udp 2130706431 127.0.0.1 1473 typ host\r\na=end-of-candidates\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=setup:passive\r\na=recvonly\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtpmap:111 opus/48000/2\r\n"
).encode()


def cut(*pieces: bytes) -> bytes:
    """Pieces in the form that `targets.chunks` takes apart."""
    parts = [part for piece in pieces for part in (piece[i : i + 255] for i in range(0, len(piece), 255))]
    return b"".join(bytes([len(part)]) + part for part in parts)


def transcripts() -> list[bytes]:
    """What the servers of the RTSP fixtures send."""
    found = []
    for file in sorted((FIXTURES / "rtsp").glob("*.txt")):
        lines = [line for line in file.read_bytes().splitlines(keepends=True) if not line.startswith(b">>>")]
        found.append(b"".join(lines).replace(b"{cseq}", b"1").replace(b"{length}", b"100"))
    return found


def seeds(target: str) -> list[bytes]:
    """Inputs for one target."""
    stored = [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]
    if target in ("rtsp_parser", "rtsp_session"):
        return stored + [cut(text, b"$\0\0\x04abcd") for text in transcripts()]
    if target == "rtsp_sdp":
        return stored + [file.read_bytes() for file in sorted((FIXTURES / "sdp").glob("*"))] + transcripts()
    return (
        stored
        + {
            "rtsp_auth": [
                cut(b'Digest realm="x", nonce="y", qop="auth", algorithm=MD5, stale=true', b'Basic realm="z"')
            ],
            "rtp_receiver": [cut(_RTP + b"\x65abc", _RTP[:3] + b"\x02" + _RTP[4:] + b"\x41def")],
            "rtcp_compound": [
                rtcp.pack_sender_report(1, 2 << 32, 3, 4, 5) + rtcp.pack_sdes(1, "name") + rtcp.pack_bye(1),
                rtcp.pack_nack(1, 2, [3, 4, 30]) + rtcp.pack_pli(1, 2) + rtcp.pack_remb(1, 500_000, [2]),
            ],
            "h264": [
                cut(
                    b"\0" + _SPS, b"\0\x68\xee\x3c\x80", b"\1\x65\x88\x84\0", b"\0\x7c\x85" + b"x" * 220, b"\1\x7c\x45y"
                )
            ],
            "h264_sps": [_SPS, bytes.fromhex("6742e01f8d680a03da10000003001000000303c0f1429e")],
            "aac": [cut(b"\x80\x00\x10\x00\x20abcd"), bytes.fromhex("1408"), bytes.fromhex("1190")],
            "latm": [cut(b"\x80\x04abcd"), b"40002410adca00"],
            "sfu_answer": [_ANSWER],
            "google_answer": [_ANSWER.replace(b"recvonly", b"sendrecv").replace(b"candidate:1 1", b"candidate: 1")],
            "bus": [
                wire.encode(protocol.StreamLost(generation=7, reason="x")),
                wire.encode(protocol.PublishRequest(request=1, offer="v=0", tracks=[])),
            ],
        }[target]
    )
