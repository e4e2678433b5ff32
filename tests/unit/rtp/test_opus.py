"""Opus packets taken apart, held against what libopus makes and RFC 6716 says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.opus import MAX_TICKS, frame_ticks, join_frames, packet_ticks, split_frames

A, B, C = b"a" * 10, b"b" * 300, b""


@pytest.mark.parametrize(
    ("toc", "milliseconds"),
    [(0, 10), (3, 60), (11, 60), (12, 10), (15, 20), (16, 2.5), (19, 20), (31, 20), (30, 10)],
)
def test_length_of_a_frame(toc: int, milliseconds: float) -> None:
    packet = bytes((toc << 3,)) + A
    assert frame_ticks(packet) == packet_ticks(packet) == 48 * milliseconds


@pytest.mark.parametrize(
    ("packet", "frames"),
    [
        (b"\x78" + A, [A]),
        (b"\x79" + A + A, [A, A]),
        (b"\x7a\x0a" + A + B, [A, B]),
        (b"\x7a\xfc\x0c" + B + A, [B, A]),
        (b"\x7b\x03" + 3 * A, [A, A, A]),
        (b"\x7b\x83\x0a\x00" + A + B, [A, C, B]),
        (b"\x7b\x42\x03" + 2 * A + bytes(3), [A, A]),
        (b"\x7b\x41\xff\x01" + A + bytes(255), [A]),
        (b"\x79" + A + b"x", []),
        (b"\x7a\x40" + A, []),
        (b"\x7b", []),
        (b"\x7b\x00", []),
        (b"\x7b\x07" + 7 * A, []),
        (b"\x7b\x41\xff", []),
        (b"", []),
    ],
)
def test_frames(packet: bytes, frames: list[bytes]) -> None:
    assert split_frames(packet) == frames
    assert packet_ticks(packet) in (960 * len(frames), packet_ticks(packet) if not frames else 0)
    if frames:
        assert split_frames(join_frames(packet[0], frames)) == frames


@given(st.binary(max_size=60))
def test_takes_any_bytes(packet: bytes) -> None:
    ticks, frames = packet_ticks(packet), split_frames(packet)
    assert 0 <= ticks <= MAX_TICKS
    if frames:
        assert ticks == len(frames) * frame_ticks(packet)
        assert sum(map(len, frames)) < len(packet)
