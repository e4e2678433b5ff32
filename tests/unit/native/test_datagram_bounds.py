"""The bounds of `datagrams.c`: what lies on each is taken, what lies beyond it is not.

With these every change by one is found; see `tests/fuzz/mutants.py`. Where the Python reads as well, both hand over the
same. What libsrtp never says of a packet is said by a function of ours in its place.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct
from collections.abc import Callable
from typing import Any, Final

import pytest
from pylibsrtp import Session
from pylibsrtp._binding import ffi, lib

from relay_worker import native
from relay_worker.webrtc.incoming import MAX_DATAGRAM
from tests.unit.native.test_datagrams import compiled_only, rtp

SETTINGS: Final = ("python", *(() if native.missing() else ("compiled",)))
TAG: Final = 16
"""Octets by which a packet is longer when it is encrypted."""
LARGEST: Final = 1500
"""Octets of the largest packet that is decrypted."""
FRAMES: Final = 1 << 15
"""Octets that are read in one wake at most, each packet with a header of four."""
REFUSED: Final = (b"", 1, b"", b"")
"""What is read of one packet that is refused, and nothing behind it."""
UNPROTECT: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), use_errno=True
)


def reader(incoming: object, *, most: int = 64, said: int | None = None, then: Callable[[], None] | None = None) -> Any:
    """What reads `incoming`, and takes packets for decrypted as they are, or with the length that is `said`."""

    def unprotect(context: int, packet: int, length: Any) -> int:
        if said is not None:
            length[0] = said
        if then is not None:
            then()
        return 0

    compiled, function = native.decide("compiled"), UNPROTECT(unprotect)
    assert compiled is not None
    return compiled.Datagrams(incoming, ctypes.cast(function, ctypes.c_void_p).value or 0, 1, function, most)


def framed(packet: bytes, channel: int) -> bytes:
    return b"$" + struct.pack("!BH", channel, len(packet)) + packet


def encrypted(sends: Session, packet: bytes) -> bytes:
    """A packet of any size, which pylibsrtp would bound."""
    data, length = ffi.new("char[]", len(packet) + TAG), ffi.new("int *", len(packet))
    ffi.memmove(data, packet, len(packet))
    assert lib.srtp_protect(sends._srtp[0], data, length) == 0
    return bytes(ffi.buffer(data, length[0]))


# --- what is media

FIRSTS: Final = (0, 127, 128, 129, 190, 191, 192, 255)
SECONDS: Final = (0, 96, 127, 128, 191, 192, 193, 222, 223, 224, 255)


def kind_of(first: int, second: int) -> str:
    """RFC 7983 §7 and RFC 5761 §4"""
    if not 128 <= first <= 191:
        return "other"
    return "rtcp" if 192 <= second <= 223 else "rtp"


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_media_begins_with(setting: native.Setting, ends: Any) -> None:
    both = ends(setting)
    ways = {"rtp": both.sends.protect, "rtcp": both.sends.protect_rtcp, "other": bytes}
    for number, (first, second) in enumerate(itertools.product(FIRSTS, SECONDS)):
        kind, packet = kind_of(first, second), struct.pack("!BBHII", first, second, number, 0, 1) + bytes(100)
        both.send(ways[kind](packet))
        sender = (both.far.getsockname(),) if kind == "other" else ()
        assert both.wake() == [(kind, packet, *sender), ("wake",)], (first, second)
    assert not both.media.rejected


@compiled_only
def test_compiled_code_reads_rtp_and_nothing_else(ends: Any) -> None:
    read = ends("compiled").media._datagrams.read
    for first, second, third in itertools.product(FIRSTS, SECONDS, (0, 255)):
        found = read(bytes((first, second, third)) + bytes(20))
        assert found == (REFUSED if kind_of(first, second) == "rtp" else None), (first, second, third)


@compiled_only
@pytest.mark.parametrize(
    ("datagram", "found"),
    [
        (b"", None),
        (b"\x80", None),
        (b"\x80\x60", REFUSED),
        (b"\x80\x60" + bytes(MAX_DATAGRAM - 2), REFUSED),
        (b"\x80\x60" + bytes(MAX_DATAGRAM - 1), None),
    ],
    ids=["nothing", "an octet", "two octets", "the largest datagram", "a larger one"],
)
def test_sizes_of_what_is_no_packet(datagram: bytes, found: object, ends: Any) -> None:
    assert ends("compiled").media._datagrams.read(datagram) == found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", [0, 1, MAX_DATAGRAM - 1, MAX_DATAGRAM, MAX_DATAGRAM + 1])
def test_something_else_of_any_size_comes_behind_media(size: int, setting: native.Setting, ends: Any) -> None:
    both, other = ends(setting), (bytes(range(1, 128)) * 17)[:size]
    both.send(both.sends.protect(rtp(1, 5)), other)
    sender = both.far.getsockname()
    assert both.wake() == [("rtp", rtp(1, 5)), ("other", other[:MAX_DATAGRAM], sender), ("wake",)]


# --- what is decrypted


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", [12 + TAG, LARGEST - 1, LARGEST, LARGEST + 1])
def test_the_largest_packet(size: int, setting: native.Setting, ends: Any) -> None:
    both = ends(setting)
    packets = [rtp(1, number, bytes(size - 12 - TAG)) for number in range(2)]
    both.send(*(encrypted(both.sends, packet) for packet in packets))
    taken = packets if size <= LARGEST else []
    assert both.wake() == [*(("rtp", packet) for packet in taken), ("wake",)]
    assert both.media.rejected == 2 - len(taken)


@compiled_only
@pytest.mark.parametrize("size", [LARGEST, LARGEST + 1])
def test_the_largest_packet_is_not_left_to_the_python(size: int, ends: Any) -> None:
    compiled = ends("compiled")
    packet = rtp(1, 5, bytes(size - 12 - TAG))
    found = compiled.media._datagrams.read(encrypted(compiled.sends, packet))
    assert found == (framed(packet, 255) if size == LARGEST else REFUSED)


@compiled_only
@pytest.mark.parametrize("length", [-1, 0, 1, 11, 12, 19, 20, 21])
def test_a_packet_has_a_length_of_its_datagram(length: int, ends: Any) -> None:
    """Whatever is said of it; and only one with a whole header is of a stream."""
    packet, reads = rtp(1, 5, b"12345678"), reader(ends("compiled").incoming, said=length)
    reads.know([(1, 96, 4)])
    expected = framed(packet[:length], 4 if length >= 12 else 255) if 0 < length <= len(packet) else REFUSED
    assert reads.read(packet) == expected


@compiled_only
def test_each_frame_is_written_whole(ends: Any) -> None:
    """Over what was there: the buffer is the same in each wake."""
    compiled = ends("compiled")
    compiled.media.know([(1, 96, 4)])
    packets = [rtp(1, number, bytes(size)) for number, size in enumerate((900, 40, 0, 7))]
    first, *others = map(compiled.sends.protect, packets)
    read = compiled.media._datagrams.read
    assert read(first) == framed(packets[0], 4)
    compiled.send(*others[1:])
    assert read(others[0]) == b"".join(framed(packet, 4) for packet in packets[1:])


# --- how much is read


@compiled_only
@pytest.mark.parametrize("more", [0, 1])
def test_another_is_read_where_the_largest_would_have_room(more: int, ends: Any) -> None:
    compiled = ends("compiled")
    sizes = [1316] * 23
    sizes.append(FRAMES - 4 - MAX_DATAGRAM - sum(sizes) + more)
    packets = [rtp(1, number, bytes(size - 16)) for number, size in enumerate((*sizes, 16))]
    compiled.send(*map(compiled.sends.protect, packets))
    expected = [("rtp", packet) for packet in packets]
    if more:
        assert compiled.wake() == [*expected[:-1], ("wake",)]
        del expected[:-1]
    assert compiled.wake() == [*expected, ("wake",)]


@compiled_only
@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_datagrams_are_read_than_were_asked_for(most: int, ends: Any) -> None:
    compiled = ends("compiled")
    packets = [rtp(1, number) for number in range(4)]
    compiled.send(*packets[1:])
    assert reader(compiled.incoming, most=most).read(packets[0]) == b"".join(
        framed(packet, 255) for packet in packets[:most]
    )


@compiled_only
@pytest.mark.parametrize("wrong", [{"unprotect": 0}, {"context": 0}, {"most": 0}, {"most": -1}], ids=str)
def test_what_reads_nothing_is_not_made(wrong: dict[str, int], ends: Any) -> None:
    given = {"unprotect": 1, "context": 1, "most": 1} | wrong
    compiled = native.decide("compiled")
    assert compiled is not None
    with pytest.raises(ValueError, match="no such datagrams"):
        compiled.Datagrams(None, given["unprotect"], given["context"], None, given["most"])


@compiled_only
def test_an_empty_datagram_comes_after_a_call_that_was_interrupted(ends: Any) -> None:
    """What errno was left at says nothing of a call that has not failed."""
    compiled = ends("compiled")
    compiled.send(b"", b"\x16and more")
    reads = reader(compiled.incoming, then=lambda: ctypes.set_errno(errno.EINTR) and None)
    frames, refused, other, sender = reads.read(rtp(1, 5))
    assert (frames, refused, other) == (framed(rtp(1, 5), 255), 0, b"")
    assert sender, "there was one"


@compiled_only
def test_a_socket_may_be_descriptor_0(ends: Any) -> None:
    """As it is where standard input was closed before."""
    compiled = ends("compiled")
    packets = [rtp(1, number) for number in range(2)]
    compiled.send(packets[1])
    kept = os.dup(0)
    try:
        os.dup2(compiled.incoming.fileno(), 0)
        found = reader(0).read(packets[0])
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert found == b"".join(framed(packet, 255) for packet in packets)


# --- what is of which stream


@compiled_only
def test_as_many_streams_as_are_known(ends: Any) -> None:
    """Their last payload type, and the last channel, are some as well; of what was known before nothing is left."""
    compiled = ends("compiled")
    streams = [(2**32 - 1 - number, 127 - number, 254 - number) for number in range(8)]

    def channels(known: list[tuple[int, int, int]], sequence: int) -> list[int]:
        compiled.media.know(known)
        del compiled.channels[:]
        compiled.send(
            *(compiled.sends.protect(rtp(ssrc, sequence, payload_type=kind)) for ssrc, kind, _ in streams),
        )
        compiled.wake()
        return compiled.channels

    every = [channel for _, _, channel in streams]
    assert channels(streams, 1) == every
    for sequence, count in enumerate((7, 1, 0), 2):
        assert channels(streams[:count], sequence) == every[:count] + [255] * (8 - count)


@compiled_only
def test_no_stream_is_known_at_first(ends: Any) -> None:
    compiled = ends("compiled")
    compiled.send(compiled.sends.protect(rtp(0, 5, payload_type=0)))
    compiled.wake()
    assert compiled.channels == [255]
