"""Simulcast in offer and answer (RFC 8853, RFC 8851): the camera's own picture and a small one, on one video track.

The layers have an SSRC each, which the description does not name, as those of libwebrtc's offers do not: receivers know
layers by the rid in their packets' header extensions. Rids are in the order in which Cloudflare's SFU ranks them.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from relay_common.errors import RelayError
from relay_common.rendition_messages import FULL_RID, SMALL_RID
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.webrtc.sdp import Section

MID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
_IDS: Final = {4: MID_URI, 5: RID_URI, 6: REPAIRED_RID_URI}
RIDS: Final = (FULL_RID, SMALL_RID)

_ONE_BYTE: Final = 0xBEDE
_HEADER: Final = struct.Struct("!BBHIIHH")


class SimulcastRefused(RelayError):
    """The answer takes the video, and not in two layers: it can be published plainly."""


def extension_lines() -> list[str]:
    """The header extensions of a simulcast section."""
    return [f"a=extmap:{number} {uri}" for number, uri in _IDS.items()]


def layer_lines() -> list[str]:
    """The layers of a simulcast section, best first."""
    return [*(f"a=rid:{rid} send" for rid in RIDS), f"a=simulcast:send {';'.join(RIDS)}"]


def check_layers(section: Section, rid_id: int | None) -> None:
    """Raises SimulcastRefused unless the section of an answer takes both layers and the header extension of rids."""
    taken = next((received(value) for value in section.values("simulcast")), None)
    if taken is None:
        raise SimulcastRefused("the answer refuses simulcast")
    if missing := [rid for rid in RIDS if rid not in taken]:
        raise SimulcastRefused(f"the answer takes not all layers: {', '.join(missing)} is missing")
    if rid_id is None:
        raise SimulcastRefused("the answer refuses the header extension by which simulcast layers are known")


def received(simulcast: str) -> set[str]:
    """The rids that a value of a=simulcast receives (RFC 8853 §5.1); those that are paused are not."""
    words = simulcast.split()
    streams = next((words[place + 1] for place, word in enumerate(words[:-1]) if word == "recv"), "")
    return {rid for stream in streams.split(";") for rid in stream.split(",") if rid and not rid.startswith("~")}


class LayerExtensions(NamedTuple):
    """Header extensions of packets that say which layer they belong to; used like `HeaderExtensions`."""

    plain: HeaderExtensions
    """Those of packets that need not."""
    elements: bytes
    """MID and rid, as one-byte elements (RFC 8285 §4.2)."""

    @property
    def abs_send_time(self) -> int | None:
        return self.plain.abs_send_time

    @property
    def transport_cc(self) -> int | None:
        return self.plain.transport_cc

    @property
    def size(self) -> int:
        """Bytes that they add to each packet."""
        plain = (4 if self.abs_send_time is not None else 0) + (3 if self.transport_cc is not None else 0)
        return 4 + (plain + len(self.elements) + 3) // 4 * 4

    @property
    def header_size(self) -> int:
        """Bytes of the RTP header with them."""
        return 12 + self.size

    def write(
        self,
        buffer: memoryview,
        start: int,
        second_byte: int,
        sequence: int,
        timestamp: int,
        ssrc: int,
        send_time: int,
        number: int,
    ) -> None:
        """What `HeaderExtensions.write` does."""
        time_id, number_id = self.plain
        data = self.elements
        if time_id is not None:
            data += (time_id << 28 | 2 << 24 | send_time).to_bytes(4, "big")
        if number_id is not None:
            data += bytes((number_id << 4 | 1,)) + number.to_bytes(2, "big")
        words = (len(data) + 3) // 4
        _HEADER.pack_into(buffer, start, 0x90, second_byte, sequence, timestamp, ssrc, _ONE_BYTE, words)
        buffer[start + 16 : start + 16 + 4 * words] = data.ljust(4 * words, b"\0")


class LayerIds(NamedTuple):
    """The ids under which an answer takes the extensions that tell layers apart; None for what it does not take."""

    mid: int | None
    rid: int | None
    repaired_rid: int | None

    def media(self, plain: HeaderExtensions, mid: str, rid: str) -> LayerExtensions:
        """For the layer's own packets."""
        return LayerExtensions(plain, _element(self.mid, mid) + _element(self.rid, rid))

    def repairs(self, plain: HeaderExtensions, mid: str, rid: str) -> LayerExtensions:
        """For packets of its RTX stream."""
        return LayerExtensions(plain, _element(self.mid, mid) + _element(self.repaired_rid, rid))


def _element(number: int | None, text: str) -> bytes:
    return bytes((number << 4 | len(text) - 1,)) + text.encode() if number is not None else b""
