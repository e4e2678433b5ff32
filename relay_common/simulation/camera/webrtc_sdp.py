"""Offers as Google requires them, and answers as Google writes them, defects included.

An answer is a correct list of lines, except for the omissions and errors that `WebRtcHabits` asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relay_common.simulation.camera.webrtc_habits import WebRtcHabits
from relay_common.simulation.google.errors import NoHostCandidate, OfferError
from relay_common.simulation.sfu.sdp import Codec, SdpError, Section, parse

_FEEDBACK: Final = frozenset({"goog-remb", "nack", "nack pli", "ccm fir"})
_KINDS: Final = ("audio", "video", "application")
_UNSERVED_PORT: Final = 443


@dataclass(frozen=True)
class SentTrack:
    """What was negotiated for one media section. `rtx_type` None: lost packets are resent unchanged, if `nack`."""

    kind: str
    payload_type: int
    ssrc: int
    rtx_type: int | None
    rtx_ssrc: int
    nack: bool


@dataclass(frozen=True)
class Offer:
    """A client's offer that Google accepts."""

    audio: Section
    video: Section
    application: Section
    application_format: str
    """The end of its m-line: protocol and format, and the attribute that goes with it."""
    order: tuple[str, ...] = _KINDS
    """The kinds of its sections, which an answer has in the same order (RFC 3264 §6)."""

    @property
    def h264(self) -> list[Codec]:
        """Offered H.264 in packetisation mode 1."""
        codecs = (codec for codec in self.video.codecs if codec.name.lower() == "h264")
        return [codec for codec in codecs if codec.parameters.get("packetization-mode") == "1"]

    @property
    def opus(self) -> list[Codec]:
        """Offered Opus."""
        return [codec for codec in self.audio.codecs if codec.name.lower() == "opus"]


def read_offer(sdp: str, *, lenient: bool = False) -> Offer:
    """Parse and check an offer; raises OfferError that says what is wrong with it.

    It must have audio recvonly, video recvonly and a data channel, with all candidates; and, unless `lenient`, in this
    order, and with a host candidate at least (else NoHostCandidate).
    """
    try:
        sections = parse(sdp)
    except SdpError as error:
        raise OfferError(f"The offer is not valid: {error}.") from error
    order = tuple(section.kind for section in sections)
    if sorted(order) != sorted(_KINDS) if lenient else order != _KINDS:
        raise OfferError(f"The offer must have audio, video and application in this order, not {', '.join(order)}.")
    audio, video, application = (sections[order.index(kind)] for kind in _KINDS)
    for section in (audio, video):
        if section.direction != "recvonly":
            raise OfferError(f"The offer's {section.kind} must be recvonly, not {section.direction}.")
    if not lenient and not any(line.startswith("a=candidate:") and " typ host" in line for line in sdp.splitlines()):
        raise NoHostCandidate("The offer has no host candidate; trickling is not supported.")
    offer = Offer(audio, video, application, _application_format(sdp), order)
    if not offer.opus or not offer.h264:
        raise OfferError("The offer must have Opus, and H264 with packetization-mode=1.")
    return offer


def _application_format(sdp: str) -> str:
    protocol, sctp = "UDP/DTLS/SCTP webrtc-datachannel", "a=sctp-port:5000"
    for line in sdp.splitlines():
        if line.startswith("m=application "):
            protocol = " ".join(line.split()[2:])
        elif line.startswith(("a=sctp-port:", "a=sctpmap:")):
            sctp = line
    return f"{protocol}\n{sctp}"


@dataclass(frozen=True)
class Transport:
    """The camera's transport: ICE credentials, certificate and the one address it serves."""

    ufrag: str
    pwd: str = field(repr=False)
    fingerprint: str
    host: str
    port: int


@dataclass
class Answer:
    """The camera's side of one session: `text` is sent to the client."""

    text: str
    audio: SentTrack | None
    video: SentTrack


