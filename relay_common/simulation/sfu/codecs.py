"""Mapping of payload types between a publisher's codecs and a viewer's session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from relay_common.simulation.sfu.sdp import Codec, Section


def _shape(codec: Codec) -> tuple[str, int, int, str]:
    return codec.name.lower(), codec.clock_rate, codec.channels, codec.fmtp


def fit(codecs: list[Codec], sections: Iterable[Section]) -> tuple[list[Codec], dict[int, int]]:
    """The publisher's codecs with their own payload types, or free ones where another codec uses theirs already."""
    used = {codec.payload_type: _shape(codec) for section in sections for codec in section.codecs}
    types: dict[int, int] = {}
    fitted = []
    for codec in sorted(codecs, key=lambda codec: codec.apt is not None):
        if codec.apt is not None:
            codec = replace(codec, fmtp=f"apt={types[codec.apt]}")
        number = codec.payload_type
        if used.get(number, _shape(codec)) != _shape(codec):
            number = next(n for n in (*range(96, 128), *range(35, 64)) if n not in used and n not in types.values())
        types[codec.payload_type] = number
        used[number] = _shape(codec)
        fitted.append(replace(codec, payload_type=number))
    primary = {codec.payload_type for codec in codecs if codec.apt is None}
    return fitted, {theirs: ours for theirs, ours in types.items() if theirs in primary}


def translate(theirs: list[Codec], ours: list[Codec]) -> dict[int, int]:
    """Map a new source's payload types to those negotiated with the viewer, codec by codec."""

    def key(codec: Codec) -> tuple[str, int, str, str]:
        p = codec.parameters
        return (
            codec.name.lower(),
            codec.clock_rate,
            p.get("profile-level-id", "")[:2].lower(),
            p.get("packetization-mode", ""),
        )

    negotiated = {key(codec): codec.payload_type for codec in reversed(ours) if codec.apt is None}
    return {c.payload_type: negotiated[key(c)] for c in theirs if c.apt is None and key(c) in negotiated}
