"""Two layers on one track: what is offered, what an answer may say to it, what packets carry, and who goes first."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Any

import pytest

from relay_common.errors import RelayError
from relay_common.simulation.sfu.bottleneck import Bottleneck
from relay_worker.publish.answer import Answer, parse_answer
from relay_worker.publish.extensions import HeaderExtensions
from relay_worker.publish.layers import NO_ANSWER, LayersOffered
from relay_worker.publish.offer import Offer, make_offer
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.simulcast import MID_URI, REPAIRED_RID_URI, RID_URI, SimulcastRefused, received
from relay_worker.publish.small_layer import (
    BURST,
    INTERVAL,
    LONGEST_WAIT,
    LONGEST_YIELD,
    MOST_QUEUED,
    YIELD,
    SmallLayer,
)
from relay_worker.rtp import rtcp
from tests.unit.publish.test_answer import AUDIO, SESSION, TRANSPORT
from tests.unit.publish.test_offer import LOCAL

FAR = 0xFA5
LAYERS = "a=rid:a recv\na=rid:b recv\na=simulcast:recv a;b\n"
EXTENSIONS = f"a=extmap:4 {MID_URI}\na=extmap:5 {RID_URI}\na=extmap:6 {REPAIRED_RID_URI}\n"
VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 106 107\n" + TRANSPORT + "a=mid:0\na=recvonly\n"
    "a=candidate:1 1 udp 2130706431 192.0.2.1 1473 typ host\n"
    "a=rtpmap:106 H264/90000\na=rtcp-fb:106 nack\na=rtcp-fb:106 nack pli\n"
    "a=fmtp:106 packetization-mode=1;profile-level-id=42e01f\na=rtpmap:107 rtx/90000\na=fmtp:107 apt=106\n"
)


def answered(offer: Offer, more: str) -> Answer:
    return parse_answer(SESSION + VIDEO + more + AUDIO, offer)


def test_an_offer_without_layers_is_as_it_was() -> None:
    plain = make_offer(audio=True, profile_idc=77).sdp(LOCAL)
    assert "rid" not in plain.replace("stun", "")
    assert "simulcast" not in plain
    assert "extmap:4" not in plain
    assert plain.count("a=ssrc-group:FID") == 1


def test_the_layers_are_offered_best_first_and_by_no_ssrc() -> None:
    offer = make_offer(audio=True, simulcast=True)
    video, audio = re.split(r"(?=m=)", offer.sdp(LOCAL))[1:]
    assert [line for line in video.split("\r\n") if line.startswith(("a=rid", "a=simulcast"))] == [
        "a=rid:a send",
        "a=rid:b send",
        "a=simulcast:send a;b",
    ]
    assert "a=ssrc" not in video
    assert all(
        f"a=extmap:{number} {uri}" in video for number, uri in ((4, MID_URI), (5, RID_URI), (6, REPAIRED_RID_URI))
    )
    assert "a=ssrc:" in audio
    assert "extmap:4" not in audio
    first = offer.tracks[0]
    assert first.small is not None
    assert first.rids == ("a", "b")
    assert len({first.ssrc, first.rtx_ssrc, first.small.ssrc, first.small.rtx_ssrc, offer.tracks[1].ssrc}) == 5


def test_an_answer_that_takes_both_layers() -> None:
    offer = make_offer(audio=True, simulcast=True)
    video = answered(offer, EXTENSIONS + LAYERS).tracks[0]
    small = video.small
    assert small is not None
    assert (small.payload_type, small.rtx_payload_type, small.nack) == (106, 107, True)
    assert (video.offered.rid, small.offered.rid) == ("a", "b")
    assert small.offered.ssrc != video.offered.ssrc


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (EXTENSIONS, "refuses simulcast"),
        (EXTENSIONS + "a=simulcast:recv a\n", "b is missing"),
        (EXTENSIONS + "a=simulcast:recv a;~b\n", "b is missing"),
        (EXTENSIONS + "a=simulcast:send a;b\n", "a, b is missing"),
        (f"a=extmap:4 {MID_URI}\n" + LAYERS, "header extension"),
    ],
)
def test_an_answer_that_refuses_layers_says_which(more: str, why: str) -> None:
    with pytest.raises(SimulcastRefused, match=why):
        answered(make_offer(audio=True, simulcast=True), more)
    assert answered(make_offer(audio=True), more).tracks[0].small is None, "nobody asked for them"


def test_what_an_answer_receives() -> None:
    assert received("recv a;b") == {"a", "b"}
    assert received("send x recv a,c;~b") == {"a", "c"}
    assert received("recv") == received("") == received("send recv") == set()


def tracks(*, twcc: bool = True, rtx: bool = True) -> tuple[OutgoingTrack, OutgoingTrack]:
    offer = make_offer(audio=True, simulcast=True)
    more = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\n" if twcc else ""
    video = answered(offer, EXTENSIONS + LAYERS + more + "a=rtcp-fb:106 transport-cc\n" * twcc).tracks[0]
    video = video if rtx else replace(video, rtx_payload_type=None)
    assert video.small is not None
    first = OutgoingTrack(video)
    return first, OutgoingTrack(video.small, timestamp_base=first.timestamp_base)


def elements(extension: bytes) -> dict[int, bytes]:
    """One-byte elements by id (RFC 8285 §4.2), written for tests alone."""
    found, place = {}, 0
    while place < len(extension):
        number, size = extension[place] >> 4, (extension[place] & 0xF) + 1
        if number:
            found[number] = extension[place + 1 : place + 1 + size]
        place += 1 + size if number else 1
    return found


@pytest.mark.usefixtures("data_path")
def test_packets_name_their_layer_until_it_is_known(wire: Any) -> None:
    large, small = tracks()
    sender = MediaSender(wire.protector, wire.path, [large, small], cname="c")
    sender.set_clock(10.0, 1_700_000_000.0, 10.0)
    run = [(bytes([index]) * 1200, index == 39) for index in range(40)]
    for now in (10.0, 10.1):
        for track in (large, small):
            sender.send(track, run, track.rtp_time(now), now)
    packets, _ = wire.receive()
    assert len(packets) == 160
    for track in (large, small):
        mine = [packet for packet in packets if packet.ssrc == track.ssrc]
        assert [packet.payload for packet in mine] == [payload for payload, _ in run] * 2
        numbers = [packet.sequence for packet in mine]
        assert numbers == [(numbers[0] + index) & 0xFFFF for index in range(80)]
        carried = [elements(packet.extension) for packet in mine]
        assert {(one[4], one[5]) for one in carried} == {(b"0", track.rid.encode())}
    wide = [struct.unpack("!H", elements(packet.extension)[3])[0] for packet in packets]
    assert wide == list(range(wide[0], wide[0] + 160)), "one transport-wide count for both"
    assert {packet.timestamp for packet in packets} == {large.rtp_time(10.0), large.rtp_time(10.1)}
    highest = (small.sequence - 1) & 0xFFFF
    sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [block(small.ssrc, highest)]), 10.2)
    for track in (large, small):
        sender.send(track, run[:1], track.rtp_time(10.3), 10.3)
    after = {packet.ssrc: elements(packet.extension) for packet in wire.receive()[0]}
    assert 5 in after[large.ssrc], "nobody has said that it is known"
    assert after[small.ssrc].keys() == {3}


def block(ssrc: int, highest: int) -> rtcp.ReportBlock:
    return rtcp.ReportBlock(ssrc, 0, 0, highest, 0, 0, 0)


@pytest.mark.usefixtures("data_path")
def test_repairs_name_the_layer_that_they_repair(wire: Any) -> None:
    large, small = tracks(twcc=False)
    sender = MediaSender(wire.protector, wire.path, [large, small], cname="c")
    first = small.sequence
    sender.send(small, [(b"\x65" * 100, True)], 0, 1.0)
    wire.receive()
    sender.receive_rtcp(rtcp.pack_nack(FAR, small.ssrc, [first]), 1.5)
    (repair,) = wire.receive()[0]
    assert repair.ssrc == small.rtx_ssrc
    assert elements(repair.extension) == {4: b"0", 6: b"b"}
    assert repair.payload == first.to_bytes(2, "big") + b"\x65" * 100
    sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [block(small.rtx_ssrc or 0, repair.sequence)]), 1.6)
    sender.receive_rtcp(rtcp.pack_nack(FAR, small.ssrc, [first]), 2.5)
    assert [packet.extension for packet in wire.receive()[0]] == [b""]


def test_without_rtx_a_repair_is_the_very_packet_that_was_lost(wire: Any) -> None:
    large, small = tracks(rtx=False)
    sender = MediaSender(wire.protector, wire.path, [large, small], cname="c")
    for track in (large, small):
        first = track.sequence
        sender.send(track, [(b"\x65" * 100, True)], 0, 1.0)
        assert wire.receive(0) == ([], [])
        lost = wire.raw
        sender.receive_rtcp(rtcp.pack_receiver_report(FAR, [block(track.ssrc, first)]), 1.4)
        sender.receive_rtcp(rtcp.pack_nack(FAR, track.ssrc, [first]), 1.5)
        wire.receive()
        assert wire.raw == lost


def test_reports_of_both_layers_are_of_one_clock(wire: Any) -> None:
    large, small = tracks()
    sender = MediaSender(wire.protector, wire.path, [large, small], cname="c")
    sender.set_clock(50.0, 1_700_000_000.0, 50.0)
    sender.send(small, [(b"x", True)], small.rtp_time(50.0), 50.0)
    for step in range(3):
        sender.send(large, [(b"x", True)], large.rtp_time(51.0 + step), 51.0 + step)
    found: dict[int, list[tuple[int, int]]] = {}
    for compound in wire.receive()[1]:
        report = rtcp.parse_compound(compound)[0]
        assert isinstance(report, rtcp.SenderReport)
        found.setdefault(report.ssrc, []).append((report.ntp, report.rtp))
    assert found[large.ssrc] == found[small.ssrc][-len(found[large.ssrc]) :]
    assert len(found[large.ssrc]) == 3


def test_a_request_for_the_small_layer_does_not_reach_the_camera(wire: Any) -> None:
    large, small = tracks()
    asked: list[str] = []
    sender = MediaSender(
        wire.protector,
        wire.path,
        [large, small],
        cname="c",
        on_keyframe_request=lambda: asked.append("camera"),
        on_small_request=lambda: asked.append("small"),
    )
    sender.receive_rtcp(rtcp.pack_pli(FAR, small.ssrc), 1.0)
    sender.receive_rtcp(rtcp.pack_fir(FAR, small.ssrc, 1), 1.1)
    assert asked == ["small", "small"]
    sender.receive_rtcp(rtcp.pack_pli(FAR, large.ssrc), 1.2)
    assert asked == ["small", "small", "camera"]
    assert (large.stats.plis, small.stats.plis, small.stats.firs) == (1, 1, 1)


def test_reports_on_the_small_layer_say_nothing_of_what_the_original_may_send(wire: Any) -> None:
    large, small = tracks()
    sender = MediaSender(wire.protector, wire.path, [large, small], cname="c")
    for second in range(4):
        for track in (large, small):
            sender.send(track, [(bytes(1000), True)] * (1 if track is small else 100), 0, float(second))
        for track in (large, small):
            report = rtcp.pack_receiver_report(FAR, [block(track.ssrc, (track.sequence - 1) & 0xFFFF)])
            sender.receive_rtcp(report, second + 0.5)
    assert sender.estimate.delivered_bitrate is not None
    assert sender.estimate.delivered_bitrate > 700_000


def test_the_largest_packet_has_room_for_the_layers_name() -> None:
    large, _ = tracks()
    plain = HeaderExtensions(None, 3)
    assert large.extensions.header_size == 12 + 4 + 8
    assert large.extensions.size > plain.size


# --- who goes first


def picture(packets: int, size: int = 1000) -> list[tuple[bytes, bool]]:
    return [(bytes(size), index == packets - 1) for index in range(packets)]


def drained(layer: SmallLayer, now: float, until: float) -> list[tuple[float, int]]:
    """When how many packets left."""
    left = []
    while (due := layer.next_deadline()) is not None and due <= until:
        now = max(now, due)
        if (found := layer.pop(now)) is not None:
            left.append((round(now, 4), len(found[0])))
    return left


def test_a_picture_leaves_a_few_packets_at_a_time() -> None:
    layer = SmallLayer(Pacer())
    layer.add(picture(1), 4.0, 99.0, keyframe=True)
    assert layer.pop(99.0) == (picture(1), 4.0)
    layer.add(picture(10), 5.0, 100.0, keyframe=False)
    assert layer.pop(100.0) == (picture(10)[:BURST], 5.0)
    assert layer.pop(100.0) is None
    assert drained(layer, 100.0, 101.0) == [(round(100 + INTERVAL, 4), BURST), (round(100 + 2 * INTERVAL, 4), 2)]
    assert layer.next_deadline() is None


def test_a_keyframe_finds_room_in_a_queue_that_the_original_has_filled() -> None:
    """A line of 500 kbit/s to the viewer, whose queue of 0.3 s is full when the small picture's keyframe comes."""
    layer, line = SmallLayer(Pacer()), Bottleneck()
    for _ in range(100):
        line.delay(1228, 500e3, 100.0)
    layer.add(picture(8), 5.0, 100.02, keyframe=True)
    left = [at for at, count in drained(layer, 100.02, 102.0) for _ in range(count)]
    assert len(left) == 8
    assert None not in [line.delay(1228, 500e3, at) for at in left]
    assert left[-1] - left[0] <= 0.2


