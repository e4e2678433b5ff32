"""The fuzzer's starting inputs: real messages, and all earlier findings (`corpus/TARGET/`)."""

from __future__ import annotations

import binascii
import hmac
import struct
from pathlib import Path

from relay_common import protocol, wire
from relay_worker.rtp import rtcp
from relay_worker.rtp.transport_cc import pack_transport_feedback
from tests.fuzz.pieces import ANSWER, cut
from tests.fuzz.supervisor_targets import WHOLE
from tests.fuzz.targets import FIXTURES

CORPUS = Path(__file__).parent / "corpus"

_RTP = bytes.fromhex("8060000100000bb800000001")
_SPS = bytes.fromhex("674d401fda014016e840000003004000000f03c60ca8")
_DEVICE = (
    b'{"name":"enterprises/p/devices/d","type":"sdm.devices.types.DOORBELL","traits":{"sdm.devices.traits.Info":'
    b'{"customName":"Door"},"sdm.devices.traits.CameraLiveStream":{"maxVideoResolution":{"width":640,"height":480},'
    b'"videoCodecs":["H264"],"audioCodecs":["AAC"],"supportedProtocols":["RTSP","WEB_RTC"]}},'
    b'"parentRelations":[{"parent":"x","displayName":"Porch"}]}'
)
_STREAM = (
    b'{"results":{"streamUrls":{"rtspUrl":"rtsps://stream.example/id?auth=g.0.t"},"streamExtensionToken":"e",'
    b'"streamToken":"g.0.u","mediaSessionId":"m","answerSdp":"v=0","expiresAt":"2026-05-28T10:05:00Z"}}'
)
_REPLY = (
    b'{"sessionId":"s","requiresImmediateRenegotiation":true,"sessionDescription":{"type":"offer","sdp":"v=0"},'
    b'"tracks":[{"mid":"0","trackName":"video","sessionId":"s","location":"remote","status":"active"}]}'
)
_REFUSED = b'{"errorCode":"gone","errorDescription":"session ended","tracks":[{"errorCode":"not_found_track_error"}]}'
_LEASE = (
    *(b"ta", b"tcam", b"tdev", b"tRTSP", b"trtsps://x", b"thandle", b"i\0\0\0\0\0\0\0\5"),
    *(b"f" + struct.pack(">d", moment) for moment in (1e9, 900.0, 1e9 + 300, 1200.0)),
    b"tboot",
)
_CALL = (b"tid", b"ta", b"texecute", b"tGenerateRtspStream", b"tdev", b"tCAMERA", *_LEASE[7:9], b"n", b"n", b"tboot")
_WORKER = b'{"instance":"i","camera":"c","pid":5,"started":6,"generation":7,"publication":"p","protocol":1}'

_OF_THE_SUPERVISOR = {
    "google_listing": [b'{"devices":[' + _DEVICE + b'],"nextPageToken":""}', _DEVICE],
    "google_stream": [b"\0" + _STREAM, b"\xff" + _STREAM],
    "google_refusal": [
        b"\x1d30  " + b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Rate limited for the user."}}',
        b"\0    " + b'{"error":{"status":"FAILED_PRECONDITION","message":"Streaming not supported"}}',
    ],
    "sfu_reply": [b"\0" + _REPLY, b"\0" + _REPLY.replace(b'"offer"', b'"answer"'), b"\xff" + _REFUSED],
    "forwarded": [
        cut(
            b"198.51.100.1, 192.0.2.1", b"[2001:db8::1]:80", b"http://relay.example", b"127.0.0.1:8080", b"fe80::1%eth0"
        )
    ],
    "http_guard": [
        cut(b"api/view", b"", b"relay.example", b"https://relay.example", b"Bearer x", b"relay_session=9.a"),
        cut(b"watch/door", b"expires=99999999999&signature=00", b"relay.example", b"null", b"Link door.99.00"),
        cut(b"", b"token=x", b"h", b"", b"", b"", b"cross-site", b"198.51.100.9"),
    ],
    "view_requests": [
        b'{"cameras":["a"],"audio":false}',
        b'{"sdp":"v=0"}',
        b'{"cameras":null,"stale":["a"]}',
        b'{"cameras":[{"camera":"a","bytes":5,"frames":6}]}',
    ],
    "redaction": [bytes([number]) + b"rtsp://a:b@c/ a.b-c://d:e ?auth=f" for number in range(11)],
    "config_toml": [
        WHOLE.encode(),
        b'[[nest]]\nproject_id = "p"\n[http]\nlisten = "::1:80"\ntoken_file = "x"\n[cameras."Door"]\naudio = false',
    ],
    "config_environment": [
        cut(b"HTTP_LISTEN", b"127.0.0.1:1", b"LOG_LEVEL", b"debug", b"NEST_CLIENT_SECRET_FILE", b"x")
    ],
    "state_values": [
        cut(*_LEASE),
        cut(*_CALL),
        cut(b"ta", b"b[" + _DEVICE + b"]"),
        cut(b"ti", b"tc", b"b" + _WORKER),
        cut(b"tc", b"tp", b'b{"camera":"c","publication":"p","session":"s","tracks":{"video":"v"},"created_at":1.5}'),
    ],
}


