"""RTP header extensions of outgoing packets: send time and transport-wide sequence number.

One-byte header extensions (RFC 8285 §4.2) are written together with the RTP header into the buffer the packet is sent
from. Extensions that were not negotiated cost nothing.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from relay_worker.rtp.h264 import MAX_PAYLOAD

ABS_SEND_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
ABS_SEND_TIME_ID: Final = 2
TRANSPORT_CC_URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
TRANSPORT_CC_ID: Final = 3

SMALLEST_MTU: Final = 1280
"""Bytes that every IPv6 path carries in one packet (RFC 8200 §5); more may be fragmented, or lost."""
_UDP_HEADER: Final = 8
_SRTP_TAG: Final = 16
"""The longest of the profiles that aiortc negotiates (RFC 7714)."""
_RTX_SEQUENCE: Final = 2
"""RFC 4588 §4: the original sequence number at the start of a retransmission's payload."""

_ONE_BYTE: Final = 0xBEDE
_PLAIN: Final = struct.Struct("!BBHII")
_TIME: Final = struct.Struct("!BBHIIHHI")
_NUMBER: Final = struct.Struct("!BBHIIHHBHx")
_BOTH: Final = struct.Struct("!BBHIIHHIBHx")


def abs_send_time(now: float) -> int:
    """Seconds on the sender's clock as 24-bit fixed point, 6.18 (it wraps every 64 s)."""
    return int(now * 262_144) & 0xFFFFFF


class HeaderExtensions(NamedTuple):
    """The ids under which one m-section's extensions were agreed (1..14); None for what was not."""

    abs_send_time: int | None = None
    transport_cc: int | None = None

    @property
    def size(self) -> int:
        """Bytes that they add to each packet."""
        return self.header_size - _PLAIN.size

    @property
    def header_size(self) -> int:
        """Bytes of the RTP header with them."""
        if self.transport_cc is None:
            return (_PLAIN if self.abs_send_time is None else _TIME).size
        return (_NUMBER if self.abs_send_time is None else _BOTH).size

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
        """Write the header with marker and payload type `second_byte`; it ends at `start` + `header_size`.

        `send_time` comes from `abs_send_time`, `number` is the transport-wide sequence number.
        """
        time_id, number_id = self
        if number_id is None:
            if time_id is None:
                _PLAIN.pack_into(buffer, start, 0x80, second_byte, sequence, timestamp, ssrc)
            else:
                word = time_id << 28 | 2 << 24 | send_time
                _TIME.pack_into(buffer, start, 0x90, second_byte, sequence, timestamp, ssrc, _ONE_BYTE, 1, word)
        elif time_id is None:
            first = number_id << 4 | 1
            _NUMBER.pack_into(buffer, start, 0x90, second_byte, sequence, timestamp, ssrc, _ONE_BYTE, 1, first, number)
        else:
            word, first = time_id << 28 | 2 << 24 | send_time, number_id << 4 | 1
            _BOTH.pack_into(
                buffer, start, 0x90, second_byte, sequence, timestamp, ssrc, _ONE_BYTE, 2, word, first, number
            )


NO_EXTENSIONS: Final = HeaderExtensions()


def max_payload(ip_header: int, extensions: int, mtu: int = SMALLEST_MTU) -> int:
    """Bytes of the largest payload whose packet, sent again by RTX too, is no longer than `mtu` (at least 576).

    `ip_header` is that of the path, `extensions` what header extensions add.
    """
    overhead = ip_header + _UDP_HEADER + _PLAIN.size + extensions + _RTX_SEQUENCE + _SRTP_TAG
    return min(MAX_PAYLOAD, mtu - overhead)
