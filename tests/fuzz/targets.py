"""The fuzz targets: each parser as a function of bytes that may raise only its documented exceptions.

A target ignores those; any other exception is a finding. Targets also check the bounds that the
parsers promise (sizes of what they return or keep).
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiortc.sdp import candidate_from_sdp

from relay_common import wire
from relay_common.sdp_lines import ice_ufrag
from relay_common.secrets import Secret
from relay_common.whip.endpoint import parse_endpoint
from relay_common.whip.errors import LONGEST_WAIT, WhipError
from relay_common.whip.exchange import WhipResponse, created, publishing, restarted, restarting
from relay_common.whip.links import MOST_SERVERS
from relay_worker.camera.answer_repair import repair_answer
from relay_worker.camera.ingest_answer import parse_ingest_answer
from relay_worker.camera.webrtc_ingest import Ingest
from relay_worker.local.answer import AnswerTerms, write_answer
from relay_worker.local.ice import MAX_ADDRESSES, Demultiplexer, IceCredentials, LiteAgent, UdpSource
from relay_worker.local.offer import ViewerRefused, read_offer
from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.parameter_sets import ParameterSetError, parse_sps
from relay_worker.publish.answer import parse_answer
from relay_worker.publish.feedback import Feedback
from relay_worker.publish.offer import make_offer
from relay_worker.rtp import rtcp
from relay_worker.rtp.aac import AacDepacketizer, parse_audio_config, parse_fmtp
from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.latm import LatmDepacketizer, parse_latm_fmtp
from relay_worker.rtp.opus import MAX_TICKS, frame_ticks, join_frames, packet_ticks, split_frames
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtp.rtcp import is_rtcp
from relay_worker.rtp.transport_cc import TransportFeedback, pack_transport_feedback, parse_transport_feedback
from relay_worker.rtsp.auth import parse_challenges
from relay_worker.rtsp.errors import RtspError
from relay_worker.rtsp.parser import MAX_BODY, ParseError, RtspParser
from relay_worker.rtsp.sdp import SdpError, parse_sdp
from relay_worker.rtsp.session import RtspSession
from relay_worker.rtsp.tracks import is_rtsp_url
from relay_worker.webrtc.sdp import MAX_CANDIDATES, AnswerError, RemoteTransport, split_sections
from relay_worker.webrtc.sdp_fragment import read_restart
from tests.fuzz.pieces import ANSWER, Target, chunks
from tests.fuzz.supervisor_targets import SUPERVISOR_TARGETS

FIXTURES: Final = Path(__file__).parents[1] / "fixtures"
_PASSWORD: Final = "abcdefghijklmnopqrstuv"
"""The ICE password of the seeds."""
MAX_PAYLOAD: Final = 200

_READERS: Final = (wire.supervisor_reader(), wire.worker_reader(), wire.stats_reader())

_OFFER: Final = make_offer(audio=True)
_AAC: Final = parse_fmtp(
    {"mode": "AAC-hbr", "config": "1408", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}
)
_INGEST_ANSWER: Final = parse_ingest_answer(ANSWER.replace("recvonly", "sendonly"))
_TERMS: Final = AnswerTerms(
    ice=IceCredentials("ours", "ours"),
    fingerprint="AB",
    addresses=[("192.0.2.1", 8560)],
    session_id=1,
    cname="c",
    stream_id="s",
)
_BEFORE: Final = RemoteTransport(
    "ufra", "p" * 22, False, ("1 1 udp 1 192.0.2.1 9 typ host",), (("sha-256", "AA"),), "client"
)
_LATM: Final = parse_latm_fmtp({"cpresent": "0", "config": "40002410adca00"})


def rtsp_parser(data: bytes) -> None:
    parser = RtspParser()
    parser.channels = {0, 1, 2, 3}
    try:
        for piece in chunks(data):
            for item in parser.receive_data(piece):
                assert not isinstance(item, tuple) or len(item[1]) <= 0xFFFF
    except ParseError:
        pass


def rtsp_session(data: bytes) -> None:
    session = RtspSession(Secret("rtsps://user:pw@camera.example/stream?auth=g.0.s3cr3t"))
    session.start(0.0)
    try:
        for now, piece in enumerate(chunks(data)):
            session.receive_data(piece, float(now))
            assert len(session.data_to_send()) < MAX_BODY
            session.poll(float(now))
    except RtspError as error:
        assert "s3cr3t" not in str(error)  # our own hint speaks of tokens


def rtsp_sdp(data: bytes) -> None:
    try:
        parse_sdp(data)
    except SdpError:
        pass


def rtsp_auth(data: bytes) -> None:
    parse_challenges([piece.decode("latin-1") for piece in chunks(data)])


def rtp_receiver(data: bytes) -> None:
    for in_order in (True, False):
        receiver = RtpReceiver(90000, 96, in_order=in_order)
        for now, piece in enumerate(chunks(data)):
            for view in receiver.receive_packet(piece, float(now)):
                assert len(view.payload) <= 255
        RtpReceiver(90000, 96, in_order=True).receive_all(chunks(data), 0.0)
        report = receiver.receiver_report(1e6)
        if report is not None:
            rtcp.parse_compound(rtcp.pack_receiver_report(1, [report]))


def rtcp_compound(data: bytes) -> None:
    try:
        rtcp.parse_compound(data)
    except rtcp.RtcpError as error:
        assert isinstance(error.packets, list)


def transport_cc(data: bytes) -> None:
    try:
        feedback = parse_transport_feedback(data)
    except (ValueError, struct.error):
        return
    assert len(feedback.received) <= len(data)  # a received packet has a delta of its own
    assert len({sequence for sequence, _ in feedback.received}) == len(feedback.received)
    known = Feedback()
    known.packet_sent(feedback.base_sequence, 1200, 0.5)
    known.transport_feedback(feedback, 1.0)
    assert 0 <= known.estimate.transport_loss <= 1
    if feedback.received:
        _same_feedback_again(feedback)


def _same_feedback_again(feedback: TransportFeedback) -> None:
    """What was read and is written again is read as the same."""
    try:
        packed = pack_transport_feedback(1, 2, feedback.feedback_count, list(feedback.received))
    except ValueError:
        return  # arrivals further apart than our own writer allows
    again = parse_transport_feedback(packed[4:])
    assert [sequence for sequence, _ in again.received] == [sequence for sequence, _ in feedback.received]


def opus_toc(data: bytes) -> None:
    frames, ticks = split_frames(data), packet_ticks(data)
    assert 0 <= ticks <= MAX_TICKS
    assert sum(map(len, frames)) <= len(data)
    if not frames or not ticks:
        return
    assert frame_ticks(data) * len(frames) == ticks
    if all(len(frame) <= 1275 for frame in frames):  # RFC 6716 §3.2.1: longer frames cannot be written
        joined = join_frames(data[0], frames)
        assert split_frames(joined) == frames
        assert packet_ticks(joined) == ticks


def h264(data: bytes) -> None:
    passthrough, assembler = H264Passthrough(MAX_PAYLOAD), AccessUnitAssembler(max_size=4096)
    if run := [(piece, bool(len(piece) & 1)) for piece in chunks(data)]:
        assert all(len(sent) <= MAX_PAYLOAD for sent, _ in H264Passthrough(MAX_PAYLOAD).receive_run(run, 0, 0))
    for number, piece in enumerate(chunks(data)):
        if not piece:
            continue
        flags, payload = piece[0], piece[1:]
        timestamp = number // 2 * 3000
        for sent, marker in passthrough.receive_payload(payload, bool(flags & 1), timestamp, flags >> 1 & 1):
            assert 0 < len(sent) <= MAX_PAYLOAD
            for unit in assembler.receive_payload(sent, marker, timestamp):
                assert len(unit.data) <= 4096


def h264_sps(data: bytes) -> None:
    try:
        info = parse_sps(data)
    except ParameterSetError:
        return
    assert 0 < info.width <= 1 << 20
    assert 0 < info.height <= 1 << 20


def aac(data: bytes) -> None:
    depacketizer = AacDepacketizer(_AAC)
    for number, piece in enumerate(chunks(data)):
        for unit, _ in depacketizer.receive_payload(piece[1:], bool(piece[:1] > b"\x7f"), number * 1024, 0):
            assert len(unit) < 1 << 16
    try:
        parse_audio_config(data)
    except PayloadError:
        pass


def latm(data: bytes) -> None:
    depacketizer = LatmDepacketizer(_LATM)
    for number, piece in enumerate(chunks(data)):
        for unit, _ in depacketizer.receive_payload(piece[1:], bool(piece[:1] > b"\x7f"), number * 1024, 0):
            assert len(unit) < 1 << 16
    try:
        parse_latm_fmtp({"cpresent": "0", "config": data.decode("latin-1")})
    except PayloadError:
        pass


def whip_restart(data: bytes) -> None:
    """What a server answers to a restart of ICE: a status, its ETag, and a fragment."""
    pieces = chunks(data)
    status = 200 + int.from_bytes(pieces[0][:2] if pieces else b"", "big") % 400
    tag = pieces[1].decode("latin-1") if len(pieces) > 1 else ""
    exchange = restarting(
        parse_endpoint("https://whip.example/key", Secret("s3cr3t-t0k3n")), "https://a.example/", "a="
    )
    try:
        if (last := exchange.receive(WhipResponse(status, [("etag", tag)], b"".join(pieces[2:])), 1e9)) is None:
            return
        changed = restarted(last)
        assert all("!" <= c <= "~" for c in changed.etag)
        found = read_restart(changed.fragment, _BEFORE)
    except (WhipError, AnswerError) as error:
        assert "s3cr3t-t0k3n" not in str(error)
        return
    assert 1 <= len(found.candidates) <= MAX_CANDIDATES
    assert found.ice_ufrag != _BEFORE.ice_ufrag
    assert len(found.ice_pwd) >= 22
    for candidate in found.candidates:
        with contextlib.suppress(ValueError, AssertionError):  # as `MediaTransport` does
            candidate_from_sdp(candidate)


def whip_answer(data: bytes) -> None:
    """A status, then in turn a header of each kind, and the body."""
    exchange = publishing(parse_endpoint("https://whip.example/key", Secret("s3cr3t-t0k3n")), "v=0")
    pieces = chunks(data)
    status = 200 + int.from_bytes(pieces[0][:2] if pieces else b"", "big") % 400
    names = ("location", "link", "retry-after", "content-type", "link")
    headers = [(name, piece.decode("latin-1")) for name, piece in zip(names, pieces[1:], strict=False)]
    response = WhipResponse(status, headers, b"".join(pieces[6:]))
    try:
        last = exchange.receive(response, 1e9)
        if last is None:
            request = exchange.request
            assert request.url.startswith("https://")
            host = urlsplit(request.url).hostname  # in lower case: names of hosts are the same in any
            assert ("Authorization" in request.headers) <= (host == "whip.example")
            return
        session = created(exchange.request.url, last)
        assert session.resource == "" or session.resource.startswith("https://")
        assert len(session.ice_servers) <= MOST_SERVERS
    except WhipError as error:
        assert 0.0 <= error.retry_after <= LONGEST_WAIT
        assert len(str(error)) < 600
        assert "s3cr3t-t0k3n" not in str(error)


def sfu_answer(data: bytes) -> None:
    try:
        parse_answer(data.decode("latin-1"), _OFFER)
    except AnswerError as error:
        assert _PASSWORD not in str(error)


def google_answer(data: bytes) -> None:
    try:
        parse_ingest_answer(data.decode("latin-1"))
    except AnswerError as error:
        assert _PASSWORD not in str(error)


def viewer_offer(data: bytes) -> None:
    """A local viewer's offer, and what of it comes back in the answer; of a fragment (PATCH) the name alone is read."""
    text = data.decode("utf-8", "surrogateescape")
    assert not {"\r", "\n"} & set(ice_ufrag(text))
    try:
        offer = read_offer(text, profile_idc=66, audio=True, ssrcs=(1, 2, 3))
    except ViewerRefused as refusal:
        assert refusal.status in (400, 406)
        assert _PASSWORD not in refusal.reason
        assert refusal.reason.isprintable()
        return
    answer = write_answer(offer, _TERMS)
    assert _PASSWORD not in answer
    lines = answer.split("\r\n")
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert {line[:2] for line in lines} <= {"v=", "o=", "s=", "t=", "a=", "m=", "c=", ""}
    assert len(split_sections(answer)[1]) == len(split_sections(text)[1])
    assert sum(line == "a=sendonly" for line in lines) == len(offer.tracks) > 0


