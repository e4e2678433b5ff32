from __future__ import annotations

import random
import struct

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import example, given
from hypothesis import strategies as st

from relay_worker.rtp.packet import RtpError, RtpView, join_runs, parse_rtp
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtp.reorder import ReorderBuffer
from tests.fixtures.attributes import attributes

pytestmark = pytest.mark.usefixtures("data_path")


def packet(sequence: int, timestamp: int = 0, ssrc: int = 1, payload: bytes = b"x", pt: int = 96) -> bytes:
    return struct.pack("!BBHII", 0x80, pt, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def feed(receiver: RtpReceiver, *sequences: int) -> list[tuple[int, int]]:
    return [(view.sequence, view.lost) for s in sequences for view in receiver.receive_packet(packet(s), 0.0)]


# Parsing


def test_plain_packet() -> None:
    view = parse_rtp(struct.pack("!BBHII", 0x80, 0xE0, 5, 6, 7) + b"body")
    assert view == RtpView(5, 6, True, 96, 7, b"body")


@given(
    st.integers(0, 15), st.booleans(), st.lists(st.integers(0, 2**32 - 1), max_size=15), st.binary(), st.integers(0, 9)
)
def test_header_as_aiortc_writes_it(sequence: int, marker: bool, csrc: list[int], payload: bytes, padding: int) -> None:
    theirs = RtpPacket(payload_type=100, marker=int(marker), sequence_number=sequence, timestamp=9, ssrc=8)
    theirs.csrc, theirs.payload, theirs.padding_size = csrc, payload, padding
    assert parse_rtp(theirs.serialize()) == RtpView(sequence, 9, marker, 100, 8, payload)


def test_extension_is_skipped() -> None:
    data = struct.pack("!BBHIIHH", 0x90, 96, 1, 2, 3, 0xBEDE, 2) + b"extended" + b"body"
    assert parse_rtp(data).payload == b"body"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\x40" + bytes(20),
        b"\x8f" + bytes(20),
        b"\x90" + bytes(12),
        b"\x90" + bytes(13) + b"\xff\xff",
        b"\xa0" + bytes(11),
        b"\xa0" + bytes(12) + b"\x09",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(RtpError):
        parse_rtp(data)
    receiver = RtpReceiver(90000)
    assert receiver.receive_packet(data, 0.0) == []
    assert receiver.malformed == 1


def test_padding_of_no_octets_is_none() -> None:
    data = b"\xa0\x60" + bytes(10) + b"body\x00"
    assert parse_rtp(data).payload == b"body\x00"
    receiver = RtpReceiver(90000)
    assert [view.payload for view in receiver.receive_packet(data, 0.0)] == [b"body\x00"]
    assert receiver.malformed == 0


@pytest.mark.parametrize("in_order", [True, False])
def test_a_malformed_packet_is_no_loss(in_order: bool) -> None:
    receiver = RtpReceiver(90000, in_order=in_order)
    damaged = b"\xa0" + packet(2)[1:] + b"\xff"
    got = [view for data in (packet(1), damaged, packet(3)) for view in receiver.receive_packet(data, 0.0)]
    assert [(view.sequence, view.lost, view.payload) for view in got] == [(1, 0, b"x"), (2, 0, b""), (3, 0, b"x")]
    assert (receiver.malformed, receiver.lost, receiver.packets) == (1, 0, 3)
    # Of another source, or before the first packet, nothing vouches for its numbers.
    assert receiver.receive_packet(b"\xa0" + packet(9, ssrc=5)[1:] + b"\xff", 0.0) == []
    assert (receiver.malformed, receiver.ssrc) == (2, 1)


@example([bytes(11)], True)
@given(st.lists(st.binary(max_size=40), max_size=20), st.booleans())
def test_takes_any_bytes(packets: list[bytes], in_order: bool) -> None:
    receiver = RtpReceiver(90000, in_order=in_order)
    for now, data in enumerate(packets):
        receiver.receive_packet(data, now)
        for first in (0x80, 0x90, 0xB3):  # plain; with extension; with everything
            receiver.receive_packet(bytes((first,)) + data, now)
            try:
                parse_rtp(bytes((first,)) + data)
            except RtpError:
                pass
        receiver.receiver_report(now)


# Order and loss


def test_in_order_through_the_wrap() -> None:
    receiver = RtpReceiver(90000)
    assert feed(receiver, 65534, 65535, 0, 1) == [(65534, 0), (65535, 0), (0, 0), (1, 0)]
    block = receiver.receiver_report(0.0)
    assert block is not None
    assert block.highest_sequence == 0x10001
    assert (receiver.lost, block.lost, block.fraction_lost) == (0, 0, 0)


def test_loss_is_reported_with_the_packet_after_it() -> None:
    receiver = RtpReceiver(90000)
    assert feed(receiver, 65530, 2, 3) == [(65530, 0), (2, 7), (3, 0)]
    block = receiver.receiver_report(0.0)
    assert block is not None
    assert (receiver.lost, block.lost, block.fraction_lost) == (7, 7, 7 * 256 // 10)
    feed(receiver, 4, 5)
    block = receiver.receiver_report(0.0)
    assert block is not None
    assert (block.lost, block.fraction_lost) == (7, 0)


def test_duplicates_and_late_packets() -> None:
    receiver = RtpReceiver(90000)
    assert feed(receiver, 10, 13, 13, 11, 11, 14) == [(10, 0), (13, 2), (14, 0)]
    assert (receiver.duplicates, receiver.reordered, receiver.lost) == (2, 1, 1)
    receiver = RtpReceiver(90000, in_order=False)
    assert feed(receiver, 10, 13, 11, 11, 14) == [(10, 0), (13, 2), (11, 0), (14, 0)]


def test_a_stray_packet_cannot_restart_the_stream() -> None:
    receiver = RtpReceiver(90000)
    assert feed(receiver, 10, 30000, 11) == [(10, 0), (11, 0)]
    assert receiver.receive_packet(packet(12, ssrc=2), 0.0) == []
    assert feed(receiver, 12) == [(12, 0)]
    assert (receiver.unexpected, receiver.restarts) == (2, 0)


def test_a_new_source_takes_over_with_its_second_packet() -> None:
    receiver = RtpReceiver(90000)
    feed(receiver, 10)
    assert receiver.receive_packet(packet(500, ssrc=2), 0.0) == []
    first, second = receiver.receive_packet(packet(501, ssrc=2), 0.0)
    assert (first.sequence, first.ssrc, first.lost) == (500, 2, 1)
    assert (second.sequence, second.ssrc, second.lost) == (501, 2, 0)
    assert receiver.ssrc == 2
    assert receiver.restarts == 1


def test_a_restarted_sequence_loses_nothing_over_a_stream() -> None:
    receiver = RtpReceiver(90000)
    assert feed(receiver, 10, 30000, 30001, 30002) == [(10, 0), (30000, 0), (30001, 0), (30002, 0)]
    assert (receiver.lost, receiver.packets, receiver.restarts) == (0, 4, 1)
    block = receiver.receiver_report(0.0)
    assert block is not None
    assert (block.lost, block.highest_sequence) == (0, 30002)


def test_a_sequence_restarted_over_datagrams_may_have_lost_something() -> None:
    receiver = RtpReceiver(90000, in_order=False)
    assert feed(receiver, 10, 30000, 30001) == [(10, 0), (30000, 1), (30001, 0)]


def test_a_sequence_restarted_after_a_pause_may_have_lost_something() -> None:
    receiver = RtpReceiver(90000)
    receiver.receive_packet(packet(10), 0.0)
    receiver.receive_packet(packet(30000, 60 * 90000), 60.0)
    assert [view.lost for view in receiver.receive_packet(packet(30001, 60 * 90000), 60.0)] == [1, 0]


@pytest.mark.parametrize("wholly", [False, True])
def test_a_sequence_restarted_just_below_is_not_taken_for_late_packets(wholly: bool) -> None:
    receiver = RtpReceiver(90000)
    sent = [(sequence, 3000 * index) for index, sequence in enumerate([*range(60), *range(60)])]
    packets = [packet(sequence, timestamp) for sequence, timestamp in sent]
    if wholly:
        got = [payload for run in receiver.receive_all(packets, 0.0) for payload in run.payloads]
    else:
        got = [view for data in packets for view in receiver.receive_packet(data, 0.0)]
    assert len(got) == 120
    assert (receiver.lost, receiver.restarts, receiver.duplicates) == (0, 1, 0)


def test_rtcp_on_the_rtp_channel_begins_no_stream() -> None:
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 0xCAFE, 3_900_000_000, 0, 0, 0, 0)
    for payload_type in (96, None):
        receiver = RtpReceiver(90000, payload_type)
        assert receiver.receive_packet(report, 0.0) == receiver.receive_all([report, report], 0.0) == []
        assert receiver.ssrc is None
        assert feed(receiver, 6, 7, 8) == [(6, 0), (7, 0), (8, 0)]
        assert (receiver.unexpected, receiver.lost, receiver.restarts) == (3, 0, 0)


def test_another_payload_type_begins_no_stream() -> None:
    receiver = RtpReceiver(90000, payload_type=96)
    assert receiver.receive_packet(packet(1, ssrc=9, pt=107), 0.0) == []
    assert feed(receiver, 500, 501) == [(500, 0), (501, 0)]
    assert (
        receiver.receive_packet(packet(7, ssrc=9, pt=107), 0.0)
        == receiver.receive_packet(packet(8, ssrc=9, pt=107), 0.0)
        == []
    )
    assert feed(receiver, 502) == [(502, 0)]


def test_other_payload_types_are_counted_and_left_out() -> None:
    receiver = RtpReceiver(90000, payload_type=96)
    assert len(receiver.receive_packet(packet(1), 0.0)) == 1
    assert receiver.receive_packet(packet(4, pt=97), 0.0) == []
    (view,) = receiver.receive_packet(packet(5), 0.0)
    assert view.lost == 2
    assert receiver.unexpected == 1


# Jitter and reports


def test_jitter_of_an_even_stream_is_zero_and_of_an_uneven_one_is_not() -> None:
    even, uneven = RtpReceiver(90000), RtpReceiver(90000)
    for index in range(2000):
        even.receive_packet(packet(index, index * 3000), index / 30)
        uneven.receive_packet(packet(index, index * 3000), index / 30 + 0.01 * (index % 2))
    assert even.jitter < 1e-6
    assert uneven.jitter == pytest.approx(0.01, rel=0.01)


def test_timestamp_wrap_is_no_jitter() -> None:
    receiver = RtpReceiver(90000)
    for index in range(100):
        receiver.receive_packet(packet(index, 0xFFFFFFFF - 50 * 3000 + index * 3000), index / 30)
    assert receiver.jitter < 1e-3


def test_delay_since_last_sender_report() -> None:
    receiver = RtpReceiver(90000)
    assert receiver.receiver_report(0.0) is None
    feed(receiver, 1)
    receiver.sender_report(0x1234567890ABCDEF, 10.0)
    block = receiver.receiver_report(12.5)
    assert block is not None
    assert (block.lsr, block.dlsr) == (0x567890AB, int(2.5 * 65536))


# Reordering


def view(sequence: int, ssrc: int = 1) -> RtpView:
    return RtpView(sequence & 0xFFFF, 0, False, 96, ssrc, b"")


def test_reorder_restores_sequence() -> None:
    buffer = ReorderBuffer()
    released = [v for s in (65534, 0, 65535, 1) for v in buffer.receive_view(view(s), 0.0)]
    assert [(v.sequence, v.lost) for v in released] == [(65534, 0), (65535, 0), (0, 0), (1, 0)]
    assert buffer.poll(1e9) == []


def test_reorder_gives_up_after_its_time() -> None:
    buffer = ReorderBuffer(max_wait=0.1)
    buffer.receive_view(view(1), 0.0)
    assert buffer.receive_view(view(4), 1.0) == []
    assert buffer.poll(1.09) == []
    assert [(v.sequence, v.lost) for v in buffer.poll(1.11)] == [(4, 2)]
    assert buffer.receive_view(view(2), 1.2) == []
    assert (buffer.late, buffer.forced) == (1, 1)


def test_reorder_does_not_count_a_pause_of_the_stream_as_waiting() -> None:
    buffer = ReorderBuffer(max_wait=0.25)
    buffer.receive_view(view(1), 0.0)
    buffer.receive_view(view(3), 0.03)
    assert buffer.receive_view(view(4), 2.0) == []
    assert buffer.poll(2.0) == [], "the repair of 2 may be on its way behind this"
    assert [(v.sequence, v.lost) for v in buffer.receive_view(view(2), 2.02)] == [(2, 0), (3, 0), (4, 0)]


def test_reorder_is_bounded() -> None:
    buffer = ReorderBuffer(max_packets=8)
    buffer.receive_view(view(0), 0.0)
    released = [v for s in range(2, 20) for v in buffer.receive_view(view(s), 0.0)]
    assert [v.lost for v in released] == [1] + [0] * 17


@given(st.permutations(range(20)))
def test_reorder_loses_nothing_within_its_bounds(order: list[int]) -> None:
    buffer = ReorderBuffer()
    released = buffer.receive_view(view(0xFFFF), 0.0)
    for sequence in order:
        released += buffer.receive_view(view(sequence), 0.0)
    assert [v.sequence for v in released] == [0xFFFF, *range(20)]
    assert not any(v.lost for v in released)


# Whole wakes

PACKETS = st.lists(
    st.one_of(
        st.binary(max_size=14),
        st.tuples(
            st.sampled_from([0, 0, 0, 1, 2, 40000]),  # how far the sequence number steps beyond the next
            st.sampled_from([0, 0, 0, 3000]),  # and the timestamp
            st.sampled_from([1, 1, 1, 1, 2]),
            st.sampled_from([96, 96, 96, 97]),
            st.booleans(),
            st.sampled_from([0x80, 0x80, 0x80, 0xA0, 0x90]),
        ),
    ),
    max_size=40,
)


def written(plan: list[bytes | tuple[int, int, int, int, bool, int]]) -> list[bytes]:
    """The packets of a plan, from a sequence number that soon wraps."""
    sequence, timestamp, packets = 65520, 0, []
    for step in plan:
        if isinstance(step, bytes):
            packets.append(step)
            continue
        skip, ticks, ssrc, payload_type, marker, first = step
        sequence, timestamp = sequence + 1 + skip, timestamp + ticks
        header = struct.pack("!BBHII", first, marker << 7 | payload_type, sequence & 0xFFFF, timestamp, ssrc)
        packets.append(header + b"\x00\x00\x00\x01" + bytes(4) + (sequence & 0xFF).to_bytes())
    return packets


def both_ways(packets: list[bytes], size: int) -> int:
    """Hold `receive_all` of wakes of `size` packets against `receive` of each; how many packets joined a run."""
    one, all_of_them = RtpReceiver(90000, 96), RtpReceiver(90000, 96)
    singly, together = [], []
    for start in range(0, len(packets), size):
        wake = packets[start : start + size]
        singly += join_runs([view for packet in wake for view in one.receive_packet(packet, 0.1 * start)])
        together += all_of_them.receive_all(wake, 0.1 * start)
    flat = [
        [(run.timestamp, run.ssrc, run.lost if not i else 0, p) for run in runs for i, p in enumerate(run.payloads)]
        for runs in (singly, together)
    ]
    assert flat[0] == flat[1]
    assert attributes(one) == attributes(all_of_them)
    return len(flat[1]) - len(together)


@given(PACKETS, st.integers(1, 10))
def test_a_wake_of_packets_is_received_as_each_by_itself(
    plan: list[bytes | tuple[int, int, int, int, bool, int]], size: int
) -> None:
    both_ways(written(plan), size)


def test_wakes_of_a_stream_with_rare_faults_are_received_as_each_packet_by_itself() -> None:
    """What a camera sends nearly always, where hypothesis seldom goes: frames of several plain packets."""
    joined = 0
    for seed in range(100):
        rng = random.Random(seed)
        plan: list[bytes | tuple[int, int, int, int, bool, int]] = []
        for _ in range(30):
            for index in range(size := rng.randint(1, 6)):
                odd = rng.random() < 0.05
                plan.append(
                    (
                        rng.choice((0, 1, 2, 40000)) if odd else 0,
                        0 if index else 3000,
                        rng.choice((1, 2)) if odd else 1,
                        rng.choice((96, 97, 127)) if odd else 96,
                        index == size - 1,
                        rng.choice((0x80, 0xA0, 0x90)) if odd else 0x80,
                    )
                )
            if rng.random() < 0.05:
                plan.append(rng.randbytes(rng.randint(0, 14)))
        joined += both_ways(written(plan), rng.randint(1, 12))
    assert joined > 1000
