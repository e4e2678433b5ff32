"""Reading the SFU's SDP answer: what it accepted, and how to reach it.

Strict where a mistake would send media nowhere (a rejected section, an unknown codec, a missing fingerprint), lenient
about where things stand: ICE and DTLS attributes may be at session level or in any section, candidates in whichever
section the answerer chose (Cloudflare puts them in the first, BUNDLE-tagged one; `cloudflare-sfu.md` 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relay_common.errors import RelayError, Remedy
from relay_worker.webrtc.offer import TRANSPORT_CC_URI, Offer, OfferedTrack

MAX_ANSWER: Final = 128 * 1024
"""Longest answer that is read, in characters."""

_OUR_DTLS_ROLE: Final = {"passive": "client", "active": "server"}


class AnswerError(RelayError):
    """The SDP answer is malformed or refuses something we cannot do without; a new session is the remedy."""

    remedy = Remedy.REGENERATE


@dataclass(frozen=True)
class RemoteTransport:
    """The answerer's end of ICE and DTLS."""

    ice_ufrag: str
    ice_pwd: str = field(repr=False)
    ice_lite: bool
    candidates: tuple[str, ...]
    """Values of `a=candidate` for UDP and component 1."""
    fingerprints: tuple[tuple[str, str], ...]
    """(hash function, value) pairs."""
    dtls_role: str
    """Ours: `"client"` when the answerer is passive, else `"server"`."""


@dataclass(frozen=True)
class AcceptedTrack:
    """One m-section as negotiated; payload types are the answerer's numbers."""

    offered: OfferedTrack
    payload_type: int
    rtx_payload_type: int | None
    profile_level_id: str
    """H.264 label that was accepted; empty for audio."""
    nack: bool
    transport_cc: int | None
    """Header extension id of the transport-wide sequence number, when the answer echoes it."""


@dataclass(frozen=True)
class Answer:
    """A usable answer."""

    transport: RemoteTransport
    tracks: tuple[AcceptedTrack, ...]
    rejected: tuple[str, ...]
    """Kinds whose section was refused (port 0 or inactive): only audio may be."""


