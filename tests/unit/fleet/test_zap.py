"""Which connections are accepted: those of living workers, by key or, from an earlier release, by process."""

from __future__ import annotations

import os

import pytest
import zmq
from zmq.utils import z85

from relay_common.clock import ManualClock
from relay_common.proc import process_ref, ref_of, start_ticks
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.refusals import Refusals
from relay_supervisor.fleet.zap import ZapHandler, peer_pid
from relay_supervisor.http.metrics import BUS_REFUSALS

ME = os.getpid()


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.keyring, self.refusals = Keyring(), Refusals(self.clock)
        self.keyring.open()
        self.handler = ZapHandler(self.keyring, self.refusals, ref_of)

    def status(self, mechanism: bytes, *credentials: bytes, address: bytes = b"localhost:0:0:7") -> tuple[bytes, bytes]:
        """The status and the user id of the answer."""
        request = [b"peer", b"", b"1.0", b"1", b"workers", address, b"", mechanism, *credentials]
        answer = self.handler.answer(request)
        assert answer is not None
        assert answer[:4] == [b"peer", b"", b"1.0", b"1"]
        assert len(answer) == 8
        return answer[4], answer[6]

    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.refusals.counters().items() if count}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_living_workers_key_is_accepted_and_is_its_user_id(rig: Rig) -> None:
    public = rig.keyring.issue("cam.1", "cam").public
    assert rig.status(b"CURVE", z85.decode(public)) == (b"200", public.encode())
    rig.keyring.remove("cam.1")
    assert rig.status(b"CURVE", z85.decode(public)) == (b"400", b"")


def test_any_other_key_is_refused_counted_and_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.keyring.issue("cam.1", "cam")
    stranger, _ = zmq.curve_keypair()
    for _ in range(3):
        assert rig.status(b"CURVE", z85.decode(stranger))[0] == b"400"
    assert rig.counted() == {"refused_stranger": 3}
    assert caplog.text.count("the bus refused a connection whose key no living worker has (pid 7)") == 1


async def test_a_flood_says_a_bounded_number_of_lines_and_hides_no_later_stranger(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = z85.decode(zmq.curve_keypair()[0])
    for pid in range(1, 201):
        rig.status(b"CURVE", stranger, address=b"localhost:0:0:%d" % pid)
    assert (rig.counted(), len(caplog.records)) == ({"refused_stranger": 200}, 50)
    caplog.clear()
    await rig.clock.advance(599)
    rig.status(b"CURVE", stranger, address=b"localhost:0:0:900")
    assert caplog.records == []
    await rig.clock.advance(1)
    for pid in (1, 1, 900):
        rig.status(b"CURVE", stranger, address=b"localhost:0:0:%d" % pid)
    assert [record.getMessage().rpartition(" (")[2] for record in caplog.records] == ["pid 1)", "pid 900)"]


@pytest.mark.parametrize("credentials", [(), (b"",), (bytes(31),), (bytes(33),), (bytes(32), bytes(32))])
def test_what_is_no_key_is_refused(rig: Rig, credentials: tuple[bytes, ...]) -> None:
    assert rig.status(b"CURVE", *credentials)[0] == b"400"
    assert rig.counted() == {"refused_stranger": 1}


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"GSSAPI", b""])
def test_without_a_key_only_a_process_of_the_state_database_is_accepted(rig: Rig, mechanism: bytes) -> None:
    rig.keyring.admit_process("cam.1", "cam", ref_of(ME))
    mine, others = b"localhost:0:0:%d" % ME, b"localhost:0:0:%d" % os.getppid()
    accepted = rig.status(mechanism, address=mine)[0] == b"200"
    assert accepted is (mechanism == b"NULL")
    for address in (others, b"", b"127.0.0.1", b"localhost:0:0:0"):
        assert rig.status(mechanism, address=address)[0] == b"400"
    assert rig.counted() == {"refused_unknown_process": 4 + (not accepted)}


def test_a_process_with_a_pid_that_is_used_again_is_another_one(rig: Rig) -> None:
    rig.keyring.admit_process("cam.1", "cam", process_ref(ME, start_ticks(ME) - 1))
    assert rig.status(b"NULL", address=b"localhost:0:0:%d" % ME)[0] == b"400"


@pytest.mark.parametrize("request_", [[], [b"peer", b""], [b"p", b"", b"2.0", b"1", b"w", b"", b"", b"NULL"]])
def test_what_is_no_request_is_not_answered(rig: Rig, request_: list[bytes]) -> None:
    assert rig.handler.answer(request_) is None


@pytest.mark.parametrize(
    ("address", "pid"),
    [
        ("localhost:0:0:27912", 27912),
        (":1000:1000:5", 5),
        ("10.1.2.3", 0),
        ("fe80::1:2:3:4", 0),
        ("1:2:3:4:5:6:7:8", 0),
        ("localhost:0:0:", 0),
        ("", 0),
    ],
)
def test_the_pid_is_read_from_addresses_of_unix_sockets_only(address: str, pid: int) -> None:
    assert peer_pid(address) == pid


def test_what_a_hostile_peer_can_have_said_is_bounded(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for pid in range(1, 1000):
        rig.status(b"CURVE", bytes(32), address=b"localhost:0:0:%d" % pid)
    assert rig.counted() == {"refused_stranger": 999}
    assert caplog.text.count("the bus refused") == 50


def test_the_metric_has_every_kind() -> None:
    assert {f"refused_{kind}" for kind in BUS_REFUSALS} == Rig().refusals.counters().keys()
