"""The ingest core: which packet belongs where, and what the camera is told when."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_worker.camera.ingest_answer import parse_ingest_answer
from relay_worker.camera.nack import FIRST_RTT, MAX_AGE, MAX_MISSING, MAX_TRIES, NackTracker
from relay_worker.camera.webrtc_ingest import BITRATE, MAX_STREAMS, Ingest
from relay_worker.media.stream import Kind, Track
from relay_worker.rtp import rtcp
from relay_worker.rtp.packet import parse_rtp
from relay_worker.rtp.rtcp import Fir, Nack, Pli, ReceiverReport, Remb, ReportBlock, RtcpPacket

GOOGLE = (Path(__file__).parents[2] / "fixtures/webrtc/google_answer.sdp").read_text()
NO_SSRC = "\n".join(line for line in GOOGLE.split("\n") if not line.startswith("a=ssrc"))
VIDEO, AUDIO, REPAIR, OURS = 6666, 5555, 7777, 42


def block(track: Track, now: float) -> ReportBlock:
    return ReportBlock(VIDEO if track.kind is Kind.VIDEO else AUDIO, 0, 0, 7, 0, 0, 0)


def ingest(sdp: str = NO_SSRC) -> Ingest:
    return Ingest(parse_ingest_answer(sdp), OURS, block)


def packet(
    sequence: int, ssrc: int = VIDEO, pt: int = 106, payload: bytes = b"\x41payload", marker: bool = False
) -> bytes:
    return struct.pack("!BBHII", 0x80, marker << 7 | pt, sequence & 0xFFFF, 1000, ssrc) + payload


def retransmission(sequence: int, of: int, payload: bytes = b"\x41payload") -> bytes:
    return packet(sequence, REPAIR, 107, of.to_bytes(2, "big") + payload, marker=True)


def said(core: Ingest, now: float) -> list[RtcpPacket]:
    compound = core.feedback(now)
    return rtcp.parse_compound(compound) if compound else []


def kinds(core: Ingest, now: float) -> list[str]:
    return [type(item).__name__ for item in said(core, now)]


# --- what belongs where


def test_packets_are_told_apart_by_payload_type_and_then_by_ssrc() -> None:
    core = ingest()
    video, audio = core.receive_packet(packet(1), 0.0), core.receive_packet(packet(9, AUDIO, 111), 0.0)
    assert video is not None
    assert audio is not None
    assert (video.track.kind, audio.track.kind) == (Kind.VIDEO, Kind.AUDIO)
    second_type = core.receive_packet(packet(2, pt=112), 0.0)
    assert second_type is not None
    assert second_type.track is video.track, "both H.264 payload types are one stream"
    assert core.receive_packet(packet(3, 1234, 99), 0.0) is None
    assert core.receive_packet(packet(10, AUDIO, 106), 0.0) is None, "video on the audio's SSRC"
    assert core.ignored == {"payload type": 2}


def test_probes_without_payload_bind_nothing_but_count_in_the_sequence() -> None:
    core = ingest()
    assert core.receive_packet(packet(1, 1111, payload=b""), 0.0) is None
    padded = struct.pack("!BBHII", 0xA0, 106, 2, 1000, 1111) + bytes(3) + b"\x04"
    assert core.receive_packet(padded, 0.0) is None
    assert core.ignored["probe"] == 2
    core.receive_packet(packet(5), 0.0)
    assert core.receive_packet(packet(6, payload=b""), 0.0) is not None, "or the stream would seem to have a hole"


def test_retransmissions_become_the_packets_they_hold_when_they_are_missed() -> None:
    core = ingest()
    core.receive_packet(packet(10), 0.0)
    core.receive_packet(packet(12), 0.0)
    repaired = core.receive_packet(retransmission(1, 11), 0.1)
    assert repaired is not None
    view = parse_rtp(repaired.rtp[0])
    assert (view.sequence, view.ssrc, view.payload_type, view.marker) == (11, VIDEO, 106, True)
    assert view.payload == b"\x41payload"
    assert core.receive_packet(retransmission(2, 11), 0.1) is None, "it is there already"
    assert core.receive_packet(retransmission(3, 9, b""), 0.1) is None, "padding"
    assert core.ignored == {"rtx": 1, "probe": 1}


@pytest.mark.parametrize("padding", [b"", bytes(3) + b"\x04"])
def test_a_lost_probe_among_the_video_is_there_when_it_was_sent_again(padding: bytes) -> None:
    """Nest cameras send packets without payload among the video: their repairs were taken for padding, as often as
    they were asked for."""
    core = ingest()
    core.receive_packet(packet(10), 0.0)
    core.receive_packet(packet(12), 0.0)
    assert "Nack" in kinds(core, 0.0)
    again = bytearray(retransmission(1, 11, padding))
    again[0] |= 0x20 if padding else 0
    repaired = core.receive_packet(bytes(again), 0.1)
    assert repaired is not None
    view = parse_rtp(repaired.rtp[0])
    assert (view.sequence, view.ssrc, view.payload) == (11, VIDEO, b"")
    assert (core.nack.repaired, bool(core.nack), core.ignored) == (1, False, {})


def test_sender_reports_go_to_the_track_they_are_about_wherever_they_stand() -> None:
    core = ingest()
    core.receive_packet(packet(1), 0.0)
    core.receive_packet(packet(1, AUDIO, 111), 0.0)
    compound = (
        rtcp.pack_sender_report(AUDIO, 1 << 32, 5, 1, 1)
        + rtcp.pack_sdes(AUDIO, "c")
        + rtcp.pack_sender_report(VIDEO, 2 << 32, 6, 1, 1)
        + rtcp.pack_sender_report(999, 3 << 32, 6, 1, 1)
    )
    batches = core.receive_rtcp(compound)
    assert [batch.track.kind for batch in batches] == [Kind.AUDIO, Kind.VIDEO]
    assert [rtcp.parse_compound(batch.rtcp[0])[0].ssrc for batch in batches] == [AUDIO, VIDEO]  # type: ignore[union-attr]


# --- what is said


def test_remb_goes_out_at_once_again_with_the_first_video_and_then_every_second() -> None:
    core = ingest()
    (report, _, remb) = said(core, 10.0)
    assert isinstance(remb, Remb)
    assert isinstance(report, ReceiverReport)
    assert said(core, 10.5) == []
    core.receive_packet(packet(1), 10.5)
    report, _, remb = said(core, 10.5)
    assert isinstance(remb, Remb)
    assert remb.ssrcs == (VIDEO,)
    assert abs(remb.bitrate - BITRATE) < BITRATE / 1000
    assert isinstance(report, ReceiverReport)
    assert [one.ssrc for one in report.reports] == [VIDEO, AUDIO]
    assert said(core, 11.4) == []
    assert kinds(core, 11.5) == ["ReceiverReport", "SourceDescription", "Remb"]


def test_a_keyframe_request_is_fir_with_a_rising_number_and_pli_at_most_once_a_second() -> None:
    core = ingest()
    core.request_keyframe(0.0)
    assert not core.may_request(0.0), "there is no stream to ask yet"
    assert kinds(core, 0.0) == ["ReceiverReport", "SourceDescription", "Remb"]
    core.receive_packet(packet(1), 0.1)
    sent: list[tuple[float, list[RtcpPacket]]] = []
    for step in range(40):
        now = 0.1 + step / 10
        core.request_keyframe(now)
        requests = [item for item in said(core, now) if isinstance(item, Fir | Pli)]
        if requests:
            sent.append((now, requests))
    assert [round(at, 1) for at, _ in sent] == [0.1, 1.1, 2.1, 3.1]
    assert [requests for _, requests in sent] == [
        [Fir(OURS, ((VIDEO, number),)), Pli(OURS, VIDEO)] for number in (1, 2, 3, 4)
    ]
    assert core.keyframe_requests == 4


def test_a_keyframe_that_came_meanwhile_satisfies_the_requests_before_it() -> None:
    core = ingest(GOOGLE)
    core.request_keyframe(0.0)
    assert "Fir" in kinds(core, 0.0)
    core.request_keyframe(0.2)
    core.keyframe_came(0.5)
    assert "Fir" not in kinds(core, 1.5)
    core.request_keyframe(1.6)
    core.keyframe_came(0.5)
    assert "Fir" in kinds(core, 1.6)


def test_missing_packets_are_asked_for_at_once_and_again_after_a_round_trip() -> None:
    core = ingest()
    said(core, 0.0)
    core.receive_packet(packet(10), 0.0)
    said(core, 0.0)
    core.receive_packet(packet(13), 0.01)
    (_, _, nack) = said(core, 0.01)
    assert nack == Nack(OURS, VIDEO, (11, 12))
    assert said(core, 0.02) == []
    core.receive_packet(packet(11), 0.03)
    assert core.nack.repaired == 1
    assert core.nack.rtt < FIRST_RTT
    later = 0.01 + 1.5 * core.nack.rtt + 0.001
    (_, _, nack) = said(core, later)
    assert nack == Nack(OURS, VIDEO, (12,))


def test_without_nack_in_the_answer_nothing_is_asked_for() -> None:
    core = ingest("\n".join(line for line in NO_SSRC.split("\n") if not line.endswith(" nack")))
    core.receive_packet(packet(10), 0.0)
    core.receive_packet(packet(13), 0.0)
    assert "Nack" not in kinds(core, 0.0)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=20))
def test_any_bytes_are_survived(packets: list[tuple[bool, bytes]]) -> None:
    core = ingest(GOOGLE)
    core.receive_packet(packet(1), 0.0)
    for index, (is_rtcp, data) in enumerate(packets):
        if is_rtcp:
            core.receive_rtcp(data)
        else:
            core.receive_packet(data, index / 10)
        core.feedback(index / 10)


# --- the tracker


def test_requests_are_bounded_in_number_time_and_tries() -> None:
    tracker = NackTracker()
    tracker.received(0, 0.0)
    tracker.received(2, 0.0)
    asked = 0
    now = 0.0
    while tracker:
        asked += len(tracker.due(now))
        now += 0.001
        tracker.received(2, now)
    assert now <= MAX_AGE + 0.01
    assert 2 <= asked <= MAX_TRIES
    assert tracker.given_up == 1

    tracker.received(2 + MAX_MISSING + 1, now)
    assert not tracker, "a hole of that size is for a keyframe to mend"


def test_reordered_packets_and_duplicates_are_no_repairs() -> None:
    tracker = NackTracker()
    for sequence in (65534, 0, 65535, 65535, 1):
        tracker.received(sequence, 0.0)
    assert tracker.due(0.0) == []
    assert tracker.repaired == 0


def test_the_round_trip_is_learnt_from_first_answers_only() -> None:
    tracker = NackTracker()
    tracker.received(0, 0.0)
    for n in range(1, 40):
        tracker.received(2 * n, float(n))
        assert tracker.due(float(n)) == [2 * n - 1]
        tracker.received(2 * n - 1, n + 0.02)
    assert abs(tracker.rtt - 0.02) < 0.001
    tracker.received(82, 50.0)
    tracker.due(50.0)
    tracker.due(50.1)
    tracker.received(81, 50.2)
    assert tracker.rtt < 0.026, "one step: it may have been the answer to the first request"


def test_a_pause_of_the_stream_is_no_time_to_wait() -> None:
    tracker = NackTracker()
    tracker.received(0, 0.0)
    tracker.received(2, 0.03)
    assert tracker.due(0.03) == [1]
    tracker.received(3, 2.0)
    assert tracker.due(2.0) == [1], "what was sent before the pause is asked for once more"
    assert 1 in tracker
    tracker.received(1, 2.04)
    assert (tracker.repaired, tracker.given_up) == (1, 0)


def test_a_slow_answer_does_not_leave_later_packets_with_a_single_try() -> None:
    tracker = NackTracker()
    tracker.received(0, 0.0)
    for n in range(1, 10):
        tracker.received(2 * n, float(n))
        tracker.due(float(n))
        tracker.received(2 * n - 1, n + 0.02)
    tracker.received(20, 10.0)
    assert tracker.due(10.0) == [19]
    tracker.received(19, 15.0)
    tracker.received(22, 16.0)
    tries = sum(21 in tracker.due(16.0 + n / 50) for n in range(13))
    assert tries >= 3


@pytest.mark.parametrize("rtt", [0.03, 0.1, 0.15, 0.2, 0.24])
def test_nothing_is_asked_for_again_before_one_round_trip_has_passed(rtt: float) -> None:
    """A stream of 100 packets a second that loses every 50th, over a way whose round trip is not known at first."""
    tracker = NackTracker()
    answers: list[tuple[float, int]] = []
    requests: dict[int, list[float]] = {}
    for millisecond in range(60_000):
        now = millisecond / 1000
        while answers and answers[0][0] <= now:
            tracker.received(answers.pop(0)[1], now)
        if millisecond % 10 == 0 and (sequence := millisecond // 10) % 50:
            tracker.received(sequence, now)
        for sequence in tracker.due(now):
            requests.setdefault(sequence, []).append(now)
            answers.append((now + rtt, sequence))
    assert len(requests) >= 118
    assert tracker.given_up == 0
    again = [sequence for sequence, at in requests.items() if len(at) > 1]
    assert len(again) <= 5, "the first few, until the round trip is known"
    assert all(sequence <= 300 for sequence in again)
    assert abs(tracker.rtt - rtt) < 0.25 * rtt


def test_a_lost_answer_is_asked_for_again_while_that_can_help() -> None:
    """Between one round trip and what is left before the packet is given up."""
    for milliseconds in range(5, 125, 5):
        rtt = milliseconds / 1000
        tracker = NackTracker()
        tracker.rtt = rtt
        tracker.received(0, 0.0)
        tracker.received(2, 0.0)
        first, second = [n / 1000 for n in range(251) if tracker.due(n / 1000)][:2]
        assert second - first >= rtt
        assert milliseconds > 118 or second + rtt <= MAX_AGE + 0.001


@pytest.mark.parametrize("rtt", [0.002, 0.02, 0.05])
def test_a_camera_that_pauses_for_a_second_is_asked_until_it_goes_on(rtt: float) -> None:
    """Eight requests 20 ms apart were all spent before it could answer, and the picture waited for a keyframe."""
    tracker = NackTracker()
    tracker.received(0, 0.0)
    for n in range(1, 40):
        tracker.received(2 * n, float(n))
        tracker.due(float(n))
        tracker.received(2 * n - 1, n + rtt)
    tracker.received(80, 50.0)
    requests = [50.0 + n / 100 for n in range(100) if tracker.due(50.0 + n / 100)]
    assert 79 in tracker, "nothing has come for a second: it may still"
    assert tracker.given_up == 0
    waits = [after - before for before, after in pairwise(requests)]
    assert min(waits) >= rtt
    assert all(after >= before - 0.011 for before, after in pairwise(waits)), (
        "each wait is longer, as far as polls show"
    )
    assert waits[-1] > 2 * waits[0]
    assert len(requests) <= MAX_TRIES
    tracker.received(81, 51.0)
    tracker.received(79, 51.0 + rtt)
    assert (tracker.repaired, tracker.given_up) == (40, 0)


def test_requests_end_although_nothing_comes_any_more() -> None:
    tracker = NackTracker()
    tracker.received(0, 0.0)
    tracker.received(2, 0.0)
    asked = sum(len(tracker.due(n / 100)) for n in range(1000))
    assert asked == MAX_TRIES
    assert (bool(tracker), tracker.given_up) == (False, 1)


def test_a_source_that_counts_anew_is_asked_for_what_is_missing_there() -> None:
    tracker = NackTracker()
    for sequence in (40000, 40001, 20000, 20001, 20003):
        tracker.received(sequence, 0.0)
    assert tracker.due(0.0) == [20002]


def test_streams_that_need_no_look_are_few_and_of_the_present_video() -> None:
    core = ingest()
    core.receive_packet(packet(1, ssrc=7), 0.0)
    core.receive_packet(packet(1, ssrc=9, pt=111), 0.0)
    assert core.streams == {(7, 106): Kind.VIDEO, (9, 111): Kind.AUDIO}
    core.receive_packet(packet(1, ssrc=8), 0.1)
    core.receive_packet(packet(2, ssrc=7), 0.1)
    assert core.streams == {(9, 111): Kind.AUDIO, (8, 106): Kind.VIDEO}, "not of the video before it"
    for ssrc in range(100, 100 + 2 * MAX_STREAMS):
        core.receive_packet(packet(1, ssrc=ssrc, pt=111), 0.2)
    assert len(core.streams) == MAX_STREAMS


def test_video_needs_no_look_while_nothing_is_missing() -> None:
    core = ingest()
    assert not core.follows(1), "nothing has come"
    core.receive_packet(packet(1), 0.0)
    assert core.follows(1)
    assert core.follows(0x10001), "a number that has wrapped"
    assert not core.follows(2)
    core.received(0x10003)
    assert core.follows(3)
    core.receive_packet(packet(5), 0.1)
    assert not core.follows(5), "one is missing"
    core.receive_packet(packet(4), 0.2)
    assert core.follows(5)


def test_it_rests_while_there_is_nothing_to_say() -> None:
    core = ingest()
    assert not core.rests(0.0), "the first report is due"
    core.receive_packet(packet(1), 0.0)
    core.feedback(0.0)
    assert core.rests(0.9)
    assert not core.rests(1.0)
    core.request_keyframe(0.5)
    assert not core.rests(0.5)
    core.keyframe_came(0.6)
    assert core.rests(0.6)
    core.receive_packet(packet(3), 0.7)
    assert not core.rests(0.7)
