"""RTP payload format for AAC, RFC 3640 §3.2 (AU headers) and §3.3.6 (AAC-hbr)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from relay_worker.native.states import UnitsState
from relay_worker.rtp.bits import BitReader
from relay_worker.rtp.h264 import PayloadError

SAMPLE_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
MAX_ACCESS_UNIT: Final = 65536
"""Bytes of the largest access unit that fragments may add up to."""
MAX_UNITS: Final = 64
"""Access units allowed in one packet, over a second of sound; thousands would take a second to decode."""


class AudioConfig(NamedTuple):
    """The parts of AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) a decoder needs."""

    object_type: int
    sample_rate: int
    channels: int
    """0 when the configuration defines its own channel layout."""
    frame_samples: int
    """Samples per frame and channel at `sample_rate`: 1024 or 960, twice as many with explicit SBR."""
    data: bytes
    """The configuration itself (a decoder's extradata)."""


class AacFormat(NamedTuple):
    """AU header layout from the SDP's fmtp line."""

    size_length: int
    index_length: int
    index_delta_length: int
    config: AudioConfig


def parse_audio_config(data: bytes) -> AudioConfig:
    """Read an AudioSpecificConfig; raises PayloadError when it is truncated or uses a reserved rate."""
    bits = BitReader(data, PayloadError)
    object_type = _object_type(bits)
    sample_rate = core_rate = _sample_rate(bits)
    channels = bits.read(4)
    if object_type in (5, 29):  # explicit SBR or PS: the extension's rate is the output rate
        sample_rate = _sample_rate(bits)
        object_type = _object_type(bits)
    frame_samples = 960 if bits.left and bits.read(1) else 1024
    if sample_rate == 2 * core_rate:
        frame_samples *= 2
    return AudioConfig(object_type, sample_rate, 8 if channels == 7 else channels, frame_samples, data)


def _object_type(bits: BitReader) -> int:
    value = bits.read(5)
    return 32 + bits.read(6) if value == 31 else value


def _sample_rate(bits: BitReader) -> int:
    index = bits.read(4)
    if index == 15:
        return bits.read(24)
    if index >= len(SAMPLE_RATES):
        raise PayloadError("AAC configuration with a reserved sample rate")
    return SAMPLE_RATES[index]


def parse_fmtp(parameters: Mapping[str, str]) -> AacFormat:
    """The format from an fmtp line's parameters (lower-case names); raises PayloadError when it cannot be served."""
    if "config" not in parameters:
        raise PayloadError("AAC track without config in its fmtp line")
    try:
        config = parse_audio_config(bytes.fromhex(parameters["config"].strip('"')))
        # Servers that omit the lengths mean those of AAC-hbr.
        size, index, delta = (int(parameters.get(name, default)) for name, default in _LENGTHS)
        constant_size = int(parameters.get("constantsize", "0"))
    except PayloadError:
        raise
    except ValueError:
        raise PayloadError("AAC fmtp line with a malformed number") from None
    if constant_size or not (0 < size <= 32 and 0 <= index <= 32 and 0 <= delta <= 32):
        raise PayloadError("AAC mode without AU sizes is not supported")
    return AacFormat(size, index, delta, config)


_LENGTHS: Final = (("sizelength", "13"), ("indexlength", "3"), ("indexdeltalength", "3"))


class AacDepacketizer(UnitsState):
    """Turns RTP payloads into AAC access units.

    `clock_rate` is that of the RTP timestamps, where it is not the configuration's: HE-AAC often has the core's.
    `malformed` counts payloads that break the format, `incomplete` fragmented units of which a part was lost.
    """

    def __init__(self, aac_format: AacFormat, clock_rate: int = 0) -> None:
        self._format = aac_format
        config = aac_format.config
        self._ticks = config.frame_samples * (clock_rate or config.sample_rate) / config.sample_rate
        self._plain = (aac_format.size_length, aac_format.index_length) == (13, 3)
        self._fragment = b""
        self._fragment_size = 0
        self._fragment_timestamp = 0
        self.malformed = 0
        self.incomplete = 0

    def receive_payload(self, payload: bytes, marker: bool, timestamp: int, lost: int) -> list[tuple[bytes, int]]:
        """The access units that `payload` completes, each with its RTP timestamp."""
        if self._fragment and (lost or timestamp != self._fragment_timestamp):
            self.incomplete += 1
            self._fragment = b""
        try:
            sizes, start = self._headers(payload)
        except PayloadError:
            self.malformed += 1
            self._fragment = b""
            return []
        data = payload[start:]
        if len(sizes) == 1 and sizes[0] > len(data):
            return self._add_fragment(data, sizes[0], timestamp)
        units = []
        position = 0
        for index, size in enumerate(sizes):
            unit = data[position : position + size]
            if len(unit) != size or not size:
                self.malformed += 1
                break
            units.append((unit, (timestamp + round(index * self._ticks)) & 0xFFFFFFFF))
            position += size
        return units

    def _add_fragment(self, data: bytes, size: int, timestamp: int) -> list[tuple[bytes, int]]:
        """§3.2.3: each fragment repeats the header with the size of the whole unit."""
        if not self._fragment:
            self._fragment_size, self._fragment_timestamp = size, timestamp
        self._fragment += data
        if size != self._fragment_size or size > MAX_ACCESS_UNIT or not data:
            self.malformed += 1
            self._fragment = b""
        elif len(self._fragment) >= size:
            unit, self._fragment = self._fragment, b""
            return [(unit[:size], timestamp)]
        return []

    def _headers(self, payload: bytes) -> tuple[list[int], int]:
        """Sizes of the access units in the payload, and where their data starts."""
        if payload[:2] == b"\0\x10" and self._plain and len(payload) > 4 and not payload[3] & 7:
            return [payload[2] << 5 | payload[3] >> 3], 4  # one access unit: nearly every packet
        length = int.from_bytes(payload[:2], "big")
        start = 2 + (length + 7) // 8
        if len(payload) < 2 or not length or start > len(payload):
            raise PayloadError("AU headers longer than their packet")
        bits = BitReader(payload[2:start], PayloadError)
        sizes: list[int] = []
        while length > 0:
            index_length = self._format.index_delta_length if sizes else self._format.index_length
            size = bits.read(self._format.size_length)
            if bits.read(index_length):
                raise PayloadError("interleaved AAC is not supported")
            sizes.append(size)
            if len(sizes) > MAX_UNITS:
                raise PayloadError(f"more than {MAX_UNITS} AAC access units in a packet")
            length -= self._format.size_length + index_length
        if length < 0:
            raise PayloadError("AU header section is not whole headers")
        return sizes, start

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"incomplete": self.incomplete}
