"""The fuzz targets: each parser as a function of bytes that may raise only its documented exceptions.

A target ignores those; any other exception is a finding. Targets also check the bounds that the
parsers promise (sizes of what they return or keep).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay_common import wire
from relay_common.secrets import Secret
from relay_worker.camera.ingest_answer import parse_ingest_answer
from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.media.parameter_sets import ParameterSetError, parse_sps
from relay_worker.publish.answer import parse_answer
from relay_worker.publish.offer import make_offer
from relay_worker.rtp import rtcp
from relay_worker.rtp.aac import AacDepacketizer, parse_audio_config, parse_fmtp
from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.latm import LatmDepacketizer, parse_latm_fmtp
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtsp.auth import parse_challenges
from relay_worker.rtsp.errors import RtspError
from relay_worker.rtsp.parser import MAX_BODY, ParseError, RtspParser
from relay_worker.rtsp.sdp import SdpError, parse_sdp
from relay_worker.rtsp.session import RtspSession
from relay_worker.webrtc.sdp import AnswerError

FIXTURES: Final = Path(__file__).parents[1] / "fixtures"
MAX_PAYLOAD: Final = 200

_READERS: Final = (wire.supervisor_reader(), wire.worker_reader(), wire.stats_reader())

Target = Callable[[bytes], object]

_OFFER: Final = make_offer(audio=True)
_AAC: Final = parse_fmtp(
    {"mode": "AAC-hbr", "config": "1408", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}
)
_LATM: Final = parse_latm_fmtp({"cpresent": "0", "config": "40002410adca00"})


def chunks(data: bytes) -> list[bytes]:
    """`data` cut into pieces: a length octet before each."""
    pieces, position = [], 0
    while position < len(data):
        end = position + 1 + data[position]
        pieces.append(data[position + 1 : end])
        position = end
    return pieces


def rtsp_parser(data: bytes) -> None:
    parser = RtspParser()
    parser.channels = {0, 1, 2, 3}
    try:
        for piece in chunks(data):
            for item in parser.receive(piece):
                assert not isinstance(item, tuple) or len(item[1]) <= 0xFFFF
    except ParseError:
        pass


def rtsp_session(data: bytes) -> None:
    session = RtspSession(Secret("rtsps://user:pw@camera.example/stream?auth=g.0.s3cr3t"))
    session.start(0.0)
    try:
        for now, piece in enumerate(chunks(data)):
            session.receive(piece, float(now))
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
            for view in receiver.receive(piece, float(now)):
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


def h264(data: bytes) -> None:
    passthrough, assembler = H264Passthrough(MAX_PAYLOAD), AccessUnitAssembler(max_size=4096)
    if run := [(piece, bool(len(piece) & 1)) for piece in chunks(data)]:
        assert all(len(sent) <= MAX_PAYLOAD for sent, _ in H264Passthrough(MAX_PAYLOAD).receive_run(run, 0, 0))
    for number, piece in enumerate(chunks(data)):
        if not piece:
            continue
        flags, payload = piece[0], piece[1:]
        timestamp = number // 2 * 3000
        for sent, marker in passthrough.receive(payload, bool(flags & 1), timestamp, flags >> 1 & 1):
            assert 0 < len(sent) <= MAX_PAYLOAD
            for unit in assembler.receive(sent, marker, timestamp):
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
        for unit, _ in depacketizer.receive(piece[1:], bool(piece[:1] > b"\x7f"), number * 1024, 0):
            assert len(unit) < 1 << 16
    try:
        parse_audio_config(data)
    except PayloadError:
        pass


def latm(data: bytes) -> None:
    depacketizer = LatmDepacketizer(_LATM)
    for number, piece in enumerate(chunks(data)):
        for unit, _ in depacketizer.receive(piece[1:], bool(piece[:1] > b"\x7f"), number * 1024, 0):
            assert len(unit) < 1 << 16
    try:
        parse_latm_fmtp({"cpresent": "0", "config": data.decode("latin-1")})
    except PayloadError:
        pass


def sfu_answer(data: bytes) -> None:
    try:
        parse_answer(data.decode("latin-1"), _OFFER)
    except AnswerError as error:
        assert "abcdefghijklmnopqrstuv" not in str(error)  # the password of the seeds


def google_answer(data: bytes) -> None:
    try:
        parse_ingest_answer(data.decode("latin-1"))
    except AnswerError as error:
        assert "abcdefghijklmnopqrstuv" not in str(error)  # the password of the seeds


def bus(data: bytes) -> None:
    for reader in _READERS:
        before = reader.oversized + reader.malformed + reader.unknown
        refused = reader.decode(data) is None
        assert reader.oversized + reader.malformed + reader.unknown == before + refused


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
        google_answer,
        bus,
    )
}
