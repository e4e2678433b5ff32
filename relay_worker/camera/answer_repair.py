"""Repairs Google's SDP answers, which strict stacks reject as sent.

Known defects (`nest-sdm.md` 2), each with the name under which it is counted:

- `line-endings`: LF alone, or no end to the last line;
- `foundation`, `component`: a candidate without the one or the other;
- `transport`: candidates for TCP and "ssltcp", and for RTCP's own port, which nothing of ours can use;
- `direction`: sendrecv, or nothing, where the offer was recvonly: meant is sendonly;
- `bundle`: the BUNDLE group in another order than the sections;
- `setup`: actpass, or nothing, which an answer must not say (RFC 5763 §5): an ICE-lite peer waits for our handshake;
- `malformed`: anything else that is not SDP's grammar, left out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from relay_worker.webrtc.sdp import MAX_CANDIDATES, AnswerError, check_length

_LINE: Final = re.compile(r"[a-z]=[^\x00\r\n]*")
_TRANSPORTS: Final = frozenset(("udp", "tcp", "ssltcp", "tls"))
_DIRECTIONS: Final = frozenset(("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"))
_FOUNDATION: Final = re.compile(r"[A-Za-z0-9+/]{1,32}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_ADDRESS: Final = re.compile(r"[0-9A-Za-z.:%_-]{1,255}")


@dataclass(frozen=True)
class RepairedAnswer:
    """A repaired answer."""

    sdp: str = field(repr=False)
    repairs: Counter[str]
    """How often each kind of defect was found."""


def repair_answer(sdp: str) -> RepairedAnswer:
    """Repair an answer. Raises AnswerError, which never quotes it, when it is too long or no SDP at all."""
    check_length(sdp)
    repairs: Counter[str] = Counter()
    lines = sdp.replace("\r\n", "\n").strip("\n").split("\n")
    if sdp != "\r\n".join(lines) + "\r\n":
        repairs["line-endings"] += 1
    if lines[0].strip() != "v=0":
        raise AnswerError("the answer is not SDP", hint="Google's answer to GenerateWebRtcStream begins with v=0")
    blocks: list[list[str]] = [[]]
    for line in (line.strip() for line in lines):
        if not _LINE.fullmatch(line):
            if line:
                repairs["malformed"] += 1
            continue
        if line.startswith("m="):
            blocks.append([])
        blocks[-1].append(line)
    session, sections = blocks[0], blocks[1:]
    session_setup = any(line.startswith("a=setup:") and line != "a=setup:actpass" for line in session)
    for block in blocks:
        _repair_candidates(block, repairs)
    for section in sections:
        _repair_direction(section, repairs)
        if not session_setup:
            _repair_setup(section, repairs)
    _repair_bundle(session, sections, repairs)
    return RepairedAnswer("\r\n".join(line for block in blocks for line in block) + "\r\n", repairs)


def _repair_candidates(block: list[str], repairs: Counter[str]) -> None:
    kept: list[str] = []
    candidates = 0
    for line in block:
        if not line.startswith("a=candidate:"):
            kept.append(line)
            continue
        candidate = _repair_candidate(line.removeprefix("a=candidate:"), repairs)
        candidates += candidate is not None
        if candidate is not None and candidates <= MAX_CANDIDATES:
            kept.append(f"a=candidate:{candidate}")
    block[:] = kept


def _repair_candidate(value: str, repairs: Counter[str]) -> str | None:
    """RFC 8839 §5.1: foundation component transport priority address port "typ" type …; None for one of no use."""
    words = value.split()
    at = next((index for index, word in enumerate(words[:3]) if word.lower() in _TRANSPORTS), None)
    if at is None:
        repairs["malformed"] += 1
        return None
    if words[at].lower() != "udp":
        repairs["transport"] += 1
        return None
    before = words[:at]
    if at == 2:
        foundation, component = before
    elif at == 1 and not value[:1].isspace():
        foundation, component = before[0], "1"
        repairs["component"] += 1
    else:
        foundation, component = "1", before[0] if before else "1"
        repairs["foundation"] += 1
    rest = words[at + 1 :]
    if component == "2":
        repairs["transport"] += 1
        return None
    if component != "1" or not _FOUNDATION.fullmatch(foundation) or not _is_sound(rest):
        repairs["malformed"] += 1
        return None
    return " ".join([foundation, "1", "udp", *rest])


def _is_sound(rest: list[str]) -> bool:
    """What follows the transport: priority address port "typ" type."""
    return (
        len(rest) >= 5
        and _NUMBER.fullmatch(rest[0]) is not None
        and _ADDRESS.fullmatch(rest[1]) is not None
        and _NUMBER.fullmatch(rest[2]) is not None
        and 0 < int(rest[2]) < 65536
        and rest[3] == "typ"
    )


def _repair_direction(section: list[str], repairs: Counter[str]) -> None:
    if not section[0].startswith(("m=audio ", "m=video ")):
        return
    directions = [line for line in section if line in _DIRECTIONS]
    if directions in (["a=sendonly"], ["a=inactive"], ["a=recvonly"]):
        return
    section[:] = [line for line in section if line not in _DIRECTIONS] + ["a=sendonly"]
    repairs["direction"] += 1


def _repair_setup(section: list[str], repairs: Counter[str]) -> None:
    if "a=setup:active" in section or "a=setup:passive" in section:
        return
    section[:] = [line for line in section if not line.startswith("a=setup:")] + ["a=setup:passive"]
    repairs["setup"] += 1


def _repair_bundle(session: list[str], sections: list[list[str]], repairs: Counter[str]) -> None:
    mids = [line.removeprefix("a=mid:") for section in sections for line in section if line.startswith("a=mid:")]
    for index, line in enumerate(session):
        if not line.startswith("a=group:BUNDLE"):
            continue
        named = line.split()[1:]
        ordered = [mid for mid in mids if mid in named]
        if named != ordered:
            session[index] = " ".join(["a=group:BUNDLE", *ordered])
            repairs["bundle"] += 1