def viewer_checks(data: bytes) -> None:
    """Datagrams that begin like STUN, at the port of a camera's viewers."""
    port, agent = Demultiplexer(), LiteAgent("viewer", 0.0)
    agent.credentials = IceCredentials("abcd", _PASSWORD)
    agent.valid = [agent.credentials]
    port.add(agent)
    for number, piece in enumerate(chunks(data)):
        source = UdpSource(0, ("192.0.2.1", 1 + number % 40))
        found, response = port.receive_check(piece, source, float(number))
        assert len(response) <= 128
        assert found is None or (response[:2] == b"\1\1" and port.owner(source) is agent)
        assert len(agent.addresses) <= MAX_ADDRESSES


def answer_repair(data: bytes) -> None:
    try:
        repaired = repair_answer(data.decode("utf-8", "surrogateescape"))
    except AnswerError as error:
        assert _PASSWORD not in str(error)
        return
    assert repaired.sdp.count("a=candidate:") <= MAX_CANDIDATES * (1 + repaired.sdp.count("\nm="))
    again = repair_answer(repaired.sdp)
    assert again.sdp == repaired.sdp  # nothing is left to repair
    assert not again.repairs


def webrtc_ingest(data: bytes) -> None:
    """Everything a WebRTC camera sends once the answer is agreed: RTP, retransmissions and RTCP."""
    ingest = Ingest(_INGEST_ANSWER, 1, lambda track, now: None)
    for number, piece in enumerate(chunks(data)):
        now = number / 100
        if is_rtcp(piece):
            ingest.receive_rtcp(piece)
        else:
            ingest.receive_packet(piece, now)
        if feedback := ingest.feedback(now):
            assert len(feedback) <= 1500
            rtcp.parse_compound(feedback)


