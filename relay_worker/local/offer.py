"""Reads the SDP offer of a viewer (WHEP), and chooses what it gets of it: H.264, its retransmissions, and Opus.

Whoever may watch may send anything here: sizes are bounded, nothing of the offer is quoted in an error, and what goes
back into the answer is numbers, or tokens in the grammar of RFC 8866 §9. Candidates are left unread: a lite agent sends
no checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from relay_worker.publish.answer import AcceptedTrack, extension_id
from relay_worker.publish.extensions import ABS_SEND_TIME_URI, TRANSPORT_CC_URI, HeaderExtensions
from relay_worker.publish.offer import OfferedTrack
from relay_worker.rtp.sdp_formats import encodings, is_payload_type, parse_fmtp
from relay_worker.webrtc.sdp import AnswerError, Section, split_sections

MAX_OFFER: Final = 64 * 1024
"""Characters of the longest offer."""
MAX_SECTIONS: Final = 16
MAX_FINGERPRINTS: Final = 8

_FEEDBACK: Final = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
"""What we agree to of the feedback that is offered for video."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~/-]{1,64}")
_LEVEL_ID: Final = re.compile(r"[0-9A-Fa-f]{6}")
_DEFAULT_LEVEL_ID: Final = "420010"
"""RFC 6184 §8.1: Baseline, level 1, where the offer does not say."""
_ROLE: Final = {"actpass": "passive", "active": "passive", "passive": "active"}
"""Our a=setup by the offer's (RFC 8842 §5.3): passive where we may, as browsers then need no round trip more."""

_MAIN: Final = 77
_HIGH: Final = 100


