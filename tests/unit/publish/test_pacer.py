"""The pacer on a manual clock: what passes, what is spread, what is dropped and counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_worker.publish.pacer import (
    BURST_BYTES,
    LIMITED_BURST_BYTES,
    MAX_AUDIO_QUEUED,
    MIN_WAIT,
    PACKET_OVERHEAD,
    Pacer,
    PacerSettings,
    Release,
)
from tests.fixtures.pacing import hand_in

pytestmark = pytest.mark.usefixtures("data_path")

FRAME = 1 / 30
IDR = b"\x67"
PICTURE = b"\x41"


class Sent(NamedTuple):
    at: float
    kind: str
    payload: bytes
    media_time: float


def frame(number: int, packets: int, head: bytes = PICTURE, size: int = 1200) -> list[tuple[bytes, bool]]:
    """An access unit whose payloads carry their number."""
    return [
        (
            (head if i == 0 else b"\x3c") + number.to_bytes(4, "big") + i.to_bytes(2, "big") + bytes(size - 7),
            i == packets - 1,
        )
        for i in range(packets)
    ]


class Push(NamedTuple):
    at: float
    kind: str
    payloads: list[tuple[bytes, bool]]
    media_time: float


def drive(pacer: Pacer, pushes: Iterable[Push]) -> list[Sent]:
    """Run pushes and the pacer's own deadlines on a manual clock."""
    sent: list[Sent] = []

    def leave(releases: list[Release], now: float) -> None:
        for release in releases:
            sent.extend(Sent(now, release.kind, bytes(p), release.media_time) for p, _ in release.payloads)

    def wake_until(limit: float, now: float) -> None:
        while (deadline := pacer.next_deadline()) is not None and deadline <= limit:
            now = max(now, deadline)
            before = len(sent), pacer.stats.dropped_packets, pacer.queued_bytes
            leave(pacer.pop(now), now)
            follow = pacer.next_deadline()
            # A wake that does nothing and asks for another at once would spin.
            assert before != (len(sent), pacer.stats.dropped_packets, pacer.queued_bytes) or follow != deadline

    now = 0.0
    for push in pushes:
        wake_until(push.at, now)
        now = push.at
        leave(hand_in(pacer, push.kind, push.payloads, push.media_time, now), now)
    wake_until(now + 30, now)
    return sent


