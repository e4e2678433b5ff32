from __future__ import annotations

import functools
import io
import itertools
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.aac import AacDepacketizer, AacFormat, AudioConfig, parse_audio_config, parse_fmtp
from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.packet import parse_rtp

CONFIG = AudioConfig(2, 16000, 1, 1024, b"\x14\x08")
HBR = AacFormat(13, 3, 3, CONFIG)


def hbr(*units: bytes, sizes: tuple[int, ...] = ()) -> bytes:
    headers = b"".join((size << 3).to_bytes(2, "big") for size in sizes or [len(unit) for unit in units])
    return (len(headers) * 8).to_bytes(2, "big") + headers + b"".join(units)


class _Packets(io.RawIOBase):
    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.packets.append(bytes(data))
        return len(self.packets[-1])


@functools.cache
def muxed(rate: int, layout: str) -> tuple[list[bytes], list[bytes], bytes]:
    """AAC frames, FFmpeg's RTP packets of them, and the AudioSpecificConfig."""
    out = _Packets()
    frames: list[bytes] = []
    with av.open(out, "w", format="rtp", options={"pkt_size": "1200"}, buffer_size=1200) as container:
        stream = container.add_stream("aac", rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = layout, 64_000
        for index in range(20):
            frame = av.AudioFrame("fltp", layout, 1024)
            frame.sample_rate, frame.pts = rate, index * 1024
            for plane in frame.planes:
                plane.update(bytes((index * i) & 0x3F for i in range(plane.buffer_size)))
            packets = stream.encode(frame)
            frames += map(bytes, packets)
            container.mux(packets)
        packets = stream.encode(None)
        frames += map(bytes, packets)
        container.mux(packets)
        config = bytes(stream.codec_context.extradata or b"")
    return frames, [packet for packet in out.packets if not 192 <= packet[1] <= 223], config


@pytest.mark.parametrize(("rate", "layout"), [(8000, "mono"), (16000, "mono"), (44100, "stereo"), (48000, "stereo")])
def test_what_ffmpeg_packetises(rate: int, layout: str) -> None:
    frames, packets, config = muxed(rate, layout)
    parsed = parse_fmtp({"config": config.hex().upper(), "sizelength": "13", "indexlength": "3"})
    assert (parsed.config.sample_rate, parsed.config.channels) == (rate, 1 if layout == "mono" else 2)
    depacketizer = AacDepacketizer(parsed)
    units = []
    for packet in packets:
        view = parse_rtp(packet)
        units += depacketizer.receive_payload(view.payload, view.marker, view.timestamp, 0)
    assert [unit for unit, _ in units] == frames[: len(units)]
    assert len(units) >= len(frames) - 5  # the muxer keeps a packet that is not full
    stamps = [stamp for _, stamp in units]
    assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(stamps)} == {1024}


def test_several_units_in_a_packet() -> None:
    assert AacDepacketizer(HBR).receive_payload(hbr(b"one", b"three"), True, 0xFFFFFFFF, 0) == [
        (b"one", 0xFFFFFFFF),
        (b"three", 1023),
    ]


def test_fragments() -> None:
    depacketizer = AacDepacketizer(HBR)
    assert depacketizer.receive_payload(hbr(b"abc", sizes=(8,)), False, 5, 0) == []
    assert depacketizer.receive_payload(hbr(b"def", sizes=(8,)), False, 5, 0) == []
    assert depacketizer.receive_payload(hbr(b"gh", sizes=(8,)), True, 5, 0) == [(b"abcdefgh", 5)]
    assert depacketizer.receive_payload(hbr(b"abc", sizes=(8,)), False, 6, 0) == []
    assert depacketizer.receive_payload(hbr(b"whole"), True, 7, 1) == [(b"whole", 7)]
    assert (depacketizer.incomplete, depacketizer.malformed) == (1, 0)


def test_other_header_lengths() -> None:
    # AAC-lbr: 6 bits of size, 2 of index.
    parsed = parse_fmtp({"config": "1408", "sizelength": "6", "indexlength": "2", "indexdeltalength": "2"})
    payload = b"\x00\x10" + bytes((3 << 2, 2 << 2)) + b"abcde"
    assert AacDepacketizer(parsed).receive_payload(payload, True, 0, 0) == [(b"abc", 0), (b"de", 1024)]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"\x00\x00", b"\x00\x10", b"\x00\x0f\x00\x18abc", hbr(b"ab", b""), b"\x00\x10\x00\x19abc"],
)
def test_malformed(payload: bytes) -> None:
    depacketizer = AacDepacketizer(HBR)
    assert b"abc" not in [unit for unit, _ in depacketizer.receive_payload(payload, True, 0, 0)]
    assert depacketizer.malformed == 1


def test_fragments_are_bounded() -> None:
    depacketizer = AacDepacketizer(AacFormat(32, 0, 0, CONFIG))
    payload = b"\x00\x20" + (1 << 31).to_bytes(4, "big") + bytes(1000)
    for _ in range(1000):
        depacketizer.receive_payload(payload, False, 0, 0)
        assert len(depacketizer._fragment) <= 66_000
    assert depacketizer.malformed > 0


@pytest.mark.parametrize(
    ("data", "rate", "channels", "samples"),
    [
        ("1408", 16000, 1, 1024),
        ("1190", 48000, 2, 1024),
        ("140856e500", 16000, 1, 1024),
        ("1194", 48000, 2, 960),
        ("2b8a0800", 44100, 1, 2048),  # explicit SBR: 22.05 kHz core, 44.1 kHz out
        ("17800fa008", 8000, 1, 1024),  # rate written out
    ],
)
def test_audio_config(data: str, rate: int, channels: int, samples: int) -> None:
    config = parse_audio_config(bytes.fromhex(data))
    assert (config.sample_rate, config.channels, config.frame_samples) == (rate, channels, samples)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"config": "zz"},
        {"config": ""},
        {"config": "16e8"},
        {"config": "1408", "sizelength": "0"},
        {"config": "1408", "sizelength": "-3"},
        {"config": "1408", "sizelength": "x"},
        {"config": "1408", "constantsize": "100"},
    ],
)
def test_formats_that_cannot_be_served(parameters: dict[str, str]) -> None:
    with pytest.raises(PayloadError):
        parse_fmtp(parameters)


@given(st.binary(max_size=12), st.integers(1, 32), st.integers(0, 32), st.lists(st.binary(max_size=40), max_size=6))
def test_takes_any_bytes(config: bytes, size: int, index: int, payloads: list[bytes]) -> None:
    try:
        parse_audio_config(config)
    except PayloadError:
        pass
    depacketizer = AacDepacketizer(AacFormat(size, index, index, CONFIG))
    for stamp, payload in enumerate(payloads):
        depacketizer.receive_payload(payload, True, stamp // 2, 0)
        depacketizer.receive_payload(b"\x00\x10" + payload, True, stamp // 2, 0)


def test_a_packet_of_thousands_of_units_is_malformed() -> None:
    depacketizer = AacDepacketizer(HBR)
    assert depacketizer.receive_payload(hbr(*[b"\x01"] * 4000), True, 0, 0) == []
    assert depacketizer.malformed == 1
    assert len(depacketizer.receive_payload(hbr(*[b"\x01"] * 64), True, 0, 0)) == 64