class Section:
    """Attributes of the session level or of one m-section of a description."""

    def __init__(self, media: str = "") -> None:
        words = media.split()
        self.kind = words[0] if words else ""
        self.port = words[1].split("/")[0] if len(words) > 1 else ""
        self.formats = words[3:]
        self.attributes: list[tuple[str, str]] = []

    def values(self, name: str) -> Iterator[str]:
        return (value for key, value in self.attributes if key == name)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.attributes)

    def by_payload_type(self, name: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for value in self.values(name):
            payload_type, _, rest = value.partition(" ")
            found.setdefault(payload_type, []).append(rest.strip())
        return found


def parse_answer(sdp: str, offer: Offer) -> Answer:
    """Read the answer to `offer`. Raises AnswerError, which never quotes the SDP."""
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


def split_sections(sdp: str) -> tuple[Section, list[Section]]:
    """The session level and the m-sections of a description. Raises AnswerError for what is not SDP."""
    if len(sdp) > MAX_ANSWER:
        raise AnswerError(f"the answer is longer than {MAX_ANSWER} characters")
    lines = sdp.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "v=0":
        raise AnswerError("the answer is not SDP")
    session, sections = Section(), []
    current = session
    for line in lines:
        line = line.strip()
        if line.startswith("m="):
            current = Section(line[2:])
            sections.append(current)
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            current.attributes.append((name, value.strip()))
    return session, sections


def _token(text: str) -> str:
    """`text` for an error message, if it is a short plain word: a mangled line could hold the ICE password."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,16}", text) else "something unreadable"


def _check_section(section: Section, track: OfferedTrack) -> None:
    if section.kind != track.kind:
        raise AnswerError(f"the answer has {_token(section.kind)} where the offer has {track.kind}")
    mid = next(section.values("mid"), track.mid)
    if mid != track.mid:
        raise AnswerError(f"the answer names mid {_token(mid)} where the offer has {track.mid!r}")
    if section.has("sendonly"):
        raise AnswerError(f"the answer wants to send {track.kind} instead of receiving it")


def _negotiated(section: Section, track: OfferedTrack) -> AcceptedTrack | None:
    """The codec to send on this section, or None when none of ours was accepted."""
    codecs = {pt: values[0].split("/") for pt, values in section.by_payload_type("rtpmap").items()}
    parameters = {pt: parse_fmtp(" ".join(v)) for pt, v in section.by_payload_type("fmtp").items()}
    feedback = section.by_payload_type("rtcp-fb")
    usable = [pt for pt in section.formats if pt in codecs and is_payload_type(pt)]
    choice: str | None
    if track.kind == "audio":
        choice = next((pt for pt in usable if codecs[pt][0].lower() == "opus"), None)
        level = ""
    else:
        choice, level = _choose_h264(usable, codecs, parameters, track)
    if choice is None:
        return None
    rtx = next(
        (pt for pt in usable if codecs[pt][0].lower() == "rtx" and parameters.get(pt, {}).get("apt") == choice), None
    )
    wanted = {value.lower() for value in feedback.get(choice, []) + feedback.get("*", [])}
    return AcceptedTrack(
        offered=track,
        payload_type=int(choice),
        rtx_payload_type=int(rtx) if rtx is not None and track.rtx_ssrc is not None else None,
        profile_level_id=level,
        nack="nack" in wanted,
        transport_cc=_transport_cc(section) if "transport-cc" in wanted else None,
    )


def _choose_h264(
    usable: list[str], codecs: dict[str, list[str]], parameters: dict[str, dict[str, str]], track: OfferedTrack
) -> tuple[str | None, str]:
    """The accepted payload type whose profile stands first in our own preference."""
    accepted: dict[str, str] = {}
    for pt in usable:
        fmtp = parameters.get(pt, {})
        # Without packetization-mode=1 fragmentation units are not allowed (RFC 6184 §6.2), and every IDR needs them.
        if codecs[pt][0].lower() == "h264" and fmtp.get("packetization-mode") == "1":
            # The level may be answered lower (level-asymmetry-allowed); the profile is the first two bytes.
            accepted.setdefault(fmtp.get("profile-level-id", "420010").lower()[:2], pt)
    for wanted in track.formats:
        if (chosen := accepted.get(wanted.profile_level_id[:2])) is not None:
            return chosen, wanted.profile_level_id
    return None, ""


def is_payload_type(text: str) -> bool:
    """Whether `text` is a payload type number (RFC 3550 §5.1: seven bits)."""
    return text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) < 128


def parse_fmtp(fmtp: str) -> dict[str, str]:
    """The parameters of an `a=fmtp` value after its payload type; names in lower case."""
    pairs = (part.strip().partition("=") for part in fmtp.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}


def _transport_cc(section: Section) -> int | None:
    for value in section.values("extmap"):
        number, _, uri = value.partition(" ")
        number = number.split("/")[0]
        # One-byte header extensions carry ids 1..14 (RFC 8285 §4.2).
        if uri.split(" ")[0] == TRANSPORT_CC_URI and number.isdigit() and 1 <= int(number) <= 14:
            return int(number)
    return None


def read_transport(session: Section, sections: list[Section]) -> RemoteTransport:
    """How to reach the answerer, wherever it says so. Raises AnswerError when something is missing."""
    # A refused section comes last: it may still be the one with the candidates.
    everywhere = [*sorted(sections, key=lambda section: section.port == "0"), session]

    def first(name: str) -> str:
        value = next((value for section in everywhere for value in section.values(name)), "")
        if not value:
            raise AnswerError(f"the answer has no a={name}")
        return value

    setup = first("setup")
    if setup not in _OUR_DTLS_ROLE:
        raise AnswerError(f"the answer's a=setup:{_token(setup)} is neither active nor passive")
    first("fingerprint")
    fingerprints = dict.fromkeys(value for section in everywhere for value in section.values("fingerprint"))
    candidates = dict.fromkeys(value for section in everywhere for value in section.values("candidate"))
    usable = tuple(candidate for candidate in candidates if _is_usable(candidate))
    if not usable:
        raise AnswerError("the answer has no UDP candidate", hint="The peer gave no address to send to")
    return RemoteTransport(
        ice_ufrag=first("ice-ufrag"),
        ice_pwd=first("ice-pwd"),
        ice_lite=any(section.has("ice-lite") for section in everywhere),
        candidates=usable,
        fingerprints=tuple(_fingerprint(value) for value in fingerprints),
        dtls_role=_OUR_DTLS_ROLE[setup],
    )


def _is_usable(candidate: str) -> bool:
    # RFC 8839 §5.1: foundation component transport priority address port "typ" type
    words = candidate.split()
    return (
        len(words) >= 8
        and words[1] == "1"
        and words[2].lower() == "udp"
        and words[3].isdecimal()
        and words[5].isdecimal()
        and len(words[5]) <= 5
        and 0 < int(words[5]) < 65536
        and words[6] == "typ"
    )


def _fingerprint(value: str) -> tuple[str, str]:
    function, _, digest = value.partition(" ")
    if not digest:
        raise AnswerError("the answer's a=fingerprint has no value")
    return function.lower(), digest.strip()
