"""RTP payload format for MP4A-LATM, RFC 6416 §6 (RFC 3016 §4), with the configuration out of band (cpresent=0).

Only what cameras send is served: audioMuxVersion 0, one program, one layer, frame length type 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from relay_worker.rtp.aac import AudioConfig, parse_audio_config
from relay_worker.rtp.bits import BitReader
from relay_worker.rtp.h264 import PayloadError

MAX_ELEMENT: Final = 65536
"""Bytes of the largest audioMuxElement that packets may add up to."""


class LatmFormat(NamedTuple):
    """What StreamMuxConfig says (ISO/IEC 14496-3 §1.7.3)."""

    subframes: int
    """Access units in an audioMuxElement."""
    config: AudioConfig


def parse_latm_fmtp(parameters: Mapping[str, str]) -> LatmFormat:
    """The format from an fmtp line's parameters (lower-case names); raises PayloadError when it cannot be served."""
    # RFC 6416 §7.1 makes in band the default, but a given configuration is meant to be used.
    if parameters.get("cpresent", "0" if parameters.get("config") else "1") != "0":
        raise PayloadError("LATM with its configuration in band is not supported")
    try:
        data = bytes.fromhex(parameters.get("config", "").strip('"'))
    except ValueError:
        raise PayloadError("LATM config is not hexadecimal") from None
    bits = BitReader(data, PayloadError)
    if bits.read(1):
        raise PayloadError("LATM audioMuxVersion 1 is not supported")
    bits.read(1)  # allStreamsSameTimeFraming
    subframes = bits.read(6) + 1
    if bits.read(4) or bits.read(3):
        raise PayloadError("LATM with several programs or layers is not supported")
    # AudioSpecificConfig starts 15 bits in; trailing data does not harm a decoder.
    size = bits.left // 8
    config = bits.read(8 * size).to_bytes(size, "big")
    return LatmFormat(subframes, parse_audio_config(config))


class LatmDepacketizer:
    """Turns RTP payloads into AAC access units; `malformed` and `incomplete` count elements that could not be used."""

    def __init__(self, latm_format: LatmFormat, clock_rate: int = 0) -> None:
        self._format = latm_format
        config = latm_format.config
        self._ticks = config.frame_samples * (clock_rate or config.sample_rate) / config.sample_rate
        self._data = b""
        self._timestamp = -1
        self.malformed = 0
        self.incomplete = 0

    def receive_payload(self, payload: bytes, marker: bool, timestamp: int, lost: int) -> list[tuple[bytes, int]]:
        """The access units that `payload` completes (the marker ends an audioMuxElement), with RTP timestamps."""
        if lost or (self._data and timestamp != self._timestamp):
            # A remainder whose beginning was lost has a wrong length and is detected when it is split.
            self.incomplete += bool(self._data)
            self._data = b""
        self._timestamp = timestamp
        self._data += payload
        if len(self._data) > MAX_ELEMENT:
            self.malformed += 1
            self._data = b""
            return []
        if not marker:
            return []
        data, self._data = self._data, b""
        return self._split(data, timestamp)

    def _split(self, data: bytes, timestamp: int) -> list[tuple[bytes, int]]:
        units = []
        position = 0
        for index in range(self._format.subframes):
            size = 0
            while position < len(data):  # PayloadLengthInfo: a run of 255 and one other octet
                octet = data[position]
                position += 1
                size += octet
                if octet != 255:
                    break
            unit = data[position : position + size]
            if not size or len(unit) != size:
                self.malformed += 1
                break
            units.append((unit, (timestamp + round(index * self._ticks)) & 0xFFFFFFFF))
            position += size
        return units

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"incomplete": self.incomplete}