def stream_url(data: bytes) -> None:
    """A stream URL, which comes from Google, and what a request to it says."""
    text = data.decode("utf-8", "surrogateescape")
    if not is_rtsp_url(text):
        return
    secret = "user:pw" if "user:pw@" in text else ""
    session = RtspSession(Secret(text))
    try:
        session.start(0.0)
    except RtspError as error:
        assert not secret or secret not in str(error)
        return
    request = session.data_to_send()
    line = request.split(b"\r\n", 1)[0].decode("utf-8", "surrogateescape")
    assert request.endswith(b"\r\n\r\n")
    assert line.startswith("OPTIONS ")
    assert line.endswith(" RTSP/1.0")
    assert line.isprintable() or not line.isascii()
    assert not secret or f"{secret}@" not in line.split("/")[2]


def bus(data: bytes) -> None:
    for reader in _READERS:
        before = reader.oversized + reader.malformed + reader.unknown
        message = reader.decode(data)
        assert reader.oversized + reader.malformed + reader.unknown == before + (message is None)
        if message is not None:
            again = reader.decode(wire.encode(message))
            assert again == message or again != again


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        rtsp_parser,
        rtsp_session,
        rtsp_sdp,
        rtsp_auth,
        rtp_receiver,
        rtcp_compound,
        h264,
        h264_sps,
        aac,
        latm,
        sfu_answer,
        whip_answer,
        whip_restart,
        google_answer,
        bus,
        transport_cc,
        opus_toc,
        answer_repair,
        webrtc_ingest,
        stream_url,
        viewer_offer,
        viewer_checks,
        *SUPERVISOR_TARGETS,
    )
}
