"""What a WebRTC camera sends, on a hand-moved clock: key frames on demand, pacing, probes, repetition and faults."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

import av
import pytest

from relay_common.simulation.camera.camera import Camera, CameraSettings
from relay_common.simulation.camera.faults import parse_fault
from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.picture import FRAME_NUMBER_BITS, frame_number_blocks
from relay_common.simulation.camera.webrtc_habits import WebRtcHabits
from relay_common.simulation.camera.webrtc_media import live_specs
from relay_common.simulation.camera.webrtc_player import WebRtcPlayer
from relay_common.simulation.camera.webrtc_sdp import SentTrack
from relay_common.simulation.camera.webrtc_track import OutgoingTrack, Packet

SMALL = VideoSpec(name="Door", width=160, height=120, seconds=4.0, gop=1.0, profile="high")
WALL = 1_700_000_000.25
AUDIO, VIDEO, RTX = 1, 2, 3
SPS, IDR, STAP_A, FU_A = 7, 5, 24, 28
PLAIN = WebRtcHabits(first_keyframe_rate=0, probe_interval=0, idle_gop=2.0)


class Client:
    """Takes what the camera sends, with the time it was sent at."""

    def __init__(self, habits: WebRtcHabits = PLAIN, *, rtx: bool = True, nack: bool = True) -> None:
        self.camera = Camera(CameraSettings("Door", SMALL, webrtc=habits))
        self.sent: list[tuple[float, Packet]] = []
        self.reports: list[bytes] = []
        self.noise: list[bytes] = []
        self.now = 50.0
        rng = random.Random(1)
        video = SentTrack("video", 97, VIDEO, 99 if rtx else None, RTX, nack)
        tracks = [
            OutgoingTrack(video, 90_000, rng, WALL),
            OutgoingTrack(SentTrack("audio", 111, AUDIO, None, 0, False), 48_000, rng, WALL),
        ]
        self.player = WebRtcPlayer(self, self.camera, *tracks, now=self.now, position=WALL, wall=WALL, rng=rng)

    def send_rtp(self, packet: Packet) -> None:
        self.sent.append((self.now, packet))

    def send_rtcp(self, compound: bytes) -> None:
        self.reports.append(compound)

    def send_noise(self, datagram: bytes) -> None:
        self.noise.append(datagram)

    def run(self, seconds: float) -> None:
        """Step the player whenever it asks for it."""
        end = self.now + seconds
        while (due := self.player.step(self.now)) is not None and due <= end:
            assert due > self.now
            self.now = due
        self.now = end

    def inflict(self, kind: str, seconds: float | None = None, **parameters: Any) -> None:
        self.camera.faults.add(parse_fault(kind, seconds, **parameters), self.now)

    def packets(self, ssrc: int = VIDEO) -> list[Packet]:
        return [packet for _, packet in self.sent if packet.ssrc == ssrc]

    def idrs(self) -> list[tuple[float, bool]]:
        """When each IDR began, and whether it came with parameter sets."""
        found: dict[int, tuple[float, set[int]]] = {}
        for moment, packet in self.sent:
            if packet.ssrc == VIDEO and packet.payload:
                found.setdefault(packet.timestamp, (moment, set()))[1].update(kinds(packet.payload))
        return [(round(moment - 50.0, 2), SPS in types) for moment, types in found.values() if IDR in types]


def kinds(payload: bytes) -> set[int]:
    """The NAL unit types in an RFC 6184 payload."""
    kind = payload[0] & 31
    if kind == FU_A:
        return {payload[1] & 31}
    if kind != STAP_A:
        return {kind}
    return {unit[0] & 31 for unit in aggregated(payload)}


def aggregated(payload: bytes) -> list[bytes]:
    units, position = [], 1
    while position < len(payload):
        size = int.from_bytes(payload[position : position + 2], "big")
        units.append(payload[position + 2 : position + 2 + size])
        position += 2 + size
    return units


def pictures(packets: list[Packet]) -> list[int]:
    """Decode; the numbers that stand in the pictures."""
    return [frame_number(frame) for frame in decoded(packets)]


def decoded(packets: list[Packet]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames: list[av.VideoFrame] = []
    for _, unit in itertools.groupby(packets, key=lambda packet: packet.timestamp):
        stream = b""
        for payload in (packet.payload for packet in unit if packet.payload):
            if payload[0] & 31 == STAP_A:
                stream += b"".join(b"\0\0\0\1" + nal for nal in aggregated(payload))
            elif payload[0] & 31 == FU_A:
                if payload[1] & 0x80:
                    stream += b"\0\0\0\1" + bytes([payload[0] & 0xE0 | payload[1] & 31])
                stream += payload[2:]
            else:
                stream += b"\0\0\0\1" + payload
        frames += decoder.decode(av.Packet(stream))
    return frames + decoder.decode(None)


def frame_number(frame: av.VideoFrame) -> int:
    left, top, edge = frame_number_blocks(frame.width, frame.height)
    pixels, stride = memoryview(frame.planes[0]), frame.planes[0].line_size
    row = (top + edge // 2) * stride
    bits = [pixels[row + left + edge * block + edge // 2] > 128 for block in range(FRAME_NUMBER_BITS)]
    return int("".join(str(int(bit)) for bit in bits), 2)


def test_the_loops_of_a_clip_have_their_idrs_at_even_distances() -> None:
    specs = live_specs(VideoSpec(), 3.3)
    assert [spec.gop_frames for spec in specs] == [100] * 4
    assert [spec.first for spec in specs] == [0, 25, 50, 75]
    assert [spec.gop_frames for spec in live_specs(SMALL, 3.3)] == [120] * 4


def test_an_idle_camera_has_a_long_gop_with_parameter_sets_in_band() -> None:
    client = Client()
    client.run(6.5)
    moments = [moment for moment, _ in client.idrs()]
    assert [round(b - a, 2) for a, b in itertools.pairwise(moments)] == [2.0] * (len(moments) - 1)
    assert moments[0] <= 0.5
    assert all(with_sets for _, with_sets in client.idrs())
    assert client.camera.counters.playback.keyframes == len(moments) >= 3


def test_pli_brings_an_idr_without_parameter_sets_and_fir_one_with_them() -> None:
    client = Client()
    client.run(1.0)
    for parameter_sets in (False, True):
        before, asked = len(client.idrs()), client.now - 50.0
        client.player.request_keyframe(parameter_sets=parameter_sets)
        client.run(0.55)
        (moment, with_sets) = client.idrs()[before]
        assert 0 <= moment - asked <= 0.52
        assert with_sets is parameter_sets
    # The next one, that nobody asked for, is a whole GOP away and has them.
    last = client.idrs()[-1][0]
    client.run(2.6)
    assert client.idrs()[-1] == (pytest.approx(last + 2.0, abs=0.02), True)


def test_a_pli_does_not_weaken_a_fir() -> None:
    client = Client()
    client.run(1.0)
    client.player.request_keyframe(parameter_sets=True)
    client.player.request_keyframe(parameter_sets=False)
    client.run(0.55)
    assert client.idrs()[-1][1]


def test_key_frames_on_demand_do_not_disturb_the_pictures() -> None:
    client = Client()
    client.run(0.7)
    for _ in range(4):
        client.player.request_keyframe(parameter_sets=False)
        client.run(0.8)
    numbers = pictures(client.packets())
    assert len(client.idrs()) >= 5
    assert {(b - a) % SMALL.frames for a, b in itertools.pairwise(numbers)} == {1}


def test_the_first_idr_trickles_until_a_remb_arrives() -> None:
    took = {}
    for remb in (False, True):
        client = Client(PLAIN.changed(first_keyframe_rate=100_000))
        client.run(0.6)
        if remb:
            client.player.set_bitrate(4_000_000)
        client.run(2.0)
        first = client.packets()[0].timestamp
        moments = [moment for moment, packet in client.sent if packet.ssrc == VIDEO and packet.timestamp == first]
        size = sum(len(packet.payload) + 12 for packet in client.packets() if packet.timestamp == first)
        took[remb] = moments[-1] - moments[0]
        assert len(moments) > 4
        if not remb:
            assert took[False] == pytest.approx(8 * size / 100_000, rel=0.25)
        # What was held back comes in order, and later pictures are on time.
        sequences = [packet.sequence for packet in client.packets()]
        assert {(b - a) & 0xFFFF for a, b in itertools.pairwise(sequences)} == {1}
        assert client.packets()[-1].timestamp - first & 0xFFFFFFFF > 90_000
    assert took[True] < took[False]


def test_rtp_runs_on_and_sender_reports_tell_one_clock() -> None:
    client = Client()
    client.run(5.0)
    times = list(dict.fromkeys(packet.timestamp for packet in client.packets()))
    assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(times)} == {3000}
    sound = client.packets(AUDIO)
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise(sound)} == {960}
    assert {packet.second_byte for packet in sound} == {111}
    assert {packet.second_byte & 127 for packet in client.packets()} == {97}
    assert len(client.reports) == 10
    for ssrc, rate in ((VIDEO, 90_000), (AUDIO, 48_000)):
        blocks = [struct.unpack_from("!IQI", report, 4) for report in client.reports]
        first, *_, last = (block for block in blocks if block[0] == ssrc)
        elapsed = (last[1] - first[1]) / (1 << 32)
        assert ((last[2] - first[2]) & 0xFFFFFFFF) / rate == pytest.approx(elapsed, abs=1e-3)


def test_packets_without_payload_come_between_pictures() -> None:
    client = Client(PLAIN.changed(probe_interval=1.0))
    client.run(5.0)
    empty = [packet for packet in client.packets() if not packet.payload]
    assert len(empty) == client.camera.webrtc.probes == 4
    assert {packet.padding for packet in empty} == {0, 200}
    assert not any(packet.second_byte & 0x80 for packet in empty)
    sequences = [packet.sequence for packet in client.packets()]
    assert {(b - a) & 0xFFFF for a, b in itertools.pairwise(sequences)} == {1}


@pytest.mark.parametrize(("rtx", "nack"), [(True, True), (False, True), (False, False)])
def test_lost_packets_are_repeated_as_agreed(rtx: bool, nack: bool) -> None:
    client = Client(rtx=rtx, nack=nack)
    client.run(0.6)
    client.inflict("loss", rate=0.3)
    client.run(1.0)
    client.camera.faults.clear()
    client.run(0.1)
    came = {packet.sequence for packet in client.packets()}
    first, last = client.packets()[0].sequence, client.packets()[-1].sequence
    lost = [n & 0xFFFF for n in range(first, first + ((last - first) & 0xFFFF)) if n & 0xFFFF not in came]
    assert lost
    before = len(client.sent)
    assert [client.player.repeat(VIDEO, sequence) for sequence in lost] == [rtx or nack] * len(lost)
    again = [packet for _, packet in client.sent[before:]]
    if rtx:
        assert {packet.ssrc for packet in again} == {RTX}
        assert {packet.second_byte & 127 for packet in again} == {99}
        assert [int.from_bytes(packet.payload[:2], "big") for packet in again] == lost
    elif nack:
        assert [(packet.ssrc, packet.sequence) for packet in again] == [(VIDEO, sequence) for sequence in lost]
    else:
        assert not again
    assert not client.player.repeat(VIDEO, (last + 100) & 0xFFFF)
    assert not client.player.repeat(VIDEO, (last + 2048) & 0xFFFF)  # not what has its place in the history
    assert client.camera.counters.playback.packets["video"] == len(client.packets())


def test_reordering_swaps_neighbours_and_loses_nothing() -> None:
    client = Client()
    client.run(0.6)
    client.inflict("reorder", rate=0.2)
    client.run(2.0)
    client.camera.faults.clear()
    client.run(0.1)
    sequences = [packet.sequence for packet in client.packets()]
    assert sequences != sorted(sequences)
    assert sorted(sequences) == list(range(min(sequences), max(sequences) + 1))
    assert client.camera.webrtc.reordered > 0


def test_after_a_pause_video_goes_on_with_an_idr() -> None:
    client = Client()
    client.run(1.0)
    client.inflict("silence", 6.0, track="both")
    count = len(client.sent)
    client.run(5.9)
    assert len(client.sent) == count
    client.run(0.7)
    later = client.sent[count:]
    first = next(packet for _, packet in later if packet.ssrc == VIDEO)
    assert SPS in kinds(first.payload)
    assert any(packet.ssrc == AUDIO for _, packet in later)


def test_bursts_hold_everything_back_and_let_it_go_at_once() -> None:
    client = Client()
    client.run(1.0)
    client.inflict("burst", period=0.5)
    count = len(client.sent)
    client.run(2.0)
    moments = sorted({round(moment, 3) for moment, _ in client.sent[count:]})
    assert [round(b - a, 1) for a, b in itertools.pairwise(moments)] == [0.5] * 3


def test_parameter_sets_can_be_missing_altogether_and_noise_can_come() -> None:
    client = Client()
    client.run(0.6)
    client.inflict("no_parameter_sets")
    client.inflict("garbage", bytes=40)
    client.player.request_keyframe(parameter_sets=True)
    client.run(0.55)
    assert [with_sets for _, with_sets in client.idrs()] == [True, False]
    assert [len(datagram) for datagram in client.noise] == [40]


async def test_the_picture_changes_its_size_at_an_idr() -> None:
    client = Client()
    client.run(1.0)
    await client.camera.inflict(parse_fault("parameters", width=192, height=144), client.now)
    client.player.request_keyframe(parameter_sets=False)
    client.run(1.0)
    assert [frame.width for frame in decoded(client.packets())].count(192) >= 15


def test_timestamps_jump_and_drift() -> None:
    client = Client()
    client.run(1.0)
    client.player.jump(100.0, "video")
    before = client.packets()[-1].timestamp
    client.run(0.05)
    assert round((client.packets()[-1].timestamp - before & 0xFFFFFFFF) / 90_000) == 100
    client.inflict("drift", ppm=50_000.0)
    count = len(client.packets(AUDIO))
    client.run(4.0)
    assert len(client.packets(AUDIO)) - count == pytest.approx(4.0 * 50 * 1.05, abs=2)