def test_nothing_leaves_while_the_original_waits() -> None:
    pacer = Pacer()
    layer = SmallLayer(pacer)
    assert not pacer.take_video([(bytes(1200), False)] * 60, 1.0, 100.0), "a keyframe that is spread"
    layer.add(picture(2), 5.0, 100.0, keyframe=True)
    assert layer.pop(100.0) is None
    assert layer.next_deadline() == pytest.approx(100.0 + YIELD)
    while (deadline := pacer.next_deadline()) is not None:
        pacer.pop(deadline)
    assert layer.pop(100.0 + YIELD) == (picture(2)[:1], 5.0)


def test_an_original_that_always_waits_holds_the_small_one_back_for_a_moment_alone() -> None:
    """As on a busy machine, where every picture is spread over the time until the next."""
    pacer = Pacer()
    layer = SmallLayer(pacer)
    assert not pacer.take_video([(bytes(1200), False)] * 60, 1.0, 100.0)
    layer.add(picture(2), 5.0, 100.0, keyframe=True)
    left = drained(layer, 100.0, 102.0)
    assert pacer.queued_bytes
    assert [count for _, count in left] == [1, 1]
    assert left[0][0] - 100.0 <= LONGEST_YIELD + 2 * YIELD


def test_whoever_asks_for_keyframes_again_and_again_gets_one_on_a_narrow_uplink_too() -> None:
    pacer = Pacer()
    pacer.ceiling = 400_000.0
    layer = SmallLayer(pacer)
    assert not pacer.take_video([(bytes(1200), False)] * 200, 1.0, 100.0)
    left: list[tuple[float, int]] = []
    for second in range(7):
        layer.add(picture(3), 5.0 + second, 100.0 + second, keyframe=True)
        left += drained(layer, 100.0 + second, 101.0 + second)
    assert left, "each took the place of the one before"
    assert left[0][0] == pytest.approx(100.0 + LONGEST_WAIT, abs=2 * YIELD)