def test_an_even_source_passes_at_once() -> None:
    pushes = [Push(10 + i * FRAME, "video", frame(i, 8), i * FRAME) for i in range(300)]
    pacer = Pacer()
    sent = drive(pacer, pushes)
    assert [s.at - 10 for s in sent] == pytest.approx([i // 8 * FRAME for i in range(2400)])
    assert pacer.next_deadline() is None


def test_packets_of_one_frame_pass_as_they_come() -> None:
    pacer = Pacer()
    pushes = [
        Push(10 + i * FRAME + j * 0.01, "video", [payload], i * FRAME)
        for i in range(30)
        for j, payload in enumerate(frame(i, 3))
    ]
    sent = drive(pacer, pushes)
    assert [s.at for s in sent] == [p.at for p in pushes]


def even_with_keyframe(packets: int) -> list[Push]:
    pushes = [Push(10 + i * FRAME, "video", frame(i, 8), i * FRAME) for i in range(60)]
    pushes.append(Push(12.0, "video", frame(60, packets, IDR), 2.0))
    return pushes


def test_a_keyframe_is_spread_within_bounds() -> None:
    pacer = Pacer(PacerSettings(floor_bitrate=0))
    sent = [s for s in drive(pacer, even_with_keyframe(170)) if s.media_time == 2.0]
    assert len(sent) == 170
    assert sent[-1].at - 12.0 <= 0.1 + MIN_WAIT
    assert sent[-1].at - 12.0 >= 0.05
    bursts = [len(list(group)) for _, group in itertools.groupby(sent, key=lambda s: s.at)]
    assert max(bursts) <= BURST_BYTES // (1200 + PACKET_OVERHEAD) + 1
    assert len(bursts) <= 25  # a timer wake each


def test_a_keyframe_as_large_as_most_leaves_at_once_where_no_uplink_is_known_to_be_narrow() -> None:
    sent = [s for s in drive(Pacer(), even_with_keyframe(31)) if s.media_time == 2.0]
    assert {s.at for s in sent} == {12.0}
    pacer = Pacer()
    pacer.ceiling = 3_000_000  # the source sends about 2.4 Mbit/s
    sent = [s for s in drive(pacer, even_with_keyframe(31)) if s.media_time == 2.0]
    bursts = [len(list(group)) for _, group in itertools.groupby(sent, key=lambda s: s.at)]
    assert sum(bursts) == 31
    assert max(bursts) <= LIMITED_BURST_BYTES // (1200 + PACKET_OVERHEAD) + 1
    assert sent[-1].at - 12.0 >= 0.03


def test_a_keyframe_leaves_fast_when_the_floor_allows_it() -> None:
    sent = [s for s in drive(Pacer(), even_with_keyframe(33)) if s.media_time == 2.0]
    assert sent[-1].at - 12.0 <= 0.012


def test_audio_goes_first_and_past_a_waiting_keyframe() -> None:
    pacer = Pacer(PacerSettings(floor_bitrate=0))
    pushes = even_with_keyframe(170)
    pushes += [Push(12.0 + i * 0.02, "audio", [(b"opus%d" % i, False)], 2.0 + i * 0.02) for i in range(1, 5)]
    sent = drive(pacer, pushes)
    assert [s.at for s in sent if s.kind == "audio"] == pytest.approx([12.02, 12.04, 12.06, 12.08])
    assert sent[-1].kind == "video"


def test_sound_that_comes_as_aac_frames_costs_no_wakes() -> None:
    """64 ms of sound at once, as three or four Opus packets: nothing waits, so no timer is set."""
    pacer = Pacer()
    for unit in range(200):
        now = 10.0 + unit * 0.064
        packets = [(bytes(80), False)] * (3 if unit % 5 else 4)
        assert pacer.take_audio(packets, now - 0.064, 0.020, now)
        assert pacer.next_deadline() is None


def test_bursts_of_500_ms_are_evened_out() -> None:
    pushes = []
    for burst in range(20):
        for i in range(15):
            index = burst * 15 + i
            pushes.append(Push(10.5 + burst * 0.5, "video", frame(index, 8), index * FRAME))
    pacer = Pacer()
    sent = drive(pacer, pushes)
    assert pacer.smoothing
    firsts = [next(group).at for _, group in itertools.groupby(sent, key=lambda s: s.media_time)]
    steady = [b - a for a, b in itertools.pairwise(firsts[30:])]
    assert max(steady) < FRAME + 0.015
    assert min(steady) > FRAME - 0.015
    assert len(sent) == 300 * 8


def test_sound_in_bursts_of_500_ms_is_evened_out_too() -> None:
    sounds = [(burst, i) for burst in range(20) for i in range(25)]
    pushes = [
        Push(10.5 + burst * 0.5, "audio", [(b"%d" % (25 * burst + i), False)], (25 * burst + i) * 0.02)
        for burst, i in sounds
    ]
    sent = drive(Pacer(), pushes)
    assert [s.payload for s in sent] == [b"%d" % number for number in range(500)]
    assert all(abs(b.at - a.at - 0.02) < 0.015 for a, b in itertools.pairwise(sent[50:]))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_keyframe_leaves_at_a_multiple_of_the_bitrate_whatever_part_of_a_second_has_passed(at: float) -> None:
    """2.36 Mbit/s come, so 5.9 leave: the 24 packets beyond the burst take 40 ms, where the spread alone gives 60."""
    pacer = Pacer(PacerSettings(floor_bitrate=0))
    pushes = [Push(10 + i * FRAME, "video", frame(i, 8), i * FRAME) for i in range(60 + round(30 * at))]
    media_time = len(pushes) * FRAME
    pushes.append(Push(10 + media_time, "video", frame(len(pushes), 56, IDR), media_time))
    sent = [s for s in drive(pacer, pushes) if s.media_time == media_time]
    assert 0.03 <= sent[-1].at - sent[0].at <= 0.05


def test_a_queue_that_is_cut_to_its_keyframe_goes_on_from_there() -> None:
    pacer = Pacer(PacerSettings(max_queue_bytes=100_000))
    pacer.take_video(frame(0, 40, IDR), 0.0, 10.0)
    pacer.pop(10.0)
    number = 1
    while not pacer.stats.overflows:  # nobody pops
        pacer.take_video(frame(number, 5, IDR if number == 5 else PICTURE), number * FRAME, 10.0)
        number += 1
    assert number > 6
    assert not pacer.wants_keyframe
    pacer.take_video(frame(number, 2), number * FRAME, 10.0)
    numbers = {round(release.media_time / FRAME) for n in range(100) for release in pacer.pop(10 + n / 50)}
    assert numbers == {0, *range(5, number + 1)}
    assert pacer.stats.thinned_frames == 4
    assert pacer.stats.dropped_packets == 20


@pytest.mark.parametrize("head", [IDR, b"\x65"])
def test_a_queue_that_is_cut_keeps_all_of_a_keyframe_that_came_in_parts(head: bytes) -> None:
    """Its delimiter first, then a part for each slice: a later slice alone is nothing that can be decoded."""
    pacer = Pacer(PacerSettings(max_queue_bytes=100_000))
    pacer.take_video(frame(0, 40, IDR), 0.0, 10.0)
    pacer.pop(10.0)
    for number in range(1, 5):
        pacer.take_video(frame(number, 5), number * FRAME, 10.0)
    parts = [[(b"\x09\xf0", False)], frame(5, 5, head), frame(5, 5, b"\x65"), frame(5, 5, b"\x65")]
    for part in parts:
        pacer.take_video(part, 5 * FRAME, 10.0)
    number = 6
    while not pacer.stats.overflows:  # nobody pops
        pacer.take_video(frame(number, 5), number * FRAME, 10.0)
        number += 1
    assert number > 7
    releases = [release for n in range(100) for release in pacer.pop(10 + n / 50)]
    kept = [payload for release in releases if release.media_time == 5 * FRAME for payload, _ in release.payloads]
    assert kept == [payload for part in parts for payload, _ in part]
    assert {round(release.media_time / FRAME) for release in releases} == {0, *range(5, number)}
    assert (pacer.stats.thinned_frames, pacer.stats.dropped_packets) == (4, 20)


def test_a_delimiter_that_comes_alone_before_a_keyframe_is_no_frame_left_out() -> None:
    pacer = Pacer()
    pacer.wants_keyframe = True
    assert not pacer.take_video(frame(0, 3), 0.0, 10.0)
    assert not pacer.take_video([(b"\x09\xf0", False)], FRAME, 10.03)
    assert (pacer.stats.thinned_frames, pacer.stats.dropped_packets) == (2, 4)
    assert pacer.take_video(frame(1, 2, IDR), FRAME, 10.03)
    assert not pacer.wants_keyframe
    assert pacer.stats.thinned_frames == 1


def test_a_ceiling_drops_to_the_next_keyframe_and_says_so() -> None:
    pacer = Pacer()
    pacer.ceiling = 1_200_000  # the source sends about 2.3 Mbit/s
    pushes = []
    for i in range(600):
        head = IDR if i % 60 == 0 else PICTURE
        pushes.append(Push(10 + i * FRAME, "video", frame(i, 8, head), i * FRAME))
    sent = drive(pacer, pushes)
    stats = pacer.stats
    assert stats.overflows > 3
    assert len(sent) + stats.dropped_packets == 4800
    assert max(s.at - (10 + s.media_time) for s in sent) <= 1.5
    # No picture without those before it: each frame sent is a keyframe or follows the one before, and is whole.
    frames = {time: len(list(group)) for time, group in itertools.groupby(sent, key=lambda s: s.media_time)}
    assert set(frames.values()) == {8}
    numbers = [round(time / FRAME) for time in frames]
    for before, number in itertools.pairwise(numbers):
        assert number == before + 1 or number % 60 == 0
    rate = sum(len(s.payload) for s in sent) * 8 / (sent[-1].at - sent[0].at)
    assert 900_000 < rate <= 1_250_000


def test_the_queue_is_bounded_in_bytes() -> None:
    pacer = Pacer(PacerSettings(max_queue_bytes=100_000, floor_bitrate=0))
    pacer.ceiling = 8
    pacer.take_video(frame(0, 300, IDR), 0.0, 1.0)
    for i in range(1, 40):
        pacer.pop(1.0)
        pacer.take_video(frame(i, 10), i * FRAME, 1.0)
        assert pacer.queued_bytes <= 100_000 + 10 * 1300 or pacer.wants_keyframe
    assert pacer.wants_keyframe
    assert pacer.stats.dropped_packets > 0
    pacer.take_video(frame(50, 2, b"\x09"), 50 * FRAME, 1.0)
    assert pacer.wants_keyframe
    # An access unit delimiter may stand before the parameter sets.
    pacer.take_video([(b"\x09\xf0", False), *frame(51, 2, IDR)], 51 * FRAME, 1.0)
    assert not pacer.wants_keyframe


@pytest.mark.parametrize("leaves", [True, False])
def test_a_keyframe_without_end_does_not_fill_the_memory(leaves: bool) -> None:
    """Nothing of it is taken for a beginning once some of it was dropped, whether or not it had begun to leave."""
    pacer = Pacer(PacerSettings(max_queue_bytes=100_000))
    pacer.ceiling = 1000
    if not leaves:
        pacer.charge(1_000_000)
    dropped = 0
    for part in range(200):
        pacer.take_video(frame(0, 5, b"\x65"), 0.0, 10.0)
        pacer.pop(10.0)
        assert pacer.queued_bytes <= 100_000
        assert pacer.stats.dropped_packets >= dropped
        assert not dropped or pacer.stats.dropped_packets == dropped + 5, part
        dropped = pacer.stats.dropped_packets
    assert pacer.wants_keyframe
    assert pacer.stats.overflows == 1
    pacer.take_video(frame(1, 2, IDR), FRAME, 10.03)
    assert not pacer.wants_keyframe


def test_the_queue_is_bounded_in_bytes_without_a_ceiling_too() -> None:
    pacer = Pacer(PacerSettings(max_queue_bytes=100_000))
    for i in range(100):  # nobody pops
        pacer.take_video(frame(i, 10), i * FRAME, 1.0)
        assert pacer.queued_bytes <= 100_000
    assert pacer.stats.overflows > 0


def test_audio_is_bounded() -> None:
    pacer = Pacer()
    # One early packet makes everything after it wait.
    for i in range(400):
        pacer.take_audio([(b"x", False)], i * 0.02, 0.02, 10.0)
    assert pacer.stats.dropped_audio >= 1
    assert len(pacer._audio) <= MAX_AUDIO_QUEUED


PUSHES = st.lists(
    st.tuples(
        st.sampled_from(["video", "video", "audio"]),
        st.floats(0, 0.3),  # until it comes
        st.floats(0.005, 0.2),  # media time it advances
        st.integers(1, 40),  # packets
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(PUSHES)
def test_order_completeness_and_bounds_hold_for_any_source(steps: list[tuple[str, float, float, int]]) -> None:
    pacer = Pacer()
    now, media = 10.0, {"video": 0.0, "audio": 0.0}
    pushes = []
    for index, (kind, wait, advance, packets) in enumerate(steps):
        now += wait
        media[kind] += advance
        payloads = frame(index, packets if kind == "video" else 1, IDR)
        pushes.append(Push(now, kind, payloads, media[kind]))
    sent = drive(pacer, pushes)
    for kind in ("video", "audio"):
        expected = [bytes(p) for push in pushes if push.kind == kind for p, _ in push.payloads]
        assert [s.payload for s in sent if s.kind == kind] == expected
    came = {(push.kind, push.media_time): push.at for push in pushes}
    assert all(0 <= s.at - came[s.kind, s.media_time] <= 0.6 + 0.1 + 2 * MIN_WAIT for s in sent)
    assert pacer.queued_bytes == 0
    assert pacer.next_deadline() is None
    assert pacer.stats.dropped_packets == pacer.stats.dropped_audio == 0


def test_frames_that_no_other_needs_go_first() -> None:
    pacer = Pacer()
    pacer.ceiling = 1_900_000  # the source sends about 2.4 Mbit/s, a third of it in frames of nal_ref_idc 0
    pushes = []
    for i in range(600):
        head = IDR if i % 60 == 0 else b"\x01" if i % 3 == 0 else PICTURE
        pushes.append(Push(10 + i * FRAME, "video", frame(i, 8, head), i * FRAME))
    sent = drive(pacer, pushes)
    left = {round(s.media_time / FRAME) for s in sent}
    assert {i for i in range(600) if i % 3 or i % 60 == 0} <= left
    assert pacer.stats.thinned_frames == 600 - len(left) > 60
    assert pacer.stats.overflows == 0
    assert pacer.limited
    assert max(s.at - (10 + s.media_time) for s in sent) <= 0.3


def test_the_rest_of_a_frame_shares_its_fate() -> None:
    pacer = Pacer()
    pacer.ceiling = 1_000_000
    pacer.take_video(frame(0, 40, IDR), 0.0, 10.0)
    disposable = frame(1, 4, b"\x01")
    pacer.take_video(disposable[:2], FRAME, 10.0)
    pacer.take_video(disposable[2:], FRAME, 10.01)
    pacer.take_video(frame(2, 2), 2 * FRAME, 10.07)
    assert (pacer.stats.thinned_frames, pacer.stats.dropped_packets) == (1, 4)


def test_the_newest_keyframe_survives_however_slow_the_link() -> None:
    pacer = Pacer()
    pacer.ceiling = 60_000
    pushes = []
    for i in range(600):
        pushes.append(
            Push(10 + i * FRAME, "video", frame(i, 20 if i % 60 == 0 else 4, b"\x41" if i % 60 else IDR), i * FRAME)
        )
    sent = drive(pacer, pushes)
    numbers = {round(s.media_time / FRAME) for s in sent}
    assert len([n for n in numbers if n % 60 == 0]) >= 6  # a keyframe takes over three seconds
    assert max(s.at - (10 + s.media_time) for s in sent) <= 8.0


def test_what_waits_in_the_network_counts() -> None:
    def longest(network_delay: float) -> float:
        pacer = Pacer()
        pacer.ceiling, pacer.network_delay = 1_200_000, network_delay
        pushes = []
        for i in range(300):
            pushes.append(Push(10 + i * FRAME, "video", frame(i, 8, PICTURE if i % 60 else IDR), i * FRAME))
        return max(s.at - (10 + s.media_time) for s in drive(pacer, pushes))

    assert longest(0.5) < longest(0.0) - 0.3


def test_retransmissions_take_their_share_and_no_more() -> None:
    pacer = Pacer()
    pacer.ceiling = 1_000_000
    assert pacer.take_video(frame(0, 1, IDR), 0.0, 10.0)
    pacer.charge(500_000)
    assert not pacer.take_video(frame(1, 1), FRAME, 10.0)
    assert not pacer.pop(10.1)
    assert pacer.pop(10.0 + 0.3 + 2 * MIN_WAIT + 0.1)