class ViewerRefused(Exception):
    """The offer gets no answer: an HTTP status that says why, and a reason in words that quotes nothing of it."""

    def __init__(self, status: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class Chosen(NamedTuple):
    """A section of the offer that is answered, and how."""

    track: AcceptedTrack
    format_parameters: str
    """Value of a=fmtp for its payload type."""
    feedback: tuple[str, ...]


@dataclass(frozen=True)
class ViewerOffer:
    """What an offer asks for, and what of it is answered."""

    sections: tuple[tuple[Section, Chosen | None], ...]
    """Every section in its order; None: refused."""
    fingerprints: tuple[tuple[str, str], ...]
    setup: str
    """Ours: `passive` or `active`."""
    ice_ufrag: str
    """The viewer's."""

    @property
    def tracks(self) -> list[AcceptedTrack]:
        """What is sent."""
        return [chosen.track for _, chosen in self.sections if chosen is not None]


def read_offer(sdp: str, *, profile_idc: int | None, audio: bool, ssrcs: tuple[int, int, int]) -> ViewerOffer:
    """Choose from `sdp` for a stream of this H.264 profile (None: not known yet), with sound or without.

    `ssrcs` are those of video, its retransmissions and sound. Raises ViewerRefused.
    """
    session, sections = _split(sdp)
    chosen: dict[int, Chosen] = {}
    for kind in ("video", "audio") if audio else ("video",):
        for place, section in enumerate(sections):
            if section.kind != kind or not _wants(section):
                continue
            found = _video(section, profile_idc, ssrcs) if kind == "video" else _sound(section, ssrcs[2])
            if found is not None and _together(session, sections, {*chosen, place}):
                chosen[place] = found
                break
    if any(section.kind == "video" and _wants(section) for section in sections) and not any(
        one.track.offered.kind == "video" for one in chosen.values()
    ):
        raise ViewerRefused(
            406, "the offer has no H.264 with packetization-mode=1; there are H264/90000 and opus/48000/2"
        )
    if not chosen:
        raise ViewerRefused(
            406, "the offer asks for no video or sound that there is: there are H264/90000 and opus/48000/2"
        )
    where = [*(sections[place] for place in sorted(chosen)), session]
    return ViewerOffer(
        sections=tuple((section, chosen.get(place)) for place, section in enumerate(sections)),
        fingerprints=_fingerprints(where),
        setup=_ROLE.get(_first(where, "setup"), "") or _bad("the offer's a=setup is none of actpass, active, passive"),
        ice_ufrag=_first(where, "ice-ufrag"),
    )


def _bad(reason: str) -> str:
    raise ViewerRefused(400, reason)


def _split(sdp: str) -> tuple[Section, list[Section]]:
    if len(sdp) > MAX_OFFER:
        _bad(f"the offer is longer than {MAX_OFFER} characters")
    try:
        session, sections = split_sections(sdp, "the offer")
    except AnswerError as error:
        raise ViewerRefused(400, error.message) from None
    if not 0 < len(sections) <= MAX_SECTIONS:
        _bad(f"the offer has no media section, or more than {MAX_SECTIONS}")
    for section in sections:
        words = [section.kind, section.protocol, *section.formats, next(section.values("mid"), "0")]
        if not section.formats or not all(map(_TOKEN.fullmatch, words)):
            _bad("a media section of the offer has a line that cannot be read")
    return session, sections


def _wants(section: Section) -> bool:
    """Whether the viewer wants to receive by this section, in a way that is usual in WebRTC."""
    return (
        not section.has("sendonly")
        and not section.has("inactive")
        and (section.port != "0" or section.has("bundle-only"))
        and section.has("rtcp-mux")
        and section.protocol.endswith("TLS/RTP/SAVPF")
    )


def _together(session: Section, sections: list[Section], places: set[int]) -> bool:
    """Whether these sections may share one transport."""
    if len(places) < 2:
        return True
    mids = {next(sections[place].values("mid"), "") for place in places}
    groups = [value.split() for value in session.values("group")]
    return len(mids) == len(places) and any(group[:1] == ["BUNDLE"] and mids <= set(group[1:]) for group in groups)


def _first(where: list[Section], name: str) -> str:
    found = next((value for section in where for value in section.values(name) if value), "")
    return found or _bad(f"the offer has no a={name}")


def _fingerprints(where: list[Section]) -> tuple[tuple[str, str], ...]:
    values = dict.fromkeys(value for section in where for value in section.values("fingerprint") if value)
    if not 0 < len(values) <= MAX_FINGERPRINTS:
        _bad(f"the offer has no a=fingerprint, or more than {MAX_FINGERPRINTS}")
    pairs = (value.partition(" ") for value in values)
    return tuple((function, digest.strip()) for function, _, digest in pairs)


def _sound(section: Section, ssrc: int) -> Chosen | None:
    codecs = encodings(section.by_payload_type("rtpmap"))
    choice = next((pt for pt in section.formats if codecs.get(pt) == "OPUS" and is_payload_type(pt)), None)
    if choice is None:
        return None
    offered = OfferedTrack("audio", next(section.values("mid"), ""), ssrc, None)
    feedback = _agreed(section, choice, ("transport-cc",))
    track = AcceptedTrack(offered, int(choice), None, "", nack=False, extensions=_extensions(section, feedback))
    return Chosen(track, "minptime=10;useinbandfec=1", feedback)


def _video(section: Section, profile_idc: int | None, ssrcs: tuple[int, int, int]) -> Chosen | None:
    codecs = encodings(section.by_payload_type("rtpmap"))
    parameters = {pt: parse_fmtp(" ".join(values)) for pt, values in section.by_payload_type("fmtp").items()}
    usable = [pt for pt in section.formats if pt in codecs and is_payload_type(pt)]
    candidates = [
        # Without packetization-mode=1 fragmentation units are not allowed (RFC 6184 §6.2), and every IDR needs them.
        (_rank(level_id, profile_idc), place, pt, level_id)
        for place, pt in enumerate(usable)
        if codecs[pt] == "H264"
        and (fmtp := parameters.get(pt, {})).get("packetization-mode") == "1"
        and _LEVEL_ID.fullmatch(level_id := fmtp.get("profile-level-id", _DEFAULT_LEVEL_ID).lower())
    ]
    if not candidates:
        return None
    _, _, choice, level_id = min(candidates)
    rtx = next((pt for pt in usable if codecs[pt] == "RTX" and parameters.get(pt, {}).get("apt") == choice), None)
    feedback = _agreed(section, choice, _FEEDBACK)
    # RFC 6184 §8.2.2: the profile has to be the offered one, and so may the level be, which is the viewer's to receive.
    asymmetry = "level-asymmetry-allowed=1;" if parameters[choice].get("level-asymmetry-allowed") == "1" else ""
    track = AcceptedTrack(
        OfferedTrack("video", next(section.values("mid"), ""), ssrcs[0], ssrcs[1] if rtx is not None else None),
        int(choice),
        int(rtx) if rtx is not None else None,
        level_id,
        nack="nack" in feedback,
        extensions=_extensions(section, feedback),
        remb="goog-remb" in feedback,
    )
    return Chosen(track, f"{asymmetry}packetization-mode=1;profile-level-id={level_id}", feedback)


def _agreed(section: Section, payload_type: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The feedback that is offered for the payload type, of what we understand."""
    feedback = section.by_payload_type("rtcp-fb")
    offered = {" ".join(value.lower().split()) for value in feedback.get(payload_type, []) + feedback.get("*", [])}
    return tuple(kind for kind in wanted if kind in offered)


def _extensions(section: Section, feedback: tuple[str, ...]) -> HeaderExtensions:
    return HeaderExtensions(
        abs_send_time=extension_id(section, ABS_SEND_TIME_URI),
        transport_cc=extension_id(section, TRANSPORT_CC_URI) if "transport-cc" in feedback else None,
    )


def _rank(level_id: str, profile_idc: int | None) -> int:
    """How far an offered profile is from the stream's, 0: it is the same.

    Decoders read the profile from the stream; viewers that offer none as high may decode it all the same, as Chromium
    does, which offers no High.
    """
    offered, constraints = int(level_id[:2], 16), int(level_id[2:4], 16)
    if offered == _HIGH:
        profile = "constrained high" if constraints & 0x0C == 0x0C else "high"
    elif offered == _MAIN:
        profile = "constrained" if constraints & 0x80 else "main"
    elif offered == 66:
        profile = "constrained" if constraints & 0x40 else "baseline"
    else:
        profile = "other"
    order = {
        _HIGH: ("high", "constrained high", "main", "constrained", "baseline"),
        _MAIN: ("main", "high", "constrained high", "constrained", "baseline"),
    }.get(profile_idc or 0, ("constrained", "baseline", "main", "constrained high", "high"))
    return order.index(profile) if profile in order else len(order)
