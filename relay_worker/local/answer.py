"""Writes the SDP answer to a viewer's offer: BUNDLE, sendonly, ICE-lite (RFC 8839 §5.3), one host candidate an address.

Sections that are refused keep their place with port 0 (RFC 8829 §5.3.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from relay_worker.local.ice import IceCredentials
from relay_worker.local.offer import Chosen, ViewerOffer
from relay_worker.publish.extensions import ABS_SEND_TIME_URI, TRANSPORT_CC_URI
from relay_worker.webrtc.sdp import Section


@dataclass(frozen=True)
class AnswerTerms:
    """What an answer says beside the choice of codecs."""

    ice: IceCredentials
    fingerprint: str
    addresses: Sequence[tuple[str, int]]
    """Where the viewer can reach us, preferred first."""
    session_id: int
    cname: str
    stream_id: str


def candidates(addresses: Sequence[tuple[str, int]]) -> list[str]:
    """A host candidate for each address, with descending priorities (RFC 8445 §5.1.2.1)."""
    return [
        f"{place + 1} 1 udp {126 << 24 | (65535 - place) << 8 | 255} {host} {port} typ host"
        for place, (host, port) in enumerate(addresses)
    ]


def write_fragment(offer: ViewerOffer, ice: IceCredentials, addresses: Sequence[tuple[str, int]]) -> str:
    """The answer to an ICE restart, as application/trickle-ice-sdpfrag (RFC 8840 §9)."""
    track = offer.tracks[0].offered
    lines = [
        "a=ice-lite",
        f"a=ice-ufrag:{ice.ufrag}",
        f"a=ice-pwd:{ice.password}",
        f"m={track.kind} 9 UDP/TLS/RTP/SAVPF 0",
        *([f"a=mid:{track.mid}"] if track.mid else []),
        *(f"a=candidate:{candidate}" for candidate in candidates(addresses)),
        "a=end-of-candidates",
    ]
    return "\r\n".join(lines) + "\r\n"


def write_answer(offer: ViewerOffer, terms: AnswerTerms) -> str:
    """The answer to `offer`, as SDP text."""
    mids = [chosen.track.offered.mid for _, chosen in offer.sections if chosen is not None]
    lines = ["v=0", f"o=- {terms.session_id} 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=ice-lite"]
    if all(mids):
        lines.append(f"a=group:BUNDLE {' '.join(mids)}")
    lines.append(f"a=msid-semantic: WMS {terms.stream_id}")
    first = True
    for section, chosen in offer.sections:
        if chosen is None:
            lines += _refused(section)
        else:
            lines += _section(section, chosen, offer.setup, terms, first=first)
            first = False
    return "\r\n".join(lines) + "\r\n"


def _refused(section: Section) -> list[str]:
    mid = next(section.values("mid"), "")
    return [
        f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}",
        "c=IN IP4 0.0.0.0",
        *([f"a=mid:{mid}"] if mid else []),
        "a=inactive",
    ]


def _section(section: Section, chosen: Chosen, setup: str, terms: AnswerTerms, *, first: bool) -> list[str]:
    track, offered = chosen.track, chosen.track.offered
    pt, rtx = track.payload_type, track.rtx_payload_type
    msid = f"{terms.stream_id} {offered.kind}"
    host, port = terms.addresses[0] if terms.addresses else ("0.0.0.0", 9)
    lines = [
        f"m={offered.kind} {port} {section.protocol} {pt}{f' {rtx}' if rtx is not None else ''}",
        f"c=IN IP{ipaddress.ip_address(host).version} {host}",
        *([f"a=mid:{offered.mid}"] if offered.mid else []),
        f"a=ice-ufrag:{terms.ice.ufrag}",
        f"a=ice-pwd:{terms.ice.password}",
        f"a=fingerprint:sha-256 {terms.fingerprint}",
        f"a=setup:{setup}",
        "a=sendonly",
        f"a=msid:{msid}",
        "a=rtcp-mux",
        *(["a=rtcp-rsize"] if section.has("rtcp-rsize") else []),
        *(f"a=candidate:{candidate}" for candidate in (candidates(terms.addresses) if first else [])),
        *(["a=end-of-candidates"] if first else []),
    ]
    extensions = (
        (track.extensions.abs_send_time, ABS_SEND_TIME_URI),
        (track.extensions.transport_cc, TRANSPORT_CC_URI),
    )
    lines += [f"a=extmap:{number} {uri}" for number, uri in extensions if number is not None]
    lines.append(f"a=rtpmap:{pt} {'H264/90000' if offered.kind == 'video' else 'opus/48000/2'}")
    lines += [f"a=rtcp-fb:{pt} {kind}" for kind in chosen.feedback]
    lines.append(f"a=fmtp:{pt} {chosen.format_parameters}")
    if rtx is not None:
        lines += [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={pt}"]
    if offered.rtx_ssrc is not None:
        lines.append(f"a=ssrc-group:FID {offered.ssrc} {offered.rtx_ssrc}")
    for ssrc in (offered.ssrc, offered.rtx_ssrc):
        if ssrc is not None:
            lines += [f"a=ssrc:{ssrc} cname:{terms.cname}", f"a=ssrc:{ssrc} msid:{msid}"]
    return lines
