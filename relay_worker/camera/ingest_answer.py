"""Parses the (repaired) answer of a WebRTC camera: which payload types carry what, and how to reach it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from relay_worker.camera.answer_repair import repair_answer
from relay_worker.media.stream import Format, Kind, Track
from relay_worker.rtp.sdp_formats import encodings, is_payload_type, parse_fmtp
from relay_worker.webrtc.sdp import (
    AnswerError,
    RemoteTransport,
    Section,
    read_transport,
    split_sections,
)

_CLOCK_RATES: Final = {"H264": 90000, "OPUS": 48000}
_ENCODINGS: Final = {Kind.VIDEO: "H264", Kind.AUDIO: "OPUS"}
_MAX_SSRCS: Final = 8


@dataclass(frozen=True)
class IngestAnswer:
    """What a camera will send. A payload type belongs to one track; an answer may give video several."""

    transport: RemoteTransport
    tracks: tuple[Track, ...]
    """Video first; without audio when the camera has none (microphone off)."""
    payload_types: Mapping[int, Track]
    rtx: Mapping[int, int]
    """Payload type of retransmissions → payload type of the original (RFC 4588 §8.6)."""
    nack: bool
    """Whether lost video packets may be requested again."""
    ssrcs: Mapping[int, Track] = field(default_factory=dict)
    """SSRCs that the answer announces; usually none."""
    repairs: Mapping[str, int] = field(default_factory=dict)


def parse_ingest_answer(sdp: str) -> IngestAnswer:
    """Repair and read an answer. Raises AnswerError, which never quotes it."""
    repaired = repair_answer(sdp)
    session, sections = split_sections(repaired.sdp)
    tracks: list[Track] = []
    payload_types: dict[int, Track] = {}
    rtx: dict[int, int] = {}
    ssrcs: dict[int, Track] = {}
    nack = False
    for kind in (Kind.VIDEO, Kind.AUDIO):
        section = next((s for s in sections if s.kind == kind.value and s.port != "0" and s.has("sendonly")), None)
        chosen = _formats(section, _ENCODINGS[kind]) if section is not None else []
        if section is None or not chosen:
            continue
        track = Track(kind, chosen[0], control="", ordered=False)
        tracks.append(track)
        numbers = {format_.payload_type for format_ in chosen}
        payload_types |= dict.fromkeys(numbers, track)
        ssrcs |= dict.fromkeys(_ssrcs(section), track)
        if kind is Kind.VIDEO:
            rtx = {number: apt for number, apt in _retransmissions(section).items() if apt in numbers}
            feedback = section.by_payload_type("rtcp-fb")
            nack = any("nack" in feedback.get(name, []) for name in (*map(str, numbers), "*"))
    if not any(track.kind is Kind.VIDEO for track in tracks):
        raise AnswerError(
            "the camera's answer has no H.264 video to send",
            hint="The camera may be switched off in the Google Home app",
        )
    ssrcs = {ssrc: track for ssrc, track in ssrcs.items() if ssrc not in _repair_ssrcs(sections)}
    transport = read_transport(session, sections)
    return IngestAnswer(transport, tuple(tracks), payload_types, rtx, nack, ssrcs, dict(repaired.repairs))


def _formats(section: Section, encoding: str) -> list[Format]:
    """The section's payload types of that encoding, in the answer's order."""
    codecs = encodings(section.by_payload_type("rtpmap"))
    parameters = section.by_payload_type("fmtp")
    return [
        Format(int(pt), encoding, _CLOCK_RATES[encoding], parameters=parse_fmtp(";".join(parameters.get(pt, []))))
        for pt in section.formats
        if is_payload_type(pt) and codecs.get(pt) == encoding
    ]


def _retransmissions(section: Section) -> dict[int, int]:
    codecs = encodings(section.by_payload_type("rtpmap"))
    found: dict[int, int] = {}
    for pt, values in section.by_payload_type("fmtp").items():
        apt = parse_fmtp(values[0]).get("apt", "")
        if is_payload_type(pt) and is_payload_type(apt) and codecs.get(pt) == "RTX":
            found[int(pt)] = int(apt)
    return found


def _ssrcs(section: Section) -> list[int]:
    return _numbers(dict.fromkeys(value.partition(" ")[0] for value in section.values("ssrc")))[:_MAX_SSRCS]


def _repair_ssrcs(sections: list[Section]) -> set[int]:
    """SSRCs of retransmission streams: the second of each FID group (RFC 5576 §4.2)."""
    groups = [value.split() for section in sections for value in section.values("ssrc-group")]
    return set(_numbers(group[2] for group in groups if len(group) == 3 and group[0] == "FID"))


def _numbers(words: Iterable[str]) -> list[int]:
    """The words that are valid SSRCs."""
    numbers = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= 10]
    return [number for number in numbers if 0 < number <= 0xFFFFFFFF]