def test_on_a_narrow_uplink_it_gets_what_is_left_over_and_one_packet_when_nothing_ever_is() -> None:
    pacer = Pacer()
    pacer.ceiling = 400_000.0
    layer = SmallLayer(pacer)
    layer.add(picture(8), 5.0, 100.0, keyframe=True)
    left = drained(layer, 100.0, 102.0)
    assert sum(count for _, count in left) == 8
    assert left[-1][0] - 100.0 > 3 * 1000 * 8 / 400_000, "what a burst does not cover waits for the line"
    before = pacer.queued_bytes
    assert not pacer.take_video([(bytes(1200), False)] * 200, 1.0, 102.0)
    assert pacer.queued_bytes > before
    layer.add(picture(3), 6.0, 102.0, keyframe=True)
    late = drained(layer, 102.0, 102.0 + LONGEST_WAIT + 1)
    assert late[0][0] >= 102.0 + LONGEST_WAIT
    assert {count for _, count in late} == {1}


def test_a_keyframe_takes_the_place_of_what_has_not_begun() -> None:
    layer = SmallLayer(Pacer())
    layer.add(picture(6), 1.0, 100.0, keyframe=True)
    assert layer.pop(100.0) is not None
    layer.add(picture(6), 2.0, 100.001, keyframe=True)
    layer.add(picture(6), 3.0, 100.002, keyframe=True)
    times = []
    while (due := layer.next_deadline()) is not None:
        found = layer.pop(due)
        times.append(found[1] if found else 0.0)
    assert times == [1.0] * 5 + [3.0] * 6, "what has begun is finished"
    assert layer.unsent == 1


