"""The replay of clips, on a hand-moved clock: RTP numbers, timing and faults."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

import pytest

from relay_common.simulation.camera.faults import FaultSet, parse_fault
from relay_common.simulation.camera.media import AudioSpec, VideoSpec
from relay_common.simulation.camera.packetizer import audio_track, video_track
from relay_common.simulation.camera.player import PlaybackCounters, Player, TrackPlayback, sender_report

SMALL = VideoSpec(name="Door", width=160, height=120, seconds=2.0, gop=1.0)
WALL = 1_700_000_000.25
NTP = 2_208_988_800


class Screen:
    """Takes what a player writes, with the time it was written at."""

    def __init__(self, *, tracks: str = "both", **options: Any) -> None:
        self.faults, self.counters = FaultSet(), PlaybackCounters()
        self.writes: list[tuple[float, bytes]] = []
        self.now = 50.0
        rng = random.Random(1)
        playbacks = []
        if tracks != "audio":
            playbacks.append(TrackPlayback(video_track(SMALL), 0, 1, rng, WALL))
        if tracks != "video":
            playbacks.append(TrackPlayback(audio_track(AudioSpec()), 2, 3, rng, WALL))
        self.player = Player(
            self, playbacks, self.faults, self.counters, phase=0.0, now=self.now, wall=WALL, rng=rng, **options
        )

    def write(self, data: bytes) -> None:
        self.writes.append((self.now, data))

    def run(self, seconds: float) -> None:
        """Step the player whenever it asks for it."""
        end = self.now + seconds
        while True:
            due = self.player.step(self.now)
            assert due is not None
            if due > end:
                self.now = end
                return
            self.now = due

    def packets(self, channel: int) -> list[tuple[float, int, int, bytes]]:
        """(time, sequence, timestamp, packet) of everything on a channel."""
        out = []
        for moment, data in self.writes:
            while data:
                assert data[:1] == b"$"
                size = int.from_bytes(data[2:4], "big")
                packet, data, where = data[4 : 4 + size], data[4 + size :], data[1]
                if where == channel:
                    out.append((moment, *struct.unpack("!HI", packet[2:8]), packet))
        return out


def test_sequence_numbers_and_timestamps_run_on_across_loops() -> None:
    screen = Screen()
    screen.run(7.0)  # three and a half loops of video, almost two of audio
    video, audio = screen.packets(0), screen.packets(2)
    for packets in (video, audio):
        steps = {(b[1] - a[1]) & 0xFFFF for a, b in itertools.pairwise(packets)}
        assert steps == {1}
    pictures = list(dict.fromkeys(packet[2] for packet in video))
    assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(pictures)} == {3000}
    assert {(b[2] - a[2]) & 0xFFFFFFFF for a, b in itertools.pairwise(audio)} == {1024}
    assert screen.counters.packets == {"video": len(video), "audio": len(audio)}


def test_video_begins_with_an_idr_and_each_unit_is_one_write_at_its_time() -> None:
    screen = Screen(tracks="video", report_interval=1e9)
    screen.run(3.0)
    assert screen.counters.keyframes == screen.counters.frames["video"] // 30 + 1
    first = screen.packets(0)[0][3]
    assert first[12] & 0x1F == 24, "SPS and PPS aggregated before the IDR"
    moments = [moment for moment, data in screen.writes if data[1] == 0]
    # The wall clock stood at .25 into a GOP that begins at whole seconds.
    assert moments[0] == pytest.approx(50.75, abs=0.002)
    assert all(b - a == pytest.approx(1 / 30, abs=0.002) for a, b in itertools.pairwise(moments))


def test_sender_reports_tie_both_tracks_to_one_clock() -> None:
    screen = Screen(report_interval=1.0)
    screen.run(5.0)
    for channel, rate in ((0, 90_000), (2, 16_000)):
        media = {packet[2]: packet[0] for packet in reversed(screen.packets(channel))}
        reports = screen.packets(channel + 1)
        assert len(reports) >= 4
        for moment, _, _, report in reports:
            seconds, fraction, timestamp = struct.unpack("!III", report[8:20])
            assert seconds - NTP + fraction / 2**32 == pytest.approx(WALL + moment - 50.0, abs=1e-3)
            nearest = min(media, key=lambda ts: abs((ts - timestamp + 2**31) % 2**32 - 2**31))
            offset = ((timestamp - nearest + 2**31) % 2**32 - 2**31) / rate
            assert media[nearest] + offset == pytest.approx(moment, abs=0.003)


def test_a_fast_clock_sends_more_in_the_same_time() -> None:
    screen = Screen(tracks="video")
    screen.faults.add(parse_fault("drift", ppm=100_000.0), screen.now)
    screen.run(11.0)
    assert screen.counters.frames["video"] == pytest.approx(10.25 * 33, abs=8)


def test_bursts_hold_everything_back_and_lose_nothing() -> None:
    screen = Screen(tracks="video")
    screen.run(1.0)
    screen.faults.add(parse_fault("burst", seconds=3, period=0.5), screen.now)
    before = len(screen.writes)
    screen.run(4.0)
    moments = [moment for moment, _ in screen.writes[before:] if moment < 54.0]
    assert len(moments) == pytest.approx(6, abs=1)
    assert all(b - a >= 0.49 for a, b in itertools.pairwise(moments))
    sequences = [packet[1] for packet in screen.packets(0)]
    assert {(b - a) & 0xFFFF for a, b in itertools.pairwise(sequences)} == {1}


def test_silence_concerns_its_track_only() -> None:
    screen = Screen()
    screen.run(1.0)
    screen.faults.add(parse_fault("silence", track="audio"), screen.now)
    audio, video = len(screen.packets(2)), len(screen.packets(0))
    screen.run(1.0)
    assert len(screen.packets(2)) == audio
    assert len(screen.packets(0)) > video


def test_a_stall_writes_nothing_and_may_keep_a_backlog() -> None:
    for backlog in (False, True):
        screen = Screen(tracks="audio")
        screen.run(1.0)
        screen.faults.add(parse_fault("stall", seconds=1, backlog=backlog), screen.now)
        before = len(screen.writes)
        screen.run(0.95)
        assert len(screen.writes) == before
        screen.run(1.0)
        sequences = [packet[1] for packet in screen.packets(2)]
        gaps = [b - a for a, b in itertools.pairwise(sequences) if b != a + 1]
        assert bool(gaps) is not backlog


def test_lost_packets_leave_gaps_and_are_counted() -> None:
    screen = Screen(tracks="video")
    screen.faults.add(parse_fault("loss", rate=0.2), screen.now)
    screen.run(4.0)
    sequences = [packet[1] for packet in screen.packets(0)]
    missing = ((sequences[-1] - sequences[0]) & 0xFFFF) + 1 - len(sequences)
    assert 0 < missing <= screen.counters.dropped
    assert screen.counters.dropped == pytest.approx(0.2 * (len(sequences) + missing), rel=0.5)


def test_a_jump_moves_timestamps_and_reports_together() -> None:
    screen = Screen(tracks="video", report_interval=0.1)
    screen.run(2.0)
    last, reported = screen.packets(0)[-1][2], screen.packets(1)[-1]
    screen.player.jump(-100.0, "video")
    screen.writes.clear()
    screen.run(0.2)
    first, report = screen.packets(0)[0][2], screen.packets(1)[0]
    assert (first - last) & 0xFFFFFFFF == (3000 - 9_000_000) & 0xFFFFFFFF
    elapsed = round((report[0] - reported[0]) * 90_000)
    before, after = (int.from_bytes(r[3][16:20], "big") for r in (reported, report))
    assert abs(((after - before - elapsed + 9_000_000) + 2**31) % 2**32 - 2**31) <= 2


def test_garbage_comes_once_between_frames() -> None:
    screen = Screen(tracks="video")
    screen.run(1.0)
    screen.faults.add(parse_fault("garbage", bytes=33), screen.now)
    before = len(screen.writes)
    screen.run(0.2)
    dirty = [data for _, data in screen.writes[before:] if data[:1] != b"$"]
    assert len(dirty) == 1
    assert dirty[0][33:34] == b"$"


def test_dribbling_writes_a_packet_at_a_time() -> None:
    screen = Screen(tracks="video", report_interval=1e9)
    screen.faults.add(parse_fault("dribble"), screen.now)
    screen.run(2.0)
    assert all(len(data) == 4 + int.from_bytes(data[2:4], "big") for _, data in screen.writes)


def test_new_parameters_begin_with_an_idr() -> None:
    other = video_track(VideoSpec(width=96, height=96, seconds=2.0, gop=1.0))
    wanted = [video_track(SMALL)]
    screen = Screen(tracks="video", next_video=lambda now: wanted[0])
    screen.run(2.3)
    wanted[0] = other
    screen.run(2.0)
    ours = {payload for unit in other.units for _, payload in unit.packets}
    foreign = [packet[3][12:] in ours for packet in screen.packets(0)]
    change = foreign.index(True)
    assert all(foreign[change:])
    assert screen.packets(0)[change][3][12] & 0x1F == 24


def test_a_sender_report_is_a_valid_compound() -> None:
    report = sender_report(0x01020304, 0.5, 7, 8, 9)
    assert struct.unpack("!BBHIIIIII", report[:28]) == (0x80, 200, 6, 0x01020304, NTP, 1 << 31, 7, 8, 9)
    assert struct.unpack("!BBH", report[28:32]) == (0x81, 202, (len(report) - 28) // 4 - 1)
    assert len(report) % 4 == 0


def test_what_is_written_is_logged_while_recording() -> None:
    screen = Screen()
    screen.run(1.0)
    assert not screen.counters.sent
    screen.counters.recording = True
    screen.writes.clear()
    screen.run(1.0)
    for kind, channel in (("video", 0), ("audio", 2)):
        written = [(sequence, timestamp, len(packet)) for _, sequence, timestamp, packet in screen.packets(channel)]
        assert [(e[3], e[4], e[5]) for e in screen.counters.sent if e[1] == kind] == written
