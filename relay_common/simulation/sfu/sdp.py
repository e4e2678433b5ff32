"""The SFU's session descriptions: parses an endpoint's, writes answers and offers in Cloudflare's format.

Answers follow a capture of the real SFU: ice-lite and one fingerprint at session level, candidates only in the first
section, for components 1 and 2, payload types echoed, no header extensions but those that tell simulcast layers apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

AUDIO_CODECS = {"opus", "pcmu", "pcma"}
VIDEO_CODECS = {"h264", "h265", "vp8", "vp9", "av1"}
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
"""How a packet names its layer (RFC 8852), which no SSRC in the description does."""


class SdpError(ValueError):
    """The description cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload type of a section: rtpmap, fmtp and rtcp-fb (RFC 8866, RFC 4585)."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    fmtp: str = ""
    feedback: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, str]:
        """The fmtp line as a mapping, keys in lower case."""
        pairs = (part.partition("=") for part in self.fmtp.split(";") if part.strip())
        return {key.strip().lower(): value.strip() for key, _, value in pairs}

    @property
    def apt(self) -> int | None:
        """The payload type that this one retransmits (RFC 4588), for `rtx` only."""
        value = self.parameters.get("apt", "") if self.name.lower() == "rtx" else ""
        return int(value) if value.isdigit() else None


@dataclass(slots=True)
class Section:
    """One m-section."""

    kind: str
    mid: str
    port: int = 9
    direction: str = "sendrecv"
    setup: str = ""
    codecs: list[Codec] = field(default_factory=list)
    extensions: dict[int, str] = field(default_factory=dict)
    ssrcs: list[int] = field(default_factory=list)
    rtx_ssrcs: dict[int, int] = field(default_factory=dict)
    """Retransmission SSRC by primary SSRC (ssrc-group FID)."""
    rids: list[str] = field(default_factory=list)
    """Simulcast layers in the sender's order (RFC 8853)."""
    cname: str = ""
    msid: str = ""
    ufrag: str = ""
    pwd: str = ""
    fingerprints: list[tuple[str, str]] = field(default_factory=list)

    @property
    def rejected(self) -> bool:
        """Whether the section is rejected (port zero)."""
        return self.port == 0


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """The SFU's transport parameters for one session, as written into its descriptions."""

    session_number: int
    ufrag: str
    pwd: str = field(repr=False)
    fingerprint: str
    address: str
    port: int
    end_of_candidates: bool = True


_RTPMAP = re.compile(r"(\d+) ([\w.-]+)/(\d+)(?:/(\d+))?$")


def parse(sdp: str) -> list[Section]:
    """The m-sections of an endpoint's description, with session-level attributes filled in.

    Raises SdpError when there is no section, a mid is missing or repeated, or the transport is not described.
    """
    if not sdp.startswith("v=0"):
        raise SdpError("not a session description")
    session = Section("session", "")
    sections: list[Section] = []
    current = session
    for line in sdp.splitlines():
        if line.startswith("m="):
            current = _media_line(line)
            sections.append(current)
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            _attribute(current, name, value.strip())
    if not sections:
        raise SdpError("no media section")
    for section in sections:
        section.ufrag = section.ufrag or session.ufrag
        section.pwd = section.pwd or session.pwd
        section.setup = section.setup or session.setup
        section.fingerprints = section.fingerprints or session.fingerprints
    mids = [section.mid for section in sections]
    if "" in mids or len(set(mids)) != len(mids):
        raise SdpError("every media section needs a mid of its own")
    live = [s for s in sections if not s.rejected]
    if any(not (s.ufrag and s.pwd and s.fingerprints) for s in live[:1]):
        raise SdpError("ice-ufrag, ice-pwd or fingerprint is missing")
    return sections


def _media_line(line: str) -> Section:
    parts = line[2:].split()
    if len(parts) < 4 or not parts[1].isdigit():
        raise SdpError(f"bad media line {line!r}")
    section = Section(parts[0], "", port=int(parts[1]))
    static = {0: ("PCMU", 8000), 8: ("PCMA", 8000)}
    for number in parts[3:]:
        if number.isdigit():
            section.codecs.append(Codec(int(number), *static.get(int(number), ("", 0))))
    return section


def _attribute(section: Section, name: str, value: str) -> None:
    if name == "mid":
        section.mid = value
    elif name in ("sendrecv", "sendonly", "recvonly", "inactive"):
        section.direction = name
    elif name == "setup":
        section.setup = value
    elif name == "ice-ufrag":
        section.ufrag = value
    elif name == "ice-pwd":
        section.pwd = value
    elif name == "fingerprint":
        algorithm, _, digest = value.partition(" ")
        section.fingerprints = [*section.fingerprints, (algorithm.lower(), digest.upper())]
    elif name == "rtpmap":
        if match := _RTPMAP.match(value):
            number, codec, rate, channels = match.groups()
            _amend(section, number, name=codec, clock_rate=int(rate), channels=int(channels or 1))
    elif name == "fmtp":
        number, _, parameters = value.partition(" ")
        _amend(section, number, fmtp=parameters)
    elif name == "rtcp-fb":
        number, _, feedback = value.partition(" ")
        for codec_ in section.codecs:
            if number in ("*", str(codec_.payload_type)):
                _amend(section, str(codec_.payload_type), feedback=(*codec_.feedback, feedback))
    elif name == "extmap":
        number, _, uri = value.partition(" ")
        if (number := number.partition("/")[0]).isdigit():
            section.extensions[int(number)] = uri.split()[0] if uri else ""
    elif name == "rid":
        rid, _, direction = value.partition(" ")
        if direction.split(" ")[0] == "send" and rid not in section.rids:
            section.rids.append(rid)
    elif name == "ssrc":
        number, _, rest = value.partition(" ")
        if number.isdigit() and int(number) < 1 << 32:
            if int(number) not in section.ssrcs:
                section.ssrcs.append(int(number))
            if rest.startswith("cname:"):
                section.cname = rest[6:]
    elif name == "ssrc-group":
        parts = value.split()
        if parts[:1] == ["FID"] and len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            section.rtx_ssrcs[int(parts[1])] = int(parts[2])


