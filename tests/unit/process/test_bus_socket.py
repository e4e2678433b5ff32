"""A socket of the bus on the loop: nothing that came stays unread, whoever took notice of it first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
import zmq

from relay_worker.process import bus_socket
from relay_worker.process.bus_socket import AT_ONCE, BusSocket


class Pair:
    """A bus socket and its peer in the same process: what one has sent the other has at once."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.here, self.peer = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        self.peer.bind("inproc://bus")
        self.here.connect("inproc://bus")
        self.came = list[bytes]()
        self.subject = BusSocket(self.here, self.came.append)

    async def has(self, count: int) -> None:
        async with asyncio.timeout(20.0):
            while len(self.came) < count:
                await asyncio.sleep(0.01)
        assert len(self.came) == count


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.subject.close()
    made.context.destroy(linger=0)


async def test_what_came_before_and_behind_the_start_is_received_once(pair: Pair) -> None:
    pair.peer.send(b"before")
    pair.here.get(zmq.EVENTS)  # the descriptor says nothing of it any more
    pair.subject.start()
    pair.subject.start()
    await pair.has(1)
    for number in range(3):
        pair.peer.send(b"%d" % number)
        await pair.has(number + 2)
    assert pair.came == [b"before", b"0", b"1", b"2"]


async def test_a_message_that_a_send_takes_notice_of_is_received(pair: Pair) -> None:
    pair.subject.start()
    await asyncio.sleep(0.05)
    for number in range(20):
        pair.peer.send(b"to you")
        time.sleep(0.005)  # while the loop does not look  # noqa: ASYNC251
        assert pair.subject.send(b"to the peer")
        await pair.has(number + 1)


async def test_a_loop_has_its_turn_between_many_messages(pair: Pair) -> None:
    for _ in range(3 * AT_ONCE + 1):
        pair.peer.send(b"x")
    pair.subject.start()
    seen = list[int]()
    while len(pair.came) <= 3 * AT_ONCE:
        await asyncio.sleep(0)
        seen.append(len(pair.came))
    assert {AT_ONCE, 2 * AT_ONCE} <= set(seen)


async def test_nothing_is_received_once_it_is_closed(pair: Pair) -> None:
    def closing(data: bytes) -> None:
        pair.came.append(data)
        pair.subject.close()

    pair.subject = BusSocket(pair.here, closing)
    for _ in range(5):
        pair.peer.send(b"stop")
    pair.subject.start()
    await pair.has(1)
    await asyncio.sleep(0.05)
    assert pair.came == [b"stop"]


async def test_nobody_there_is_said_and_waited_for(pair: Pair) -> None:
    lone = pair.context.socket(zmq.DEALER)
    lone.setsockopt(zmq.IMMEDIATE, 1)
    subject = BusSocket(lone, pair.came.append)
    assert not subject.send(b"x")
    waiting = asyncio.create_task(subject.until_writable(0.01))
    await waiting
    waiting = asyncio.create_task(subject.until_writable(60.0))
    await asyncio.sleep(0.01)
    lone.connect("inproc://later")
    router = pair.context.socket(zmq.ROUTER)
    router.bind("inproc://later")
    time.sleep(0.005)  # noqa: ASYNC251
    subject.send(b"y")  # takes notice
    async with asyncio.timeout(20.0):
        await waiting
    assert subject.send(b"z")
    subject.close()


async def test_a_failure_to_receive_is_tried_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(bus_socket, "_RECEIVE_AGAIN", 0.05)
    failures = iter([True, True, False])
    receive = pair.here.recv

    def recv(flags: int) -> bytes:
        if next(failures):
            raise zmq.ZMQError(zmq.EFSM)
        return receive(flags)

    monkeypatch.setattr(pair.here, "recv", recv)
    pair.peer.send(b"at last")
    pair.subject.start()
    await pair.has(1)
    assert caplog.text.count("receiving from the supervisor failed") == 2
