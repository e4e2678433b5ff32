"""Prepared packets: what compiled code sends is what `UdpPath.send` would, also where the kernel refuses."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pylibsrtp import Policy, Session

from relay_worker import native
from relay_worker.webrtc.gso import TRY_AGAIN_AFTER, UdpPath
from relay_worker.webrtc.prepared import PreparedPackets, packed_address
from relay_worker.webrtc.protector import SLOT_SIZE, SLOTS, SrtpProtector
from tests.unit.webrtc.test_gso import FakeSocket


class FakeSlots:
    """Refuses as a kernel would: `errors` are of the calls, in order. Each call is for two packets, or what is left."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[int, int]] = []

    def packet(self, slot: int) -> tuple[int, int]:
        return 100 + slot, 0

    def put(self, *arguments: Any) -> tuple[int, int, int]:
        raise AssertionError("nothing is written here")

    def send(self, fd: int, address: bytes, first: int, end: int) -> tuple[int, int, int, int]:
        while first < end:
            behind = min(first + 2, end)
            self.calls.append((first, behind))
            if error := self.errors.pop(0) if self.errors else 0:
                return first, behind, 1, error
            first = behind
        return first, first, 1, 0


class Socket(FakeSocket):
    family = socket.AF_INET

    def fileno(self) -> int:
        return 0


def sent(fake: Socket, slots: FakeSlots, count: int, *, gso: bool = True, earlier: bool = False) -> UdpPath:
    """A path through which `count` packets went; `earlier`: every error is one of an earlier packet."""
    path = UdpPath(fake, ("192.0.2.1", 9), gso=gso, was_earlier=lambda: earlier)  # type: ignore[arg-type]
    views = tuple(memoryview(bytes(1000)) for _ in range(count))
    path.send_prepared(PreparedPackets(slots, views), count)
    return path


def test_a_failed_run_is_dropped_and_the_next_goes_on() -> None:
    slots, fake = FakeSlots(0, errno.ENETUNREACH, 0, errno.ENOBUFS), Socket()
    path = sent(fake, slots, 7)
    assert slots.calls == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert (fake.runs, path.drops, path.gso, path.gso_refusals) == ([], 3, True, 0)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE])
def test_a_kernel_that_cannot_segment_gets_the_same_packets_one_by_one(error: int) -> None:
    slots, fake = FakeSlots(0, error), Socket()
    path = sent(fake, slots, 7)
    assert slots.calls == [(0, 2), (2, 4)]
    assert fake.runs == [[102], [103], [104], [105], [106]]
    assert (path.drops, path.gso, path.gso_refusals) == (0, False, 1)
    assert path._plain_left == (TRY_AGAIN_AFTER if error == errno.EMSGSIZE else 0)


def test_an_error_of_an_earlier_packet_costs_none_of_these() -> None:
    slots, fake = FakeSlots(0, errno.ECONNREFUSED, 0, errno.ECONNREFUSED), Socket()
    path = sent(fake, slots, 7, earlier=True)
    assert slots.calls == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert fake.runs == [[102], [103], [106]]
    assert (path.drops, path.gso, path.gso_refusals) == (0, True, 0)


def test_a_path_that_is_redirected_sends_to_the_new_address() -> None:
    first, second = Socket(), Socket()
    path = UdpPath(first, ("192.0.2.1", 9))  # type: ignore[arg-type]
    packed = []

    class Slots(FakeSlots):
        def send(self, fd: int, address: bytes, first: int, end: int) -> tuple[int, int, int, int]:
            packed.append(address)
            return super().send(fd, address, first, end)

    packets = PreparedPackets(Slots(), (memoryview(bytes(1000)),))
    path.send_prepared(packets, 1)
    path.redirect(second, ("192.0.2.2", 9))  # type: ignore[arg-type]
    path.send_prepared(packets, 1)
    assert packed == [packed_address(socket.AF_INET, (f"192.0.2.{host}", 9)) for host in (1, 2)]


