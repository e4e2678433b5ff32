"""SPS fields, key frame tests and access units, checked against what libx264 and FFmpeg make of the same bytes."""

from __future__ import annotations

import base64
import functools
import re

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.media.access_unit import AccessUnit, AccessUnitAssembler
from relay_worker.media.parameter_sets import MAX_SETS, MAX_SIZE, ParameterSetError, ParameterSets, parse_sps
from relay_worker.rtp.h264 import FU_A, PayloadError, fragment, join_stap_a, split_stap_a
from relay_worker.rtp.h264_slices import has_recovery_point, is_reference, slice_type, starts_idr


@functools.cache
def encode(width: int, height: int, frames: int = 8, **options: str) -> list[list[bytes]]:
    """NAL units of each access unit, as libx264 writes them."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate = 30
    codec.options = {"preset": "veryfast", "threads": "1", **{k.replace("_", "-"): v for k, v in options.items()}}
    units = []
    for index in range(frames):
        frame = av.VideoFrame(width, height, "yuv420p")
        for number, plane in enumerate(frame.planes):
            plane.update(bytes([(index * 20 + number * 60) % 256]) * plane.buffer_size)
        frame.pts = index
        units += codec.encode(frame)
    units += codec.encode(None)
    return [[nal.rstrip(b"\0") for nal in re.split(b"\0\0\0?\1", bytes(unit)) if nal] for unit in units]


def find(units: list[list[bytes]], kind: int) -> bytes:
    return next(nal for unit in units for nal in unit if nal[0] & 0x1F == kind)


@pytest.mark.parametrize(
    ("width", "height", "profile", "idc"),
    [
        (640, 360, "baseline", 66),
        (1920, 1080, "main", 77),
        (1280, 720, "high", 100),
        (384, 512, "main", 77),
        (642, 362, "high", 100),
    ],
)
def test_size_and_profile(width: int, height: int, profile: str, idc: int) -> None:
    info = parse_sps(find(encode(width, height, 1, profile=profile), 7))
    assert (info.width, info.height, info.profile_idc) == (width, height, idc)
    assert info.profile_level_id == find(encode(width, height, 1, profile=profile), 7)[1:4].hex()


def test_interlaced_and_444() -> None:
    interlaced = encode(320, 240, 2, profile="high", x264_params="interlaced=1")
    assert parse_sps(find(interlaced, 7)).height == 240


def test_reordering_is_told_from_the_sps() -> None:
    assert parse_sps(find(encode(320, 240, profile="main", bf="0"), 7)).reorder_frames == 0
    assert parse_sps(find(encode(320, 240, profile="main", bf="2"), 7)).reorder_frames in (1, 2)


def test_every_cut_of_an_sps_is_an_error_or_an_answer() -> None:
    sps = find(encode(640, 360, 1, profile="high"), 7)
    for size in range(len(sps)):
        try:
            parse_sps(sps[:size])
        except ParameterSetError:
            pass
    with pytest.raises(ParameterSetError):
        parse_sps(sps[:5])


@given(st.binary(max_size=100))
def test_takes_any_bytes(data: bytes) -> None:
    sets = ParameterSets()
    for header in (b"", b"\x67", b"\x68", b"\x67\x64\x00\x1f"):
        sets.add(header + data)
        has_recovery_point(header + data)
        slice_type(b"\x41" + data)
    try:
        assert split_stap_a(data)
    except PayloadError:
        pass
    sets.add_sprop(data.decode("latin-1"))


def test_sprop_and_changes() -> None:
    small, large = encode(320, 240, 1), encode(640, 360, 1)
    sets = ParameterSets()
    sets.add_sprop(",".join(base64.b64encode(find(small, kind)).decode().rstrip("=") for kind in (7, 8)))
    assert sets.complete
    assert sets.nals() == [find(small, 7), find(small, 8)]
    sets.add(find(small, 7))
    assert sets.changes == 0
    sets.add(find(large, 7))
    assert sets.changes == 1
    assert sets.info is not None
    assert sets.info.width == 640
    assert sets.nals() == [find(large, 7), find(small, 8)]


def test_what_is_kept_of_parameter_sets_is_bounded() -> None:
    sets = ParameterSets()
    for number in range(1, 200):
        bits = f"{number + 1:b}"
        code = ("0" * (len(bits) - 1) + bits + "1").ljust(24, "0")  # Exp-Golomb, then the stop bit
        sets.add(b"\x68" + int(code, 2).to_bytes(3, "big"))
    assert len(sets.nals()) == MAX_SETS
    assert sets.malformed == 199 - MAX_SETS
    sets = ParameterSets()
    sets.add(b"\x68\xee" + bytes(MAX_SIZE))
    assert (sets.nals(), sets.malformed) == ([], 1)


def test_slice_types_and_references() -> None:
    units = encode(320, 240, 12, profile="main", bf="2", x264_params="bframes=2:b-adapt=0:b-pyramid=none")
    slices = [nal for unit in units for nal in unit if nal[0] & 0x1F in (1, 5)]
    assert starts_idr(slices[0])
    assert [slice_type(nal) for nal in slices[:2]] == ["I", "P"]
    assert {slice_type(nal) for nal in slices} == {"I", "P", "B"}
    assert all(is_reference(nal) == (slice_type(nal) != "B") for nal in slices)
    assert not any(map(starts_idr, slices[1:]))


def test_recovery_point() -> None:
    units = encode(320, 240, 30, g="10", x264_params="open-gop=1:keyint=10:bframes=2:intra-refresh=1")
    seis = [nal for unit in units for nal in unit if nal[0] & 0x1F == 6]
    assert any(map(has_recovery_point, seis))
    assert not has_recovery_point(b"\x06\x05\x02ab\x80")
    assert has_recovery_point(b"\x06\x05\x02ab\x06\x01\x84\x80")


# Payload format and access units


@given(st.binary(min_size=3, max_size=5000), st.integers(64, 1300))
def test_fragments_add_up(nal: bytes, size: int) -> None:
    pieces = fragment(nal, size)
    assert all(len(piece) <= size for piece in pieces)
    if len(pieces) > 1:
        assert [piece[1] & 0xC0 for piece in pieces] == [0x80, *[0] * (len(pieces) - 2), 0x40]
        assert all(piece[0] & 0x1F == FU_A for piece in pieces)
        header = bytes((pieces[0][0] & 0xE0 | pieces[0][1] & 0x1F,))
        assert header + b"".join(piece[2:] for piece in pieces) == nal
    else:
        assert pieces == [nal]


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8))
def test_aggregates_come_apart(nals: list[bytes]) -> None:
    assert split_stap_a(join_stap_a(nals)) == nals


def collect(assembler: AccessUnitAssembler, *payloads: tuple[bytes, bool, int, int]) -> list[AccessUnit]:
    return [unit for payload in payloads for unit in assembler.receive_payload(*payload)]


def test_access_unit_from_all_packet_types() -> None:
    idr = b"\x65" + b"i" * 50
    parts = fragment(idr, 20)
    (unit,) = collect(
        AccessUnitAssembler(),
        (join_stap_a([b"\x67s", b"\x68p"]), False, 9, 0),
        *((part, False, 9, 0) for part in parts),
        (b"\x06x", True, 9, 0),
    )
    start = b"\0\0\0\1"
    expected = start + b"\x67s" + start + b"\x68p" + start + idr + start + b"\x06x"
    assert unit == AccessUnit(expected, 9, True, True)


def test_access_unit_without_marker_ends_with_the_next_timestamp() -> None:
    units = collect(AccessUnitAssembler(), (b"\x41a", False, 1, 0), (b"\x41b", True, 2, 0))
    assert [(unit.timestamp, unit.complete) for unit in units] == [(1, True), (2, True)]


def test_loss_makes_incomplete() -> None:
    parts = fragment(b"\x41" + bytes(100), 64)
    units = collect(
        AccessUnitAssembler(),
        (parts[0], False, 1, 0),
        (b"\x41b", True, 2, 1),
        (b"\x41c", True, 3, 0),
    )
    assert [(unit.timestamp, unit.complete) for unit in units] == [(2, False), (3, True)]


def test_oversized_access_unit_is_dropped() -> None:
    assembler = AccessUnitAssembler(max_size=100)
    assert collect(assembler, (b"\x41" + bytes(60), False, 1, 0), (b"\x41" + bytes(60), True, 1, 0)) == []
    assert assembler.oversized == 1


@pytest.mark.parametrize("payload", [b"\x7c\x05" + bytes(98), b"\x41" + bytes(99)], ids=["FU-A", "slices"])
def test_of_a_picture_that_never_ends_no_more_is_kept_than_one_may_have(payload: bytes) -> None:
    assembler = AccessUnitAssembler(max_size=1000)
    begun = b"\x7c\x85" + bytes(98)
    assert collect(assembler, (begun, False, 1, 0), *[(payload, False, 1, 0)] * 100) == []
    assert sum(map(len, [*assembler._parts, *(assembler._fragment or [])])) <= 1000
    assert collect(assembler, (payload, True, 1, 0)) == []
    assert assembler.oversized == 1


@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans(), st.integers(0, 3), st.integers(0, 1)), max_size=20))
def test_assembler_takes_any_payload(payloads: list[tuple[bytes, bool, int, int]]) -> None:
    collect(AccessUnitAssembler(), *payloads)
