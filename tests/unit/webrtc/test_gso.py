"""Datagrams out: what is one system call, what falls back, what is dropped."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from relay_worker.webrtc.gso import TRY_AGAIN_AFTER, RelayPath, UdpPath

pytestmark = pytest.mark.usefixtures("data_path")


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytes([index % 256]) * size) for index, size in enumerate(sizes)]


class FakeSocket:
    """Records calls; stands in only where the kernel's refusal cannot be provoked."""

    def __init__(self, gso_error: int = 0, error: int = 0) -> None:
        self.runs: list[list[int]] = []
        self._gso_error, self._error = gso_error, error

    def sendmsg(self, run: list[memoryview], control: list[Any], flags: int, address: Any) -> int:
        if self._gso_error:
            raise OSError(self._gso_error, "refused")
        assert len(control) == 1
        self.runs.append([len(v) for v in run])
        return sum(len(v) for v in run)

    def sendto(self, packet: memoryview, address: Any) -> int:
        if self._error:
            raise OSError(self._error, "refused")
        self.runs.append([len(packet)])
        return len(packet)


def path(fake: FakeSocket, *, gso: bool = True) -> UdpPath:
    return UdpPath(fake, ("192.0.2.1", 9), gso=gso)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([5], [[5]]),
        ([5, 5, 5], [[5, 5, 5]]),
        ([5, 5, 3, 5, 5], [[5, 5, 3], [5, 5]]),
        ([3, 5, 5, 4], [[3], [5, 5, 4]]),
        ([5, 3, 2, 1], [[5, 3], [2, 1]]),
        ([1000] * 70, [[1000] * 64, [1000] * 6]),
        ([1500] * 60, [[1500] * 43, [1500] * 17]),
    ],
)
def test_runs(sizes: list[int], runs: list[list[int]]) -> None:
    fake = FakeSocket()
    out = path(fake)
    out.send(views(*sizes))
    assert fake.runs == runs
    assert out.drops == 0


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP])
def test_a_kernel_without_gso_is_noticed_once_and_nothing_is_lost(error: int) -> None:
    fake = FakeSocket(gso_error=error)
    out = path(fake)
    out.send(views(5, 5, 5, 7, 7))
    out.send(views(5, 5))
    assert fake.runs == [[5], [5], [5], [7], [7], [5], [5]]
    assert (out.drops, out.gso, out.gso_refusals) == (0, False, 1)
    for _ in range(3 * TRY_AGAIN_AFTER // 8):
        out.send(views(*[5] * 8))
    assert (out.gso, out.gso_refusals) == (False, 1), "not tried again"


def test_a_segment_that_does_not_fit_the_route_is_sent_plainly_and_segmentation_tried_again() -> None:
    fake = FakeSocket(gso_error=errno.EMSGSIZE)
    out = path(fake)
    out.send(views(5, 5, 5))
    assert (fake.runs, out.gso, out.gso_refusals) == ([[5], [5], [5]], False, 1)
    for _ in range(TRY_AGAIN_AFTER // 8):
        assert not out.gso
        out.send(views(*[5] * 8))
    assert out.gso
    out.send(views(5, 5))
    assert (out.gso, out.gso_refusals) == (False, 2), "the route is as narrow as before"
    for _ in range(2 * TRY_AGAIN_AFTER // 8):
        assert not out.gso, "twice as long"
        out.send(views(*[5] * 8))
    fake._gso_error = 0
    fake.runs.clear()
    out.send(views(5, 5, 5))
    assert (fake.runs, out.gso, out.gso_refusals, out.drops) == ([[5, 5, 5]], True, 2, 0)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_what_the_socket_does_not_take_is_dropped_and_counted(error: int) -> None:
    fake = FakeSocket(gso_error=error, error=error)
    out = path(fake)
    out.send(views(5, 5, 5, 7))
    assert (fake.runs, out.drops) == ([], 4)
    assert out.gso


def test_a_full_socket_never_blocks() -> None:
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    out = UdpPath(near, ("127.0.0.1", 9))
    near.close()
    out.send(views(5, 5))
    assert out.drops == 2


def test_a_relay_gets_each_packet_by_itself() -> None:
    sent: list[bytes] = []
    out = RelayPath(sent.append)
    out.send(views(3, 3, 2))
    assert sent == [b"\0\0\0", b"\1\1\1", b"\2\2"]