def test_what_waits_is_bounded_and_goes_on_at_a_keyframe() -> None:
    layer = SmallLayer(Pacer())
    layer.add(picture(1), 0.0, 100.0, keyframe=False)
    assert layer.unsent == 1, "it refers to what was never sent"
    layer.add(picture(1), 0.1, 100.0, keyframe=True)
    for index in range(MOST_QUEUED // 1000):
        layer.add(picture(1), 1.0 + index, 100.0, keyframe=False)
    assert layer.waits_for_keyframe
    layer.add(picture(1), 90.0, 100.0, keyframe=False)
    assert layer.next_deadline() is None
    layer.add(picture(1), 91.0, 100.0, keyframe=True)
    assert layer.pop(100.0) is not None


# --- what a sink is offered


def test_layers_are_offered_once_they_are_configured_and_never_again_once_refused() -> None:
    layers = LayersOffered()
    assert not layers.begin()
    layers.configure("keyframes")
    assert layers.begin()
    assert layers.offered == "keyframes"
    assert layers.failed(SimulcastRefused("the answer refuses simulcast"), answered=True), "a plain one, at once"
    assert not layers.begin()
    assert (layers.refusals, layers.why_plain, layers.offered) == (1, "the answer refuses simulcast", "off")
    layers.connected()
    layers.configure("keyframes")
    assert not layers.begin(), "once"
    layers.configure("smooth")
    assert layers.begin(), "somebody has changed something"


def test_offers_that_get_no_answer_are_told_from_a_sink_that_is_down() -> None:
    layers, down = LayersOffered(), RelayError("502")
    layers.configure("smooth")
    tried = [(layers.begin(), layers.failed(down, answered=False)) for _ in range(6)]
    assert tried == [(True, False), (True, True), (False, False)] * 2, "the plain one at once, in the same outage"
    assert layers.begin()
    layers.connected()
    assert (layers.refusals, layers.why_plain) == (0, "")
    for _ in range(2):
        assert layers.begin()
        layers.failed(down, answered=False)
    assert not layers.begin()
    layers.connected()
    assert (layers.refusals, layers.why_plain) == (1, NO_ANSWER)
    assert not layers.begin()


def test_an_outage_that_ends_in_a_pause_costs_no_layers() -> None:
    layers, busy = LayersOffered(), RelayError("503")
    layers.configure("smooth")
    for _ in range(2):
        assert layers.begin()
        assert not layers.failed(busy, answered=False, retry_after=1.0), "it is not asked before that"
    assert not layers.begin(), "what cannot be told apart is to be published in any case"
    layers.connected()
    assert (layers.refusals, layers.why_plain) == (0, "")
    for _ in range(2):
        assert layers.begin(), "with the next publication"
        layers.failed(busy, answered=False, retry_after=1.0)
    layers.forget_unanswered()
    assert layers.begin(), "there was no supervisor, and now there is one"
