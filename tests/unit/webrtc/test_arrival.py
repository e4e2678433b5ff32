"""How long what is read had waited: by the kernel's stamp, for both kinds of sockets that RTCP is read from."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time

import pytest
import uvloop

from relay_worker.webrtc.arrival import waited
from tests.fixtures.two_ends import TwoEnds

BLOCKED = 0.3
"""Seconds for which the event loop does nothing else."""


def test_it_is_what_passed_from_arriving_to_being_read() -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as ours,
        socket.socket(type=socket.SOCK_DGRAM) as far,
    ):
        ours.bind(("127.0.0.1", 0))
        assert waited(ours) == 0.0, "nothing was read yet"
        for attempt in itertools.count():
            began = time.monotonic()
            for said in (b"first", b"second"):
                far.sendto(said, ours.getsockname())
                time.sleep(BLOCKED / 2)
            ours.recvfrom(100)
            if (first := waited(ours)) >= BLOCKED - 0.01:
                break
            # The kernel begins to note when packets come a moment after it was first asked.
            ours.recvfrom(100)
            assert attempt < 20, first
        assert first <= time.monotonic() - began + 0.01
        ours.recvfrom(100)
        assert BLOCKED / 2 - 0.01 <= waited(ours) < first, "each has its own"
    assert waited(None) == waited(ours) == 0.0


def test_a_clock_that_was_set_is_not_taken_for_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        waited(ours)
        ours.sendto(b"x", ours.getsockname())
        ours.recvfrom(100)
        now = time.time()
        for step in (-3600.0, 3600.0):
            monkeypatch.setattr(time, "time", lambda step=step: now + step)
            assert waited(ours) == 0.0


def hold() -> None:
    time.sleep(BLOCKED)


def test_a_packet_that_came_while_the_loop_stood_still_had_waited() -> None:
    """On the loop that workers run, which reads datagrams by itself."""

    async def stand_still() -> None:
        ends, found = TwoEnds(), list[float]()
        await ends.connect()
        took = ends.ours.media.on_packet

        def on_packet(packet: bytes, is_rtcp: bool, now: float) -> None:
            found.append(waited(ends.ours.media.reading))
            took(packet, is_rtcp, now)

        ends.ours.media.on_packet = on_packet
        try:
            for number in itertools.count():
                sent = asyncio.ensure_future(ends.report(number))
                await asyncio.sleep(0)
                hold()
                await sent
                if found[-1] >= BLOCKED - 0.05:
                    break
                assert number < 20, found
            held, before = found[-1], len(found)
            await ends.report(1000)
            assert min(found[before:]) < held, "what finds the loop idle has not"
        finally:
            await ends.close()

    uvloop.run(stand_still())
