"""Session descriptions as RTSP servers write them (RFC 4566, RFC 2326 appendix C), parsed leniently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relay_common.sdp_lines import attribute, lines
from relay_worker.media.stream import Format
from relay_worker.rtp.sdp_formats import RtpMap, parse_fmtp, parse_rtpmap

MAX_MEDIA: Final = 32
MAX_FORMATS: Final = 64
"""Payload types read from one media line; the rest is ignored."""

_STATIC: Final = {
    0: RtpMap("PCMU", 8000, 1),
    8: RtpMap("PCMA", 8000, 1),
    10: RtpMap("L16", 44100, 2),
    11: RtpMap("L16", 44100, 1),
    14: RtpMap("MPA", 90000, 1),
    26: RtpMap("JPEG", 90000, 1),
    33: RtpMap("MP2T", 90000, 1),
}
"""RFC 3551 §6 payload types that need no rtpmap."""


class SdpError(ValueError):
    """A description without media."""


@dataclass(frozen=True, slots=True)
class Media:
    """One media line with its attributes."""

    kind: str
    """video, audio, application …"""
    formats: tuple[Format, ...]
    control: str
    """a=control as written; empty when missing."""
    sending: bool
    """Whether the server sends this media (neither recvonly nor inactive)."""


@dataclass(frozen=True, slots=True)
class RtspDescription:
    name: str
    control: str
    """Session-level a=control as written; empty when missing."""
    media: tuple[Media, ...]


def parse_sdp(body: bytes) -> RtspDescription:
    """Parse a description; malformed lines are skipped. Raises SdpError when no media line is left."""
    name, control = "", ""
    sections: list[tuple[str, list[str]]] = []
    for key, value in lines(body.decode("utf-8", "replace")):
        if key == "m":
            if len(sections) == MAX_MEDIA:
                break
            sections.append((value, []))
        elif sections:
            if key == "a":
                sections[-1][1].append(value)
        elif key == "s":
            name = value
        elif key == "a" and attribute(value)[0].lower() == "control":
            control = attribute(value)[1]
    media = tuple(_parse_media(line, attributes) for line, attributes in sections)
    if not media:
        raise SdpError("the session description has no media")
    return RtspDescription(name, control, media)


def _parse_media(line: str, attributes: list[str]) -> Media:
    fields = line.split()
    control, sending = "", True
    maps: dict[int, RtpMap] = {}
    parameters: dict[int, dict[str, str]] = {}
    for written in attributes:
        key, value = attribute(written)
        key = key.lower()
        if key == "control":
            control = value
        elif key in ("recvonly", "inactive"):
            # Servers describe the stream from the client's side or from theirs: recvonly is no reason to leave it out.
            sending = key != "inactive"
        elif key in ("rtpmap", "fmtp"):
            number, _, rest = " ".join(value.split(maxsplit=1)).partition(" ")
            if key == "fmtp" and _is_number(number):
                parameters.setdefault(int(number), {}).update(parse_fmtp(rest))
            elif key == "rtpmap" and _is_number(number) and (known := parse_rtpmap(rest)) is not None:
                maps[int(number)] = known
    types = [int(item) for item in fields[3 : 3 + MAX_FORMATS] if _is_number(item)]
    if len(types) == 1 and len(parameters) == 1 and types[0] not in parameters:
        # Parameters for another payload type, where there is only one, are meant for that.
        parameters[types[0]] = next(iter(parameters.values()))
    formats = tuple(_format(number, maps, parameters) for number in types if number < 128)
    return Media(fields[0].lower() if fields else "", formats, control, sending)


def _is_number(text: str) -> bool:
    # Not only payload types: parameters for a number that is none are still meant for the one there is.
    return text.isascii() and text.isdecimal() and len(text) < 4


def _format(number: int, maps: dict[int, RtpMap], parameters: dict[int, dict[str, str]]) -> Format:
    encoding, rate, channels = maps.get(number) or _STATIC.get(number) or ("", 0, 1)
    return Format(number, encoding, rate, channels, parameters.get(number, {}))
