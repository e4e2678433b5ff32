"""NAL units into RTP payloads, taken apart again by the rules of RFC 6184."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.h264 import FU_A, fragment, join_stap_a, split_annex_b
from relay_worker.rtp.h264_packetize import packetize, refit, starts_keyframe


def unpack(payloads: list[bytes]) -> list[bytes]:
    nals: list[bytes] = []
    for payload in payloads:
        kind = payload[0] & 31
        if kind == 24:
            rest = payload[1:]
            while rest:
                size = int.from_bytes(rest[:2], "big")
                nals.append(rest[2 : 2 + size])
                rest = rest[2 + size :]
        elif kind == 28:
            if payload[1] & 0x80:
                nals.append(bytes([payload[0] & 0xE0 | payload[1] & 31]))
            nals[-1] += payload[2:]
        else:
            nals.append(payload)
    return nals


NAL = st.builds(
    lambda kind, size: bytes([0x60 | kind]) + bytes(i % 251 for i in range(size)),
    st.sampled_from([1, 5, 6, 7, 8, 9]),
    st.integers(1, 5000),
)


@given(st.lists(NAL, min_size=1, max_size=8), st.integers(100, 1400))
def test_units_come_back_whole(nals: list[bytes], limit: int) -> None:
    run = packetize(nals, limit)
    assert unpack([payload for payload, _ in run]) == nals
    assert all(len(payload) <= limit for payload, _ in run)
    assert [marker for _, marker in run] == [False] * (len(run) - 1) + [True]


def test_parameter_sets_share_a_packet_that_starts_a_keyframe() -> None:
    run = packetize([b"\x67sps", b"\x68pps", b"\x65" + bytes(3000)])
    assert [payload[0] & 31 for payload, _ in run] == [24, 28, 28, 28]
    assert [starts_keyframe(payload) for payload, _ in run] == [True, True, False, False]


def test_fragments_of_one_unit_are_of_equal_size() -> None:
    sizes = [len(payload) for payload, _ in packetize([b"\x65" + bytes(10000)])]
    assert set(sizes[:-1]) == {1200}
    assert 0 < sizes[-1] <= 1200


def test_ordinary_pictures_start_no_keyframe() -> None:
    assert not any(starts_keyframe(payload) for payload, _ in packetize([b"\x41" + bytes(3000)]))
    assert not starts_keyframe(b"")
    assert not starts_keyframe(b"\x65")
    for cut in (b"\x78", b"\x78\x00", b"\x78\x00\x01", b"\x78\x00\x02\x09", b"\x78\xff\xff\x09\x10\x00\x01\x67"):
        assert not starts_keyframe(cut)


def test_annex_b_with_both_start_codes() -> None:
    assert split_annex_b(b"\0\0\0\1\x67a\0\0\1\x68b\0\0\0\0\1\x65c\0") == [b"\x67a", b"\x68b", b"\x65c"]
    assert split_annex_b(b"nothing") == []


def test_what_was_cut_for_a_larger_path_is_cut_again() -> None:
    """Each NAL unit arrives as it was, and start, end and marker stand where they stood."""
    nal = bytes((0x65,)) + bytes(range(256)) * 12
    sets = join_stap_a([bytes((0x67,)) + bytes(80), bytes((0x68,)) + bytes(40)])
    payloads = [(sets, False), *[(piece, False) for piece in fragment(nal, 1200)], (bytes((0x41,)) + bytes(200), True)]
    cut = refit(payloads, 100)
    assert max(len(payload) for payload, _ in cut) <= 100
    assert [marker for _, marker in cut] == [False] * (len(cut) - 1) + [True]
    fragments = [payload for payload, _ in cut if payload[0] & 0x1F == FU_A and payload[1] & 0x1F == 5]
    assert bytes((fragments[0][0] & 0xE0 | 5,)) + b"".join(piece[2:] for piece in fragments) == nal
    assert [piece[1] & 0xC0 for piece in fragments] == [0x80, *[0] * (len(fragments) - 2), 0x40]
    assert refit(payloads, 1200) == payloads
