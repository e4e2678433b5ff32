"""Parses the SFU's SDP answer: what it accepted, and how to reach it.

Strict where a mistake would send media nowhere (a rejected section, an unknown codec, a missing fingerprint), lenient
about placement: ICE and DTLS attributes may be at session level or in any section, candidates in whichever section the
answerer chose (Cloudflare puts them in the first, BUNDLE-tagged one; `cloudflare-sfu.md` 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay_worker.publish.extensions import ABS_SEND_TIME_URI, NO_EXTENSIONS, TRANSPORT_CC_URI, HeaderExtensions
from relay_worker.publish.offer import Offer, OfferedTrack
from relay_worker.publish.simulcast import MID_URI, REPAIRED_RID_URI, RID_URI, LayerIds, check_layers
from relay_worker.rtp.sdp_formats import encodings, is_payload_type, parse_fmtp
from relay_worker.webrtc.sdp import (
    AnswerError,
    RemoteTransport,
    Section,
    read_transport,
    short_token,
    split_sections,
)


@dataclass(frozen=True)
class AcceptedTrack:
    """One m-section as negotiated; payload types are the answerer's numbers."""

    offered: OfferedTrack
    payload_type: int
    rtx_payload_type: int | None
    profile_level_id: str
    """H.264 label that was accepted; empty for audio."""
    nack: bool
    extensions: HeaderExtensions = NO_EXTENSIONS
    """Header extensions that the answer echoes; the transport-wide number only with its feedback."""
    remb: bool = False
    """Whether goog-remb was agreed; estimates that were not negotiated are ignored."""
    layer_ids: LayerIds | None = None
    """Of a simulcast track: the header extensions by which its layers are known."""

    @property
    def small(self) -> AcceptedTrack | None:
        """The other layer, where this is the first of a simulcast track; negotiated as this one is."""
        return replace(self, offered=self.offered.small) if self.offered.small is not None else None


@dataclass(frozen=True)
class Answer:
    """A usable answer."""

    transport: RemoteTransport
    tracks: tuple[AcceptedTrack, ...]
    rejected: tuple[str, ...]
    """Kinds whose section was refused (port 0 or inactive): only audio may be."""


def parse_answer(sdp: str, offer: Offer) -> Answer:
    """Read the answer to `offer`. Raises AnswerError, which never quotes the SDP, and SimulcastRefused."""
    session, sections = split_sections(sdp)
    if len(sections) != len(offer.tracks):
        raise AnswerError(f"the answer has {len(sections)} media sections, the offer {len(offer.tracks)}")
    accepted: list[AcceptedTrack] = []
    rejected: list[str] = []
    for section, track in zip(sections, offer.tracks, strict=True):
        _check_section(section, track)
        refused = section.port == "0" or section.has("inactive")
        match = None if refused else _negotiated(section, track)
        if match is not None:
            accepted.append(match)
        elif track.kind == "audio":
            rejected.append(track.kind)
        else:
            raise AnswerError(
                "the answer refuses our H.264 video",
                hint="The SFU takes none of the offered profiles " + ", ".join(f[2] for f in track.formats),
            )
    return Answer(read_transport(session, sections), tuple(accepted), tuple(rejected))


def _check_section(section: Section, track: OfferedTrack) -> None:
    if section.kind != track.kind:
        raise AnswerError(f"the answer has {short_token(section.kind)} where the offer has {track.kind}")
    mid = next(section.values("mid"), track.mid)
    if mid != track.mid:
        raise AnswerError(f"the answer names mid {short_token(mid)} where the offer has {track.mid!r}")
    if section.has("sendonly"):
        raise AnswerError(f"the answer wants to send {track.kind} instead of receiving it")


def _negotiated(section: Section, track: OfferedTrack) -> AcceptedTrack | None:
    """The codec to send on this section, or None when none of the offered codecs was accepted."""
    codecs = encodings(section.by_payload_type("rtpmap"))
    parameters = {pt: parse_fmtp(" ".join(v)) for pt, v in section.by_payload_type("fmtp").items()}
    feedback = section.by_payload_type("rtcp-fb")
    usable = [pt for pt in section.formats if pt in codecs and is_payload_type(pt)]
    choice: str | None
    if track.kind == "audio":
        choice = next((pt for pt in usable if codecs[pt] == "OPUS"), None)
        level = ""
    else:
        choice, level = _choose_h264(usable, codecs, parameters, track)
    if choice is None:
        return None
    rtx = next((pt for pt in usable if codecs[pt] == "RTX" and parameters.get(pt, {}).get("apt") == choice), None)
    wanted = {value.lower() for value in feedback.get(choice, []) + feedback.get("*", [])}
    layer_ids = _layer_ids(section) if track.small is not None else None
    return AcceptedTrack(
        offered=track,
        payload_type=int(choice),
        rtx_payload_type=int(rtx) if rtx is not None and track.rtx_ssrc is not None else None,
        profile_level_id=level,
        nack="nack" in wanted,
        extensions=HeaderExtensions(
            abs_send_time=extension_id(section, ABS_SEND_TIME_URI),
            transport_cc=extension_id(section, TRANSPORT_CC_URI) if "transport-cc" in wanted else None,
        ),
        remb="goog-remb" in wanted,
        layer_ids=layer_ids,
    )


def _layer_ids(section: Section) -> LayerIds:
    ids = LayerIds(*(extension_id(section, uri) for uri in (MID_URI, RID_URI, REPAIRED_RID_URI)))
    check_layers(section, ids.rid)
    return ids


def _choose_h264(
    usable: list[str], codecs: dict[str, str], parameters: dict[str, dict[str, str]], track: OfferedTrack
) -> tuple[str | None, str]:
    """The accepted payload type whose profile we prefer most."""
    accepted: dict[str, str] = {}
    for pt in usable:
        fmtp = parameters.get(pt, {})
        # Without packetization-mode=1 fragmentation units are not allowed (RFC 6184 §6.2), and every IDR needs them.
        if codecs[pt] == "H264" and fmtp.get("packetization-mode") == "1":
            # The level may be answered lower (level-asymmetry-allowed); the profile is the first two bytes.
            accepted.setdefault(fmtp.get("profile-level-id", "420010").lower()[:2], pt)
    for wanted in track.formats:
        if (chosen := accepted.get(wanted.profile_level_id[:2])) is not None:
            return chosen, wanted.profile_level_id
    return None, ""


def extension_id(section: Section, wanted: str) -> int | None:
    """The id under which the section takes the header extension with this URI."""
    for value in section.values("extmap"):
        number, _, uri = value.partition(" ")
        number, _, direction = number.partition("/")
        # One-byte header extensions carry ids 1..14 (RFC 8285 §4.2); an answerer that only sends it wants none of ours.
        known = uri.split(" ")[0] == wanted and number.isascii() and number.isdigit() and 1 <= int(number) <= 14
        if known and direction not in ("sendonly", "inactive"):
            return int(number)
    return None