def test_without_segmentation_they_go_the_plain_way() -> None:
    slots, fake = FakeSlots(), Socket()
    sent(fake, slots, 3, gso=False)
    assert (slots.calls, fake.runs) == ([], [[100], [101], [102]])


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
def test_the_kernel_reads_the_packed_address_as_python_writes_it(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as far:
        far.bind((host, 0))
        size = 28 if family == socket.AF_INET6 else 16
        packed = packed_address(family, far.getsockname())
        assert packed is not None
        assert len(packed) == size


@pytest.mark.parametrize(
    "address", [("camera.example", 9), ("fe80::1%eth0", 9, 0, 1), ("::1", 70000), ("::1", 9, 1 << 32, 0), None]
)
def test_an_address_that_is_no_number_is_left_to_python(address: Any) -> None:
    assert packed_address(socket.AF_INET6, address) is None
    assert packed_address(socket.AF_UNIX, "/tmp/x") is None


@pytest.fixture
def compiled() -> Iterator[native.Compiled]:
    if native.missing():
        pytest.skip(native.missing())
    native.choose("compiled")
    found = native.compiled()
    assert found is not None
    yield found
    native.choose("auto")


def protector() -> SrtpProtector:
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    return SrtpProtector(Session(Policy(key=bytes(28), ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)))


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize(
    ("sizes", "calls"),
    [([5], 1), ([5, 5, 5], 1), ([5, 5, 3, 5, 5], 2), ([3, 5, 5, 4], 2), ([5, 3, 2, 1], 2), ([1200] * SLOTS, 1)],
)
def test_runs_leave_over_a_real_socket(
    compiled: native.Compiled, family: socket.AddressFamily, host: str, sizes: list[int], calls: int
) -> None:
    """The same numbers of calls as in `test_gso.test_runs`, and every datagram as it was protected."""
    with socket.socket(family, socket.SOCK_DGRAM) as far, socket.socket(family, socket.SOCK_DGRAM) as near:
        far.bind((host, 0))
        far.settimeout(30)
        prepared = protector().prepared
        assert prepared is not None
        payloads = [(bytes([index]) * size, False) for index, size in enumerate(sizes)]
        done, slot, refused = prepared.slots.put(payloads, 0, 0, 106, 65535, 7, 0, 8, 2, 9, 3, 65535)
        assert (done, slot, refused) == (len(sizes), len(sizes), 0)
        address = packed_address(family, far.getsockname())
        assert address is not None
        assert prepared.slots.send(near.fileno(), address, 0, slot) == (slot, slot, calls, 0)
        assert [far.recv(2048) for _ in sizes] == [bytes(view) for view in prepared.views(0, slot)]
        assert [prepared.slots.packet(each)[1] for each in range(slot)] == [(65535 + n) & 0xFFFF for n in range(slot)]


def test_a_refusal_says_which_call_it_was(compiled: native.Compiled) -> None:
    prepared = protector().prepared
    assert prepared is not None
    prepared.slots.put([(b"x" * size, False) for size in (5, 5, 5, 9)], 0, 0, 106, 1, 7, 0, 8, 0, 0, 0, 0)
    assert prepared.slots.send(-1, bytes(16), 0, 4) == (0, 3, 1, errno.EBADF)


def test_what_makes_no_sense_raises_and_writes_nothing(compiled: native.Compiled) -> None:
    """Nothing that the relay would pass; the compiled code believes none of it all the same."""
    made = protector()
    assert made.prepared is not None
    slots, plain = made.prepared.slots, [(b"x", False)]
    numbers = (106, 1, 7, 0, 8, 0, 0, 0, 0)
    before = bytes(made.buffer)
    for call, error in (
        (lambda: slots.put(plain, -1, 0, *numbers), ValueError),
        (lambda: slots.put(plain, 0, -1, *numbers), ValueError),
        (lambda: slots.put(plain, 0, 0, 128, *numbers[1:]), ValueError),
        (lambda: slots.put(plain, 0, 0, *numbers[:5], 15, *numbers[6:]), ValueError),
        (lambda: slots.put(plain, 0, 0, 106, 1, 1 << 32, *numbers[3:]), OverflowError),
        (lambda: slots.put(plain, 0, 0, 106, -1, *numbers[2:]), OverflowError),
        (lambda: slots.put(tuple(plain), 0, 0, *numbers), TypeError),  # type: ignore[arg-type]
        (lambda: slots.put(plain, 0), TypeError),  # type: ignore[call-arg]
        (lambda: slots.packet(SLOTS), IndexError),
        (lambda: slots.packet(-1), IndexError),
        (lambda: slots.send(0, bytes(200), 0, 1), ValueError),
        (lambda: slots.send(0, bytes(16), -1, 1), ValueError),
        (lambda: slots.send(0, bytes(16), 0, SLOTS + 1), ValueError),
        (lambda: compiled.Slots(made.buffer, 8, 16, 1, 1, None), ValueError),
        (lambda: compiled.Slots(made.buffer, SLOT_SIZE, 16, 0, 1, None), ValueError),
        (lambda: compiled.Slots(made.buffer.toreadonly(), SLOT_SIZE, 16, 1, 1, None), BufferError),
        (lambda: compiled.split_frames(b"", -1, {}), ValueError),
        (lambda: compiled.split_frames("", 0, {}), TypeError),  # type: ignore[arg-type]
        (lambda: compiled.take_plain([], 0, 0, -1, 0, 0, []), OverflowError),
        (lambda: compiled.take_plain((), 0, 0, 0, 0, 0, []), TypeError),  # type: ignore[arg-type]
        (lambda: compiled.pass_fragments((), 0, 0, True), TypeError),  # type: ignore[arg-type]
    ):
        with pytest.raises(error):
            call()
    assert slots.put(plain, 1, 0, *numbers) == (1, 0, 0), "nothing is behind the end"
    assert slots.put(plain, 0, SLOTS, *numbers) == (0, SLOTS, 0), "all slots are full"
    assert slots.put([(b"x" * SLOT_SIZE, False)], 0, 0, *numbers) == (0, 0, 0), "too long"
    assert compiled.split_frames(b"$\0\0\1x", 99, {0: []}) == 99
    assert compiled.take_plain([b"x"], -1, 0, 0, 0, -1, []) == (-1, 0)
    assert compiled.pass_fragments([(b"x", True)], 7, 0, True) == (7, 0)
    assert compiled.measure([(b"x", 1)], 9) == -1  # type: ignore[list-item]
    assert bytes(made.buffer) == before
