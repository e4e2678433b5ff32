"""A peer's datagrams on their way in: the same by compiled code as by the Python, from a real socket and real SRTP."""

from __future__ import annotations

import random
import socket
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from pylibsrtp import Policy, Session

from relay_worker import native
from relay_worker.webrtc.incoming import MAX_DATAGRAM, MAX_READS, Incoming, framed_packets, sender_of

KEY = bytes(range(28))
compiled_only = pytest.mark.skipif(bool(native.missing()), reason=native.missing())


def session(direction: int) -> Session:
    return Session(Policy(key=KEY, ssrc_type=direction, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM))


def rtp(ssrc: int, sequence: int, payload: bytes = b"payload", payload_type: int = 96) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, sequence, 3000, ssrc) + payload


class Ends:
    """A socket of ours, read as ICE's, and the peer at the other end; `came` is what was handed over, in order."""

    def __init__(self, setting: native.Setting, family: socket.AddressFamily = socket.AF_INET) -> None:
        native.choose(setting)
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.near, self.far = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self.near, self.far):
            each.bind((host, 0))
            each.setblocking(False)
        self.incoming = self.near.dup()
        self.sends = session(Policy.SSRC_ANY_OUTBOUND)
        self.came: list[tuple[object, ...]] = []
        self.media = Incoming(
            lambda packet, is_rtcp, now: self.came.append(("rtcp" if is_rtcp else "rtp", packet)),
            lambda now: self.came.append(("wake",)),
            self._framed,
        )
        self.channels: list[int] = []
        self.protocol: Any = SimpleNamespace(datagram_received=lambda *other: self.came.append(("other", *other)))
        self.media.intercept(self.protocol, session(Policy.SSRC_ANY_INBOUND), self.incoming)

    def _framed(self, frames: bytes, now: float, more: bool, error: Exception | None) -> None:
        assert error is None
        at = 0
        for packet in framed_packets(frames):
            self.channels.append(frames[at + 1])
            at += 4 + len(packet)
            self.came.append(("rtp", packet))
        if not more:
            self.came.append(("wake",))

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.far.sendto(datagram, self.near.getsockname())

    def wake(self) -> list[tuple[object, ...]]:
        """Read as ICE does, once; what came."""
        self.came = []
        data, sender = self.near.recvfrom(4096)
        self.protocol.datagram_received(data, sender)
        return self.came

    def read(self) -> list[tuple[object, ...]]:
        """Read as the event loop has compiled code do it, once; what came, BlockingIOError for nothing."""
        self.came = []
        assert self.media.arrivals is not None
        self.media.arrivals.read()
        if not self.came:
            raise BlockingIOError
        return self.came

    def close(self) -> None:
        for each in (self.near, self.far, self.incoming):
            each.close()


def datagrams(rng: random.Random, sends: Session, count: int, sequence: int) -> list[bytes]:
    """What a peer might send, and what nobody should."""
    found = []
    for number in range(count):
        packet = rtp(
            rng.choice((1, 2, 3)), sequence + number, rng.randbytes(rng.randrange(1300)), rng.choice((96, 111))
        )
        protected = sends.protect(packet)
        which = rng.randrange(20)
        if which == 0:
            protected = protected[:-1] + bytes((protected[-1] ^ 1,))
        elif which == 1:
            protected = protected[: rng.randrange(20)]
        elif which == 2:
            protected = sends.protect_rtcp(struct.pack("!BBHI", 0x80, 201, 1, 7))
        elif which == 3:
            protected = b"\x00\x01" + rng.randbytes(18)
        elif which == 4:
            protected = rng.choice((b"", b"\x80", b"\x16\xfe\xfd" + rng.randbytes(9), bytes(2 * MAX_DATAGRAM)))
        elif which == 5:
            found.append(protected)  # and once more
        elif which == 6:
            protected = b"\x80\x60" + rng.randbytes(2 * MAX_DATAGRAM)
        found.append(protected)
    return found


def cut(other: tuple[Any, ...]) -> bytes:
    """As much of it as the Python reads of all but the first."""
    data: bytes = other[1]
    return data[:MAX_DATAGRAM]


@compiled_only
@pytest.mark.parametrize("seed", range(40))
def test_both_hand_over_the_same(seed: int, ends: Any) -> None:
    found, sequence = [], 1
    for setting, way in (("python", "wake"), ("compiled", "wake"), ("compiled", "read")):
        rng, both, handed = random.Random(seed), ends(setting), []
        sequence = 1
        for _ in range(30):
            count = rng.choice((1, 1, 2, 5, 12))
            both.send(*datagrams(rng, both.sends, count, sequence))
            sequence += count
            while True:
                try:
                    handed += [(one[0], cut(one)) if one[0] == "other" else one for one in getattr(both, way)()]
                except BlockingIOError:
                    break
        found.append((handed, both.media.rejected))
    reference = found[0]
    for compiled in found[1:]:
        assert [one for one in compiled[0] if one != ("wake",)] == [one for one in reference[0] if one != ("wake",)]
        assert compiled[1] == reference[1]
    assert any(one[0] == "other" for one in reference[0])
    assert any(one[0] == "rtcp" for one in reference[0])
    assert reference[1]