def _amend(section: Section, number: str, **changes: object) -> None:
    for index, codec in enumerate(section.codecs):
        if str(codec.payload_type) == number:
            section.codecs[index] = replace(codec, **changes)  # type: ignore[arg-type]


def accept(
    section: Section,
    *,
    h264_profiles: Iterable[str] | None = None,
    feedback: frozenset[str],
    extensions: frozenset[str],
    layers: int | None = None,
    data_channels: bool = False,
) -> Section:
    """The SFU's answer to an offered section: the codecs it supports, or a rejected section (port 0).

    A section for data channels is accepted with `data_channels` only; of a simulcast section, the first `layers` are.

    `feedback` and `extensions` are what the SFU negotiates when offered; payload types are those of the offer.
    """
    answer = Section(section.kind, section.mid, direction="recvonly", setup="passive")
    if section.kind == "application" and data_channels and not section.rejected:
        answer.direction = "sendrecv"
        return answer
    known = AUDIO_CODECS if section.kind == "audio" else VIDEO_CODECS if section.kind == "video" else set()
    profiles = None if h264_profiles is None else set(h264_profiles)
    for codec in section.codecs:
        if codec.name.lower() not in known:
            continue
        # RFC 6184 8.1: no profile-level-id means baseline level 1.
        profile = codec.parameters.get("profile-level-id", "42000a").lower()
        if codec.name.lower() == "h264" and profiles is not None and profile not in profiles:
            continue
        answer.codecs.append(replace(codec, feedback=tuple(f for f in codec.feedback if f in feedback)))
    kept = {codec.payload_type for codec in answer.codecs}
    answer.codecs += [replace(codec, feedback=()) for codec in section.codecs if codec.apt in kept]
    answer.codecs.sort(key=lambda codec: [c.payload_type for c in section.codecs].index(codec.payload_type))
    answer.rids = section.rids[:layers]
    if answer.rids:
        extensions = extensions | {MID, RID, REPAIRED_RID}
    answer.extensions = {number: uri for number, uri in section.extensions.items() if uri in extensions}
    if section.rejected or not kept or section.direction in ("recvonly", "inactive"):
        answer.direction = "inactive"
    if section.rejected or not kept:
        answer.port, answer.codecs, answer.extensions, answer.rids = 0, [], {}, []
    return answer


def write(sections: list[Section], transport: LocalTransport, version: int) -> str:
    """The SFU's description; the sections' `setup` makes it an offer or an answer."""
    bundled = [section.mid for section in sections if not section.rejected]
    lines = [
        "v=0",
        f"o=- {transport.session_number} {version} IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS*",
        f"a=fingerprint:sha-256 {transport.fingerprint}",
        "a=ice-lite",
        f"a=group:BUNDLE {' '.join(bundled)}",
    ]
    for section in sections:
        lines += _section_lines(section, transport)
        if bundled and section.mid == bundled[0]:
            lines += [
                f"a=candidate:513273236 {component} udp 2130706431 {transport.address} {transport.port} typ host"
                for component in (1, 2)
            ]
            lines += ["a=end-of-candidates"] * transport.end_of_candidates
    return "\r\n".join(lines) + "\r\n"


def _section_lines(section: Section, transport: LocalTransport) -> list[str]:
    numbers = " ".join(str(codec.payload_type) for codec in section.codecs) or "0"
    profile = "UDP/DTLS/SCTP webrtc-datachannel" if section.kind == "application" else f"UDP/TLS/RTP/SAVPF {numbers}"
    lines = [f"m={section.kind} {section.port} {profile}", "c=IN IP4 0.0.0.0"]
    if section.rejected:
        return [*lines, f"a=mid:{section.mid}", "a=inactive"]
    if section.kind == "application":
        lines += [f"a=setup:{section.setup}", f"a=mid:{section.mid}", f"a=ice-ufrag:{transport.ufrag}"]
        return [*lines, f"a=ice-pwd:{transport.pwd}", "a=sctp-port:5000", "a=max-message-size:262144"]
    lines += [
        f"a=setup:{section.setup}",
        f"a=mid:{section.mid}",
        f"a=ice-ufrag:{transport.ufrag}",
        f"a=ice-pwd:{transport.pwd}",
        "a=rtcp-mux",
        "a=rtcp-rsize",
    ]
    for codec in section.codecs:
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        lines.append(f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}")
        if codec.fmtp:
            lines.append(f"a=fmtp:{codec.payload_type} {codec.fmtp}")
        lines += [f"a=rtcp-fb:{codec.payload_type} {feedback}" for feedback in codec.feedback]
    lines += [f"a=extmap:{number} {uri}" for number, uri in section.extensions.items()]
    if section.direction == "sendonly":
        lines += [f"a=ssrc-group:FID {ssrc} {rtx}" for ssrc, rtx in section.rtx_ssrcs.items()]
        for ssrc in section.ssrcs:
            lines += [f"a=ssrc:{ssrc} cname:{section.cname}", f"a=ssrc:{ssrc} msid:{section.msid}"]
        lines.append(f"a=msid:{section.msid}")
    if section.rids:
        lines += [f"a=rid:{rid} recv" for rid in section.rids]
        lines.append(f"a=simulcast:recv {';'.join(section.rids)}")
    return [*lines, f"a={section.direction}"]
