"""A real SRTP association and a real UDP socket pair for tests of the sender."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

import pytest
from pylibsrtp import Policy, Session

from relay_worker import native
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.protector import SrtpProtector


class _LeftOver(logging.Handler):
    """Keeps what asyncio says of tasks that a test has left behind."""

    SAID: Final = ("Task was destroyed but it is pending", "Exception in callback StreamReaderProtocol")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.SAID):
            self.lines.append(record.getMessage())


_LEFT_OVER: Final = _LeftOver()
logging.getLogger("asyncio").addHandler(_LEFT_OVER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Whoever starts a server or a task ends it: else its end is a traceback somewhere among the dots."""
    result = yield
    left, _LEFT_OVER.lines = _LEFT_OVER.lines, []
    assert not left, "tasks are left over, of this test or of one before it: " + "; ".join(left)
    return result


class RtpPacket(NamedTuple):
    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    extension: bytes
    payload: bytes


def parse_rtp(data: bytes) -> RtpPacket:
    """RFC 3550 §5.1, written for tests alone."""
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    assert first & 0xEF == 0x80
    position, extension = 12, b""
    if first & 0x10:
        profile, words = struct.unpack_from("!HH", data, 12)
        assert profile == 0xBEDE
        extension = data[16 : 16 + 4 * words]
        position = 16 + 4 * words
    return RtpPacket(bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, extension, data[position:])


class CountedSocket(socket.socket):
    """Counts what is sent, and the system calls that takes."""

    sent = calls = 0

    def sendmsg(self, run: Any, *rest: Any) -> int:
        done = super().sendmsg(run, *rest)
        self.calls, self.sent = self.calls + 1, self.sent + len(run)
        return done

    def sendto(self, *packet: Any) -> int:
        done = super().sendto(*packet)
        self.calls, self.sent = self.calls + 1, self.sent + 1
        return done


class CountedSlots:
    """Counts the same of compiled slots, which do not call the socket."""

    def __init__(self, slots: native.Slots, near: CountedSocket) -> None:
        self._slots, self._near = slots, near
        self.put, self.packet = slots.put, slots.packet

    def send(self, fd: int, address: bytes, first: int, end: int) -> tuple[int, int, int, int]:
        sent, tried, calls, error = self._slots.send(fd, address, first, end)
        self._near.calls, self._near.sent = self._near.calls + calls, self._near.sent + sent - first
        return sent, tried, calls, error


class Wire:
    """Our end (`protector`, `path`) and the far one, which decrypts what arrives."""

    def __init__(self, *, gso: bool = True) -> None:
        key = os.urandom(28)
        profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
        outgoing = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        outgoing.allow_repeat_tx, outgoing.window_size = True, 1024
        self.protector = SrtpProtector(Session(outgoing))
        incoming = Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile)
        incoming.allow_repeat_tx, incoming.window_size = True, 1024
        self._incoming = Session(incoming)
        self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.bind(("127.0.0.1", 0))
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._far.settimeout(10)
        near = CountedSocket(socket.AF_INET, socket.SOCK_DGRAM)
        near.setblocking(False)
        self.near, self.far_address = near, self._far.getsockname()
        self._prepared = self.protector.prepared
        if self._prepared is not None:
            self._slots = self._prepared.slots
            self._prepared.slots = CountedSlots(self._slots, near)
        self.path = UdpPath(near, self.far_address, gso=gso)
        self._taken = 0

    def uncounted(self) -> None:
        """Let compiled code have its own slots, as whole wakes go by no others; `receive` waits for no packet then."""
        if self._prepared is not None:
            self._prepared.slots = self._slots

    def receive(self, *lose: int) -> tuple[list[RtpPacket], list[bytes]]:
        """Everything sent since the last call: RTP packets and plain RTCP compounds.

        Datagrams whose index is in `lose` never come; `raw` keeps them all, encrypted.
        """
        media, control = [], []
        self.raw: list[bytes] = []
        while self._taken < self.near.sent:
            data = self._far.recv(2048)
            self._taken += 1
            self.raw.append(data)
            if len(self.raw) - 1 in lose:
                continue
            if 192 <= data[1] <= 223:
                control.append(self._incoming.unprotect_rtcp(data))
            else:
                media.append(parse_rtp(self._incoming.unprotect(data)))
        return media, control

    def close(self) -> None:
        self.path.close()
        self._far.close()


@pytest.fixture(scope="module", params=["python", "compiled"])
def data_path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Once for each of the two data paths: for modules whose tests have to hold on both."""
    if request.param == "compiled" and native.missing():
        pytest.skip(native.missing())
    native.choose(request.param)
    yield request.param
    native.choose("auto")


@pytest.fixture(params=[True, False], ids=["gso", "plain"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    made = Wire(gso=request.param)
    yield made
    made.close()