@compiled_only
def test_a_wake_of_media_alone_comes_as_frames(ends: Any) -> None:
    compiled = ends("compiled")
    compiled.media.know([(1, 96, 0), (2, 111, 2)])
    packets = [rtp(1, 5), rtp(2, 9, payload_type=111), rtp(1, 6), rtp(1, 7, payload_type=97), rtp(3, 1)]
    compiled.send(*map(compiled.sends.protect, packets))
    assert compiled.wake() == [*(("rtp", packet) for packet in packets), ("wake",)]
    assert compiled.channels == [0, 2, 0, 255, 255]


@compiled_only
def test_something_else_comes_behind_the_media_with_its_sender(ends: Any) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        compiled = ends("compiled", family)
        compiled.send(compiled.sends.protect(rtp(1, 5)), b"\x00\x01STUN", compiled.sends.protect(rtp(1, 6)))
        other = ("other", b"\x00\x01STUN", compiled.far.getsockname())
        assert compiled.wake() == [("rtp", rtp(1, 5)), other, ("rtp", rtp(1, 6)), ("wake",)]


def test_what_is_no_media_is_left_to_ice(ends: Any) -> None:
    for setting in ("python", *(() if native.missing() else ("compiled",))):
        both = ends(setting)
        both.send(b"\x00\x01STUN", both.sends.protect(rtp(1, 5)))
        assert both.wake() == [("other", b"\x00\x01STUN", both.far.getsockname()), ("rtp", rtp(1, 5)), ("wake",)]


@compiled_only
@pytest.mark.parametrize("way", ["wake", "read"])
def test_a_wake_reads_no_more_than_its_bound(ends: Any, way: str) -> None:
    compiled = ends("compiled")
    compiled.send(*(compiled.sends.protect(rtp(1, number, b"")) for number in range(MAX_READS + 3)))
    assert len(getattr(compiled, way)()) == MAX_READS + 1
    assert len(getattr(compiled, way)()) == 3 + 1


@compiled_only
def test_large_packets_take_several_wakes(ends: Any) -> None:
    """What has been read lies in a buffer of a size; the rest stays in the socket."""
    compiled = ends("compiled")
    packets = [rtp(1, number, bytes(1300)) for number in range(40)]
    compiled.send(*map(compiled.sends.protect, packets))
    came = []
    for most in (30, 20):
        wake = compiled.wake()
        assert 1 < len(wake) < most
        came += wake[:-1]
    assert came == [("rtp", packet) for packet in packets]


@compiled_only
def test_of_a_closed_socket_nothing_more_is_read(ends: Any) -> None:
    compiled = ends("compiled")
    compiled.send(*(compiled.sends.protect(rtp(1, number)) for number in range(2)))
    compiled.incoming.close()
    assert compiled.wake() == [("rtp", rtp(1, 0)), ("wake",)]


@compiled_only
@pytest.mark.parametrize(
    "streams",
    [[(1, 96)], [(1, 128, 0)], [(1, 96, 255)], [(-1, 96, 0)], [(2**32, 96, 0)], [1], ((1, 96, 0),), [(1, 96, 0)] * 9],
)
def test_what_is_no_stream_is_refused(streams: Any, ends: Any) -> None:
    compiled = ends("compiled")
    compiled.media.know([(1, 96, 4)])
    with pytest.raises((ValueError, OverflowError)):
        compiled.media.know(streams)
    compiled.send(compiled.sends.protect(rtp(1, 5)))
    compiled.wake()
    assert compiled.channels == [4], "the streams before that are still known"


def test_addresses_are_told_as_sockets_tell_them() -> None:
    v4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 5000) + socket.inet_aton("192.0.2.7") + bytes(8)
    assert sender_of(v4) == ("192.0.2.7", 5000)
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 5000, 9)
    v6 = head + socket.inet_pton(socket.AF_INET6, "2001:db8::7") + struct.pack("=I", 0)
    assert sender_of(v6) == ("2001:db8::7", 5000, 9, 0)
    local = head + socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=I", socket.if_nametoindex("lo"))
    assert sender_of(local) == ("fe80::1%lo", 5000, 9, socket.if_nametoindex("lo"))
