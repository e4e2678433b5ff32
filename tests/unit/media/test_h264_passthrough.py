"""Passthrough of real H.264: from libx264 and FFmpeg's RTP muxer, through the relay, to FFmpeg's decoder."""

from __future__ import annotations

import base64
import functools
import io
import random
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.media.access_unit import AccessUnit, AccessUnitAssembler
from relay_worker.media.h264_passthrough import H264Passthrough
from relay_worker.rtp.h264 import FU_A, fragment, join_stap_a
from relay_worker.rtp.packet import RtpView, parse_rtp
from tests.fixtures.attributes import attributes

pytestmark = pytest.mark.usefixtures("data_path")

SPS = bytes.fromhex("674d401eda0280bfe5840000030004000003 00f03c58ba80")
PPS = bytes.fromhex("68ee3c80")
SPROP = ",".join(base64.b64encode(nal).decode() for nal in (SPS, PPS))
IDR = b"\x65\x88" + b"i" * 20
P = b"\x41\x9a" + b"p" * 20

FRAMES, GOP = 60, 20


class _Packets(io.RawIOBase):
    """What FFmpeg's RTP muxer writes: one write a packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.packets.append(bytes(data))
        return len(self.packets[-1])


@functools.cache
def clip(packet_size: int, slices: int = 1) -> list[RtpView]:
    """Two seconds of a noisy picture in RTP packets of at most `packet_size` bytes."""
    out = _Packets()
    with av.open(out, "w", format="rtp", options={"pkt_size": str(packet_size)}, buffer_size=packet_size) as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 1_500_000
        stream.options = {
            "preset": "ultrafast", "tune": "zerolatency", "g": str(GOP), "threads": "1",
            "x264-params": f"keyint={GOP}:scenecut=0:slices={slices}:sliced-threads=0",
        }  # fmt: skip
        noise = bytes((i * 7919 >> 3) & 0xFF for i in range(400_000))
        for index in range(FRAMES):
            frame = av.VideoFrame(320, 240, "yuv420p")
            for plane in frame.planes:
                plane.update(noise[index * 997 : index * 997 + plane.buffer_size])
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return [parse_rtp(packet) for packet in out.packets if not 192 <= packet[1] <= 223]


def relay(views: list[RtpView], passthrough: H264Passthrough, lost: frozenset[int] = frozenset()) -> list[AccessUnit]:
    """The access units a receiver gets, with the views at the positions `lost` missing."""
    assembler = AccessUnitAssembler()
    units: list[AccessUnit] = []
    missing = 0
    for position, view in enumerate(views):
        if position in lost:
            missing += 1
            continue
        out = passthrough.receive_payload(view.payload, view.marker, view.timestamp, missing)
        missing = 0
        for payload, marker in out:
            assert len(payload) <= 1200
            # A frame that was cut off by loss has no marker; its receiver drops it when the next one begins.
            units += assembler.receive_payload(payload, marker, view.timestamp)
    return units


def decode(units: list[AccessUnit]) -> int:
    """Frames that decode; raises on any error in the bitstream."""
    codec = av.CodecContext.create("h264", "r")
    codec.options = {"err_detect": "explode", "ec": "0"}
    codec.thread_count = 1
    count = sum(len(codec.decode(av.Packet(unit.data))) for unit in units)
    return count + len(codec.decode(None))


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("packet_size", [500, 1200, 1212, 1472, 9000])
def test_every_frame_decodes(packet_size: int, slices: int) -> None:
    passthrough = H264Passthrough()
    units = relay(clip(packet_size, slices), passthrough)
    assert all(unit.complete for unit in units)
    assert decode(units) == FRAMES
    assert (passthrough.frames, passthrough.keyframes, passthrough.losses) == (FRAMES, FRAMES // GOP, 0)
    assert passthrough.malformed == passthrough.unmarked == 0


def test_what_fits_goes_out_as_it_came() -> None:
    views = clip(1200)
    passthrough = H264Passthrough()
    out = [item for view in views for item in passthrough.receive_payload(view.payload, view.marker, view.timestamp, 0)]
    assert out[-200:] == [(view.payload, view.marker) for view in views][-200:]


def test_recut_packets_are_full() -> None:
    passthrough = H264Passthrough()
    sizes = [
        len(payload)
        for view in clip(1472)
        for payload, _ in passthrough.receive_payload(view.payload, view.marker, view.timestamp, 0)
    ]
    received = sum(len(view.payload) for view in clip(1472))
    assert len(sizes) < received / 1200 + 2.1 * FRAMES  # a short packet at the end of each frame, and few others


@pytest.mark.slow
@pytest.mark.parametrize("packet_size", [500, 1472])
def test_after_any_loss_the_next_idr_and_nothing_before_it(packet_size: int) -> None:
    views = clip(packet_size)
    stamps = sorted({view.timestamp for view in views})
    for position in range(5, len(views), max(1, len(views) // 25)):
        passthrough = H264Passthrough()
        units = relay(views, passthrough, frozenset((position,)))
        hit = stamps.index(views[position].timestamp)
        got = [stamps.index(unit.timestamp) for unit in units if unit.complete]
        following = (hit // GOP + 1) * GOP
        # A lost parameter set is in the cache from before, so an IDR picture may survive the loss before it.
        survived = hit % GOP == 0 and hit in got
        assert got == list(range(FRAMES)) if survived else got == [*range(hit), *range(following, FRAMES)]
        assert decode([unit for unit in units if unit.complete]) == len(got)
        assert passthrough.losses == (0 if position == 0 else 1)


def test_parameter_sets_come_before_every_idr_that_lacks_them() -> None:
    views = [view for view in clip(500) if view.payload[0] & 0x1F not in (7, 8, 24)]
    sets = [view.payload for view in clip(500) if view.payload[0] & 0x1F in (7, 8, 24)]
    assert sets
    without = H264Passthrough()
    assert relay(views, without) == []
    assert without.dropped == len(views)
    passthrough = H264Passthrough()
    for payload in sets[:2]:
        passthrough.receive_payload(payload, False, 1, 0)
    assert decode(relay(views, passthrough)) == FRAMES


# By hand


def ready() -> H264Passthrough:
    passthrough = H264Passthrough(max_payload=100)
    assert passthrough.receive_payload(join_stap_a([SPS, PPS]), False, 0, 0) == []
    assert passthrough.receive_payload(IDR, True, 0, 0) == [(join_stap_a([SPS, PPS]), False), (IDR, True)]
    return passthrough


def test_size_is_known_from_the_sps() -> None:
    info = ready().sps
    assert info is not None
    assert (info.width, info.height, info.profile_level_id) == (640, 360, "4d401e")


def test_sets_in_the_access_unit_are_not_repeated() -> None:
    passthrough = ready()
    assert passthrough.receive_payload(SPS, False, 1, 0) == [(SPS, False)]
    assert passthrough.receive_payload(PPS, False, 1, 0) == [(PPS, False)]
    assert passthrough.receive_payload(IDR, True, 1, 0) == [(IDR, True)]
    whole = join_stap_a([SPS, PPS, IDR])
    assert passthrough.receive_payload(whole, True, 2, 0) == [(whole, True)]


def test_second_slice_of_a_damaged_idr_is_no_start() -> None:
    passthrough = ready()
    second = b"\x65\x40" + b"i" * 20  # first_mb_in_slice is not 0
    assert passthrough.receive_payload(second, True, 1, 1) == []
    assert passthrough.wants_keyframe
    assert passthrough.receive_payload(IDR, False, 2, 0)
    assert passthrough.receive_payload(second, True, 2, 0) == [(second, True)]


def test_large_aggregate_is_taken_apart() -> None:
    passthrough = ready()
    big = b"\x41\x9a" + b"p" * 130
    out = passthrough.receive_payload(join_stap_a([b"\x06sei", big]), True, 1, 0)
    assert [marker for _, marker in out] == [False, False, True]
    assembler = AccessUnitAssembler()
    (unit,) = [u for payload, marker in out for u in assembler.receive_payload(payload, marker, 1)]
    assert unit.data == b"\0\0\0\1\x06sei\0\0\0\1" + big


def test_fragment_without_start_breaks_the_stream() -> None:
    passthrough = ready()
    middle = fragment(b"\x41\x9a" + b"p" * 200, 80)[1]
    assert passthrough.receive_payload(middle, False, 1, 0) == []
    assert (passthrough.malformed, passthrough.wants_keyframe, passthrough.losses) == (1, True, 1)


def test_fragment_with_start_and_end_is_a_whole_unit() -> None:
    passthrough = ready()
    whole = bytes((0x40 | FU_A, 0xC0 | 1)) + P[1:]
    assert passthrough.receive_payload(whole, True, 1, 0) == [(P, True)]


def test_unfinished_fragment_breaks_the_stream() -> None:
    passthrough = ready()
    assert passthrough.receive_payload(fragment(b"\x41\x9a" + b"p" * 200, 80)[0], False, 1, 0)
    assert passthrough.receive_payload(P, True, 2, 0) == []
    assert passthrough.losses == 1


def test_probes_unknown_and_delimiters() -> None:
    passthrough = ready()
    assert passthrough.receive_payload(b"", False, 1, 0) == []
    assert passthrough.receive_payload(b"\x1fxx", False, 1, 0) == []
    assert passthrough.receive_payload(b"\x09\xf0", False, 1, 0) == [(b"\x09\xf0", False)]
    assert passthrough.receive_payload(P, True, 1, 0) == [(P, True)]
    assert (passthrough.empty, passthrough.ignored, passthrough.wants_keyframe) == (1, 1, False)


def test_frames_without_marker_are_counted() -> None:
    passthrough = ready()
    passthrough.receive_payload(P, False, 1, 0)
    passthrough.receive_payload(P, False, 2, 0)
    passthrough.receive_payload(P, True, 3, 0)
    assert (passthrough.unmarked, passthrough.frames) == (2, 4)


def test_changed_parameters_are_followed() -> None:
    passthrough = H264Passthrough(sprop_parameter_sets=SPROP)
    assert passthrough.sps is not None
    assert passthrough.sps.width == 640
    assert decode(relay(clip(500), passthrough)) == FRAMES
    assert passthrough.sps is not None
    assert passthrough.sps.width == 320
    assert passthrough.parameter_sets.changes >= 1


def sent(passthrough: H264Passthrough, out: list[tuple[bytes, bool]]) -> list[tuple[int, bytes, bool]]:
    """All that is to leave now, in order, with timestamps."""
    earlier, passthrough.earlier = passthrough.earlier, []
    return [(at, *item) for at, items in [*earlier, (passthrough.timestamp, out)] for item in items]


payloads = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [SPS, PPS, IDR, P, join_stap_a([SPS, PPS, IDR]), b"\x7c\x85" + b"i" * 300, b"\x7c\x45" + b"i" * 90]
    ),
    st.builds(lambda header, body: bytes((0x7C, header)) + body, st.integers(0, 255), st.binary(max_size=250)),
    st.builds(lambda body: b"\x78" + body, st.binary(max_size=50)),
)


@given(st.lists(st.tuples(payloads, st.booleans(), st.integers(0, 3), st.integers(0, 1)), max_size=30))
def test_takes_any_payload(packets: list[tuple[bytes, bool, int, int]]) -> None:
    passthrough = H264Passthrough(max_payload=100)
    for packet in packets:
        out = passthrough.receive_payload(*packet)
        assert all(0 < len(payload) <= 100 for payload, _ in out)
        assert sum(marker for _, marker in out) <= 1
        assert len(passthrough._carry or b"") <= 300
    assert all(0 < len(payload) <= 100 for _, payloads in passthrough.earlier for payload, _ in payloads)


SHORT = st.one_of(
    payloads,
    st.builds(
        lambda header, body: bytes((0x7C, header)) + body, st.sampled_from([1, 5, 65, 129]), st.binary(min_size=1)
    ),
)


@given(st.lists(st.tuples(st.lists(st.tuples(SHORT, st.booleans()), min_size=1, max_size=8), st.integers(0, 1))))
def test_a_run_is_taken_as_each_payload_by_itself(runs: list[tuple[list[tuple[bytes, bool]], int]]) -> None:
    one, whole = H264Passthrough(100, SPROP), H264Passthrough(100, SPROP)
    for timestamp, (run, lost) in enumerate(runs):
        singly = [
            item
            for index, (payload, marker) in enumerate(run)
            for item in sent(one, one.receive_payload(payload, marker, timestamp // 2, 0 if index else lost))
        ]
        assert sent(whole, whole.receive_run(run, timestamp // 2, lost)) == singly
    state = [{name: value for name, value in attributes(p).items() if name != "parameter_sets"} for p in (one, whole)]
    assert state[0] == state[1]


@pytest.mark.parametrize("packet_size", [300, 900, 1472])
@pytest.mark.parametrize("slices", [1, 3])
def test_runs_of_a_real_stream_with_holes_are_taken_as_each_payload_by_itself(packet_size: int, slices: int) -> None:
    for seed in range(10):
        rng = random.Random(seed)
        one, whole = H264Passthrough(1000), H264Passthrough(1000)
        singly: list[tuple[bytes, bool]] = []
        together: list[tuple[bytes, bool]] = []
        lost = skipped = 0
        run: list[tuple[bytes, bool]] = []
        before = 0  # lost before the run
        timestamp = 0
        for view in clip(packet_size, slices):
            if seed and rng.random() < 0.01:
                lost += 1
                skipped += 1
                continue
            if lost or view.timestamp != timestamp or rng.random() < 0.1:
                together += whole.receive_run(run, timestamp, before)
                run, before, timestamp = [], lost, view.timestamp
            singly += one.receive_payload(view.payload, view.marker, view.timestamp, lost)
            lost = 0
            run.append((view.payload, view.marker))
        together += whole.receive_run(run, timestamp, before)
        assert together == singly
        numbers = [{name: n for name, n in attributes(p).items() if isinstance(n, int)} for p in (one, whole)]
        assert numbers[0] == numbers[1]
        assert (whole.frames == FRAMES) == (not skipped)
        assert seed or whole.keyframes == FRAMES // GOP
