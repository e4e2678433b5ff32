"""SDP common to both directions: our end as stated in an offer, and parsing of answers.

Lenient about placement: ICE and DTLS attributes may be at session level or in any section, candidates in whichever
section the answerer chose. Grammar: RFC 8866, RFC 8829 (JSEP), RFC 8839 (ICE), RFC 8122 (fingerprints).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relay_common.errors import RelayError, Remedy
from relay_common.sdp_lines import MAX_SDP, attribute, lines

log = logging.getLogger(__name__)

OPUS: Final = 111
"""Payload type under which Opus is offered."""
MAX_CANDIDATES: Final = 64
"""Candidates of an answer that are used; ICE checks each, so a peer with thousands would keep us busy."""

_OUR_DTLS_ROLE: Final = {"passive": "client", "active": "server"}


class H264Format(NamedTuple):
    """One H.264 label on offer, with the payload type of its retransmissions."""

    payload_type: int
    rtx_payload_type: int
    profile_level_id: str


@dataclass(frozen=True)
class LocalTransport:
    """Our end of ICE and DTLS as the offer states it."""

    ice_ufrag: str
    ice_pwd: str = field(repr=False)
    fingerprint: str
    """SHA-256 of our certificate in the form `AB:CD:…` (RFC 8122)."""
    candidates: tuple[str, ...]
    """Values of `a=candidate`, without the attribute's name."""


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
    """Values of `a=candidate` for UDP and component 1, the first 64."""
    fingerprints: tuple[tuple[str, str], ...]
    """(hash function, value) pairs."""
    dtls_role: str
    """Ours: `"client"` when the answerer is passive, else `"server"`."""


class Section:
    """Attributes of the session level or of one m-section of a description."""

    def __init__(self, media: str = "") -> None:
        words = media.split()
        self.kind = words[0] if words else ""
        self.port = words[1].split("/")[0] if len(words) > 1 else ""
        self.protocol = words[2] if len(words) > 2 else ""
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


def check_length(answer: str, what: str = "the answer") -> None:
    """Raises AnswerError when the answer is longer than what is parsed."""
    if len(answer) > MAX_SDP:
        raise AnswerError(f"{what} is longer than {MAX_SDP} characters")


def split_sections(sdp: str, what: str = "the answer") -> tuple[Section, list[Section]]:
    """The session level and the m-sections of a description. Raises AnswerError for what is not SDP."""
    check_length(sdp, what)
    if sdp.split("\n", 1)[0].strip() != "v=0":
        raise AnswerError(f"{what} is not SDP")
    session, sections = Section(), []
    current = session
    for kind, value in lines(sdp):
        if kind == "m":
            current = Section(value)
            sections.append(current)
        elif kind == "a":
            current.attributes.append(attribute(value))
    return session, sections


def short_token(text: str) -> str:
    """`text` for an error message, if it is a short plain word: a mangled line could hold the ICE password."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,16}", text) else "something unreadable"


def read_transport(session: Section, sections: list[Section]) -> RemoteTransport:
    """How to reach the answerer, wherever the answer states it. Raises AnswerError when something is missing."""
    # A refused section comes last: it may still be the one with the candidates.
    everywhere = [*sorted(sections, key=lambda section: section.port == "0"), session]

    def first(name: str) -> str:
        value = next((value for section in everywhere for value in section.values(name)), "")
        if not value:
            raise AnswerError(f"the answer has no a={name}")
        return value

    setup = first("setup")
    if setup not in _OUR_DTLS_ROLE:
        raise AnswerError(f"the answer's a=setup:{short_token(setup)} is neither active nor passive")
    first("fingerprint")
    fingerprints = dict.fromkeys(value for section in everywhere for value in section.values("fingerprint"))
    candidates = dict.fromkeys(value for section in everywhere for value in section.values("candidate"))
    usable = tuple(candidate for candidate in candidates if is_usable(candidate))
    if not usable:
        raise AnswerError("the answer has no UDP candidate", hint="The peer gave no address to send to")
    if len(usable) > MAX_CANDIDATES:
        log.warning("the answer has %d candidates: the first %d are used", len(usable), MAX_CANDIDATES)
    return RemoteTransport(
        ice_ufrag=first("ice-ufrag"),
        ice_pwd=first("ice-pwd"),
        ice_lite=any(section.has("ice-lite") for section in everywhere),
        candidates=usable[:MAX_CANDIDATES],
        fingerprints=tuple(_fingerprint(value) for value in fingerprints),
        dtls_role=_OUR_DTLS_ROLE[setup],
    )


def is_usable(candidate: str) -> bool:
    """Whether this is a candidate for UDP and component 1."""
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
