"""A capture of one camera's packets that Wireshark opens: what came from the camera and what left for the SFU.

RTP and RTCP are written after decryption and before encryption, each in a UDP datagram of its own whatever carried it,
and the RTSP dialogue (also the part from before the capture) as TCP on port 554 with its credentials blanked out:

    192.0.2.1 camera   192.0.2.2 relay   192.0.2.3 SFU
    UDP 5000 video, 5002 audio from the camera (RTCP on 5001, 5003); 6000 video, 6002 audio to the SFU

In Wireshark: Decode As, UDP port 5000 or 6000, RTP; and for H.264 its payload type under Preferences, Protocols, H264.
Format: pcapng (draft-ietf-opsawg-pcapng), link type RAW (IPv4, RFC 791).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from relay_common.secrets import redact
from relay_worker.media.stream import Batch, Kind, PayloadRun
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.rtsp.events import RtspMessage

MAX_BYTES: Final = 12 * 1024 * 1024
"""Bytes of packets a capture holds; later packets are only counted."""
_LINKTYPE_RAW: Final = 101
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_UDP, _TCP = 17, 6
_RTSP_PORT: Final = 554
_RELAY_PORT: Final = 50554
_LARGEST: Final = 60_000

_CAMERA, _RELAY, _SFU = (ipaddress.IPv4Address(f"192.0.2.{host}").packed for host in (1, 2, 3))
_IN_PORTS: Final = {Kind.VIDEO: 5000, Kind.AUDIO: 5002}
_OUT_PORTS: Final = {"video": 6000, "audio": 6002}
_RTP_HEADER: Final = struct.Struct("!BBHII")


class Capture:
    """Collects packets until `max_bytes`; `dropped` counts those beyond it. Times are monotonic seconds.

    `wall` is what has to be added to make them Unix seconds.
    """

    def __init__(self, wall: float, max_bytes: int = MAX_BYTES) -> None:
        self._wall, self._room = wall, max_bytes
        self._packets: list[tuple[float, bytes]] = []
        self.dialogue: Sequence[RtspMessage] = ()
        """The RTSP messages, known at the end."""
        self.dropped = 0

    def received(self, batches: Iterable[Batch], now: float) -> None:
        """Packets received from the camera in one wake-up."""
        for batch in batches:
            port = _IN_PORTS[batch.track.kind]
            for packet in batch.rtp:
                self._udp(_CAMERA, _RELAY, port, packet, now)
            for report in batch.rtcp:
                self._udp(_CAMERA, _RELAY, port + 1, report, now)

    def sent(self, track: OutgoingTrack, payloads: PayloadRun, timestamp: int, step: int, now: float) -> None:
        """A run of payloads that is about to leave, `step` RTP ticks apart; numbers follow `track.sequence`."""
        for offset, (payload, marker) in enumerate(payloads):
            second = track.payload_type | (0x80 if marker else 0)
            at = (timestamp + offset * step) & 0xFFFFFFFF
            header = _RTP_HEADER.pack(0x80, second, (track.sequence + offset) & 0xFFFF, at, track.ssrc)
            self._udp(_RELAY, _SFU, _OUT_PORTS[track.kind], header + payload, now)

    def file(self) -> bytes:
        """The capture as a file in chronological order; blocks for about 0.1 s when it is full."""
        packets = sorted(self._packets + self._conversation(self.dialogue), key=lambda entry: entry[0])
        return _header() + b"".join(_packet_block(self._wall + at, data) for at, data in packets)

    def _udp(self, source: bytes, target: bytes, port: int, data: bytes, now: float) -> None:
        if self._room < len(data):
            self.dropped += 1
            return
        self._room -= len(data)
        header = struct.pack("!HHHH", port, port, 8 + len(data), 0)  # no checksum, as RFC 768 allows
        self._packets.append((now, _ipv4(source, target, _UDP, header + data)))

    @staticmethod
    def _conversation(dialogue: Sequence[RtspMessage]) -> list[tuple[float, bytes]]:
        """The RTSP messages as one TCP connection."""
        ours, theirs = 1, 1
        packets = []
        for message in dialogue:
            text = redact(message.data.decode("utf-8", "replace")).encode()[:_LARGEST]
            if message.sent:
                segment = _segment(_RELAY, _CAMERA, _RELAY_PORT, _RTSP_PORT, ours, theirs, text)
                ours += len(text)
            else:
                segment = _segment(_CAMERA, _RELAY, _RTSP_PORT, _RELAY_PORT, theirs, ours, text)
                theirs += len(text)
            packets.append((message.at, segment))
        return packets


class Captures:
    """The captures that run at the same time, each with a length of its own."""

    def __init__(self) -> None:
        self.running: list[Capture] = []

    def received(self, batches: Sequence[Batch], now: float) -> None:
        """Packets received from the camera in one wake-up."""
        for capture in self.running:
            capture.received(batches, now)

    def sent(self, track: OutgoingTrack, payloads: PayloadRun, timestamp: int, step: int, now: float) -> None:
        """A run of payloads that is about to leave."""
        for capture in self.running:
            capture.sent(track, payloads, timestamp, step, now)


def _segment(source: bytes, target: bytes, port: int, to: int, sequence: int, acknowledged: int, data: bytes) -> bytes:
    fields = (port, to, sequence, acknowledged, 5 << 4, 0x18, 0xFFFF)
    without = struct.pack("!HHIIBBHHH", *fields, 0, 0) + data
    pseudo = source + target + struct.pack("!BBH", 0, _TCP, len(without))
    return _ipv4(source, target, _TCP, struct.pack("!HHIIBBHHH", *fields, _checksum(pseudo + without), 0) + data)


def _ipv4(source: bytes, target: bytes, protocol: int, data: bytes) -> bytes:
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(data), 0, 0x4000, 64, protocol)
    checksum = _checksum(start + b"\x00\x00" + source + target)
    return start + checksum.to_bytes(2, "big") + source + target + data


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\x00" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _header() -> bytes:
    """Section header and the one interface, with times in microseconds (the default)."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, section) + _block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_RAW, 0, 0))


def _packet_block(at: float, data: bytes) -> bytes:
    ticks = int(at * 1e6)
    fields = struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return _block(_PACKET, fields + data)


def _block(kind: int, body: bytes) -> bytes:
    body += b"\x00" * (-len(body) % 4)
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