def make_answer(
    offer: Offer,
    habits: WebRtcHabits,
    transport: Transport,
    ssrcs: tuple[int, int, int],
    *,
    has_audio: bool = True,
    parameter_sets: str = "",
) -> Answer:
    """Answer an offer; `ssrcs` are for audio, video and video's retransmissions."""
    chosen = offer.h264[: 2 if habits.two_h264_types else 1]
    kept = {codec.payload_type: codec for codec in chosen}
    repeats = [codec for codec in offer.video.codecs if codec.apt in kept] if habits.rtx else []
    sent = chosen[-1]
    video = SentTrack(
        "video",
        sent.payload_type,
        ssrcs[1],
        next((codec.payload_type for codec in repeats if codec.apt == sent.payload_type), None),
        ssrcs[2],
        "nack" in sent.feedback,
    )
    audio = SentTrack("audio", offer.opus[0].payload_type, ssrcs[0], None, 0, "nack" in offer.opus[0].feedback)
    offered = {"audio": offer.audio, "video": offer.video, "application": offer.application}
    mids = [offered[kind].mid for kind in offer.order]
    if habits.bundle_out_of_order:
        mids = [mids[0], mids[2], mids[1]]
    sections = {
        "audio": _section(offer.audio, offer.opus[:1], habits, transport, audio, active=has_audio),
        "video": _section(offer.video, [*chosen, *repeats], habits, transport, video, parameter_sets=parameter_sets),
        "application": _application(offer, transport),
    }
    lines = [
        "v=0",
        f"o=- 0 2 IN IP4 {transport.host}",
        "s=-",
        "t=0 0",
        *(["a=ice-lite"] if habits.ice_lite else []),
        f"a=group:BUNDLE {' '.join(mids)}",
        "a=msid-semantic: WMS camera",
        *(line for kind in offer.order for line in sections[kind]),
    ]
    text = "\r\n".join(lines) + ("" if habits.no_final_newline else "\r\n")
    return Answer(text, audio if has_audio else None, video)


def _section(
    offered: Section,
    codecs: list[Codec],
    habits: WebRtcHabits,
    transport: Transport,
    track: SentTrack,
    *,
    active: bool = True,
    parameter_sets: str = "",
) -> Iterator[str]:
    numbers = " ".join(str(codec.payload_type) for codec in codecs)
    yield f"m={offered.kind} {transport.port} UDP/TLS/RTP/SAVPF {numbers}"
    yield f"c=IN IP4 {transport.host}"
    yield "a=rtcp:9 IN IP4 0.0.0.0"
    if track.kind == "audio":
        yield from _candidates(habits, transport)
    yield from _transport(transport, offered.mid)
    yield "a=inactive" if not active else "a=sendrecv" if habits.sendrecv else "a=sendonly"
    yield f"a=msid:camera {offered.kind}"
    yield "a=rtcp-mux"
    for codec in codecs:
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        yield f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"
        yield from (f"a=rtcp-fb:{codec.payload_type} {name}" for name in codec.feedback if name in _FEEDBACK)
        fmtp = codec.fmtp
        if habits.sprop and parameter_sets and codec.apt is None:
            fmtp += f";sprop-parameter-sets={parameter_sets}"
        if fmtp:
            yield f"a=fmtp:{codec.payload_type} {fmtp}"
    if habits.ssrc_lines and active:
        repeated = track.rtx_type is not None
        if repeated:
            yield f"a=ssrc-group:FID {track.ssrc} {track.rtx_ssrc}"
        for ssrc in (track.ssrc, track.rtx_ssrc) if repeated else (track.ssrc,):
            yield f"a=ssrc:{ssrc} cname:simulated-camera"
            yield f"a=ssrc:{ssrc} msid:camera {offered.kind}"


def _application(offer: Offer, transport: Transport) -> Iterator[str]:
    protocol, sctp = offer.application_format.split("\n")
    yield f"m=application {transport.port} {protocol}"
    yield f"c=IN IP4 {transport.host}"
    yield from _transport(transport, offer.application.mid)
    yield sctp


def _transport(transport: Transport, mid: str) -> Iterator[str]:
    yield f"a=ice-ufrag:{transport.ufrag}"
    yield f"a=ice-pwd:{transport.pwd}"
    yield f"a=fingerprint:sha-256 {transport.fingerprint}"
    yield "a=setup:passive"
    yield f"a=mid:{mid}"


def _candidates(habits: WebRtcHabits, transport: Transport) -> Iterator[str]:
    served = (f"{transport.host} {transport.port} typ host", "udp", 2_113_939_711)
    unserved = (
        (f"{transport.host} {transport.port} typ host tcptype passive", "tcp", 2_113_939_710),
        (f"{transport.host} {_UNSERVED_PORT} typ host", "ssltcp", 2_113_939_709),
    )
    for number, (end, protocol, priority) in enumerate((served, *(unserved if habits.unserved_candidates else ()))):
        foundation, component = str(number + 1), " 1"
        without_component = habits.no_component and (number % 2 == 1 or not habits.no_foundation)
        if without_component:
            component = ""
        elif habits.no_foundation:
            foundation = ""
        yield f"a=candidate:{foundation}{component} {protocol} {priority} {end} generation 0"
