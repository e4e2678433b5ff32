"""What happens for each picture or packet leaves nothing behind, not even for the interpreter to use again.

`_replace` of a named tuple makes a tuple of an iterator, which CPython begins with ten items and cuts: it is freed to
another list than it came from, and that keeps 2000 of each length. In a worker it was one for each keyframe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from relay_worker.publish.pacer import Pacer
from relay_worker.publish.small_layer import SmallLayer
from relay_worker.rtp.packet import RtpView
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtp.reorder import ReorderBuffer
from tests.fixtures.pacing import hand_in

SECONDS = 300


def keyframes_that_are_spread() -> None:
    pacer = Pacer()
    for second in range(SECONDS):
        hand_in(pacer, "video", [(b"\x67" + bytes(1199), False)] * 60, float(second), float(second))
        for step in range(1, 20):
            pacer.pop(second + step / 100)
        assert pacer.next_deadline() is None, "all has left"


def small_pictures_of_several_packets() -> None:
    layer = SmallLayer(Pacer())
    for second in range(SECONDS):
        layer.add([(bytes(1200), False)] * 6, float(second), float(second), keyframe=True)
        while layer.pop(second + 0.5):
            pass


def packets_behind_losses() -> None:
    receiver = RtpReceiver(90_000, 96)
    for number in range(SECONDS):
        packet = bytes((0x80, 96)) + (2 * number).to_bytes(2, "big") + (3000 * number).to_bytes(4, "big") + bytes(20)
        receiver.receive_packet(packet, number / 30)
    assert receiver.lost > 0


def packets_out_of_order() -> None:
    buffer = ReorderBuffer()
    for number in range(0, 2 * SECONDS, 2):
        for sequence in (number + 1, number):
            buffer.receive_view(RtpView(sequence, 0, False, 96, 1, b"payload"), 0.0)


@pytest.mark.parametrize(
    "work", [keyframes_that_are_spread, small_pictures_of_several_packets, packets_behind_losses, packets_out_of_order]
)
def test_blocks_of_memory_stay_as_many_as_they_are(work: Callable[[], None]) -> None:
    work()
    before = sys.getallocatedblocks()
    work()
    assert sys.getallocatedblocks() - before < SECONDS / 5
