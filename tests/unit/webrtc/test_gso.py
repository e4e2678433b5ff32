"""Datagrams out: what is one system call, what falls back, what is dropped."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from relay_worker.webrtc.gso import RelayPath, UdpPath


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
    assert (out.packets, out.bytes, out.drops) == (len(sizes), sum(sizes), 0)
    assert out.system_calls == len(runs)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP])
def test_a_kernel_without_gso_is_noticed_once_and_nothing_is_lost(error: int) -> None:
    fake = FakeSocket(gso_error=error)
    out = path(fake)
    out.send(views(5, 5, 5, 7, 7))
    out.send(views(5, 5))
    assert fake.runs == [[5], [5], [5], [7], [7], [5], [5]]
    assert (out.packets, out.drops, out.gso) == (7, 0, False)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_what_the_socket_does_not_take_is_dropped_and_counted(error: int) -> None:
    out = path(FakeSocket(gso_error=error, error=error))
    out.send(views(5, 5, 5, 7))
    assert (out.packets, out.drops) == (0, 4)
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
    assert (out.packets, out.bytes) == (3, 8)