def _google_answer() -> bytes:
    return ANSWER.replace("recvonly", "sendrecv").replace("candidate:1 1", "candidate: 1").encode()


def _viewer_offer() -> bytes:
    offer = ANSWER.replace("a=setup:passive", "a=setup:actpass").replace("a=mid:1\r\n", "a=mid:1\r\na=rtcp-mux\r\n")
    return offer.encode()


def _check(attribute: bytes = b"\x80\x2a\0\x08" + bytes(8)) -> bytes:
    """A valid connectivity check of whoever has the answer that the target gives."""
    attributes = b"\0\x06\0\x06abcd:x\0\0" + attribute
    head = b"\0\1%b\x21\x12\xa4\x42" + bytes(12)
    covered = head % (len(attributes) + 24).to_bytes(2, "big") + attributes
    integrity = b"\0\x08\0\x14" + hmac.digest(b"abcdefghijklmnopqrstuv", covered, "sha1")
    whole = head % (len(attributes) + 32).to_bytes(2, "big") + attributes + integrity
    return whole + b"\x80\x28\0\4" + (binascii.crc32(whole) ^ 0x5354554E).to_bytes(4, "big")


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
            "sfu_answer": [ANSWER.encode()],
            "whip_answer": [
                cut(b"\0\1", b"/s/1", b'<turn:t.example>; rel="ice-server"; username=u', b"7", b"text", b"-", b"v=0"),
                cut(b"\0\x6b", b"https://media.example/whip", b"<>", b"Mon, 12 Jan 1970 13:47:00 GMT"),
                cut(b"\1\x2f", b"-", b"-", b"9", b"text/plain", b"-", b"busy: s3cr3t-t0k3n"),
            ],
            "whip_restart": [
                cut(b"\0\0", b'"2"', b"a=ice-ufrag:newfrag\r\na=ice-pwd:" + b"n" * 24 + b"\r\na=ice-lite\r\n"),
                cut(
                    b"\0\0",
                    b"*",
                    b"a=ice-ufrag:abcd\na=ice-pwd:",
                    b"n" * 24,
                    b"\na=candidate:2 1 udp 1 ::1 9 typ host",
                ),
                cut(b"\1\x2d", b"", b"not implemented"),
            ],
            "google_answer": [_google_answer()],
            "bus": [
                wire.encode(protocol.StreamLost(generation=7, reason="x")),
                wire.encode(protocol.PublishRequest(request=1, offer="v=0", tracks=[])),
            ],
            "transport_cc": [
                pack_transport_feedback(1, 2, 3, [(65534, 1.0), (65535, 1.001), (2, 1.2), (9, 1.1)])[4:],
                bytes.fromhex("00000001000000020005000a00000a03200600010203040506"),
            ],
            "opus_toc": [b"\xfc\xff\xfe", b"\x79abcd", b"\x7a\2abcde", b"\x7b\xc3\2\1\1abcde", b"\x0b\x02abcd"],
            "answer_repair": [
                _google_answer(),
                _google_answer().replace(b"\r\n", b"\n").replace(b" udp ", b" ssltcp "),
            ],
            "webrtc_ingest": [
                cut(
                    b"\x80\x65\0\1" + bytes(7) + b"\1\x65abc",
                    b"\x80\x65\0\4" + bytes(7) + b"\1\x65abc",
                    rtcp.pack_sender_report(1, 2 << 32, 3, 4, 5),
                )
            ],
            "stream_url": [b"rtsps://user:pw@stream.example:443/a/b?auth=g.0.token", b"rtsp://[2001:db8::1]:554/x"],
            "viewer_offer": [
                _viewer_offer(),
                _viewer_offer().replace(b"H264", b"VP8"),
                b"a=ice-ufrag:next\r\na=ice-pwd:n0t-t0-be-shown\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
                _viewer_offer() + b"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n",
            ],
            "viewer_checks": [
                cut(_check(), _check(b"\x80\x29\0\x08" + bytes(8)), _check(b"\0\x25\0\0"), _check()[:-8])
            ],
            **_OF_THE_SUPERVISOR,
        }[target]
    )
