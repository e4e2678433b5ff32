"""The publisher against the simulated SFU and against a stock aiortc peer: real ICE, DTLS, SRTP and media."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from relay_common.protocol import Stage
from relay_common.simulation.camera.media import VideoSpec, video_clip
from relay_common.simulation.sfu.options import SfuFaults, SfuTimings, SfuVariant
from relay_common.simulation.sfu.simulator import SfuSimulator
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.filler import SILENCE_20MS
from relay_worker.publish.publication import PublishError, PublisherSettings, PublishTrack
from relay_worker.publish.publisher import Publisher
from relay_worker.publish.publisher_states import PublisherState
from relay_worker.rtp.h264 import split_annex_b
from relay_worker.rtp.h264_packetize import packetize
from relay_worker.webrtc.gso import UdpPath
from tests.fixtures.direct_signaling import DirectSignaling
from tests.fixtures.lateness import Lateness

pytestmark = pytest.mark.media

FPS = 30
LOCAL = PublisherSettings(loopback=True)
Units = list[list[tuple[bytes, bool]]]


@pytest.fixture(scope="module")
def units() -> Units:
    clip = video_clip(VideoSpec(width=320, height=240, bitrate=800_000, gop=1.0, seconds=2.0, profile="baseline"))
    return [packetize(split_annex_b(unit.data)) for unit in clip.units]


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RTCPeerConnection]:
    """A stock aiortc peer that lives on loopback, which aioice leaves out."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    yield connection
    await connection.close()


class PeerSignaling:
    """Has a stock aiortc peer connection answer."""

    def __init__(self, peer: RTCPeerConnection) -> None:
        self._peer = peer

    async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
        await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self._peer.setLocalDescription(await self._peer.createAnswer())
        return str(self._peer.localDescription.sdp)


async def play(publisher: Publisher, units: Units, *, audio: bool = True) -> None:
    """Send the loop in real time until cancelled or the publication ends."""
    start = time.monotonic()
    index = 0
    while publisher.connected:
        now = time.monotonic()
        publisher.send(Frame(Kind.VIDEO, units[index % len(units)], start + index / FPS), now)
        index += 1
        if audio:
            for step in range(2):
                publisher.send(Frame(Kind.AUDIO, [(SILENCE_20MS, False)], start + (2 * index + step) * 0.02, 0.02), now)
        await asyncio.sleep(max(0.0, start + index / FPS - time.monotonic()))


@asynccontextmanager
async def playing(publisher: Publisher, units: Units, *, audio: bool = True) -> AsyncIterator[None]:
    task = asyncio.create_task(play(publisher, units, audio=audio))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publisher.close()


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("gso", [True, False])
async def test_media_reaches_the_sfu_whole_and_is_reported_back(units: Units, gso: bool) -> None:
    async with SfuSimulator(timings=SfuTimings(report_interval=0.2)) as sfu:
        publisher = Publisher(
            "porch", DirectSignaling(sfu), settings=PublisherSettings(loopback=True, gso=gso), profile_idc=66
        )
        await publisher.start()
        assert publisher.audio_accepted
        async with playing(publisher, units):
            await until(lambda: publisher.stats().tracks["video"].packets > 150)
            await until(lambda: publisher.stats().estimate.rtt is not None)
            await until(lambda: publisher.stats().estimate.last_report is not None)
            stats = publisher.stats()
            for kind in ("video", "audio"):
                sent = stats.tracks[kind]
                assert publisher.totals(kind) == (sent.packets, sent.plis + sent.firs, 0)
            assert publisher.check(time.monotonic())
            video, audio = sfu.published("video"), sfu.published("audio")
            assert video is not None
            assert audio is not None
        assert (video["lost"], audio["lost"]) == (0, 0)
        assert (video["codec"], audio["codec"]) == ("H264", "opus")
        assert video["sender_reports"] > 0
        assert stats.tracks["video"].fraction_lost == 0
        assert 0 <= (stats.estimate.rtt or 0) < 1
        assert stats.drops == 0
        counters = publisher.counters()
        assert {"sender.malformed_rtcp", "sender.oversized", "path.gso_refusals"} & counters.keys() == set()
        assert isinstance(publisher.path, UdpPath)
        assert publisher.path.gso is gso


async def test_lost_packets_are_repaired_by_rtx(units: Units) -> None:
    faults = SfuFaults(upstream_loss=0.05, rng=random.Random(7))
    async with SfuSimulator(faults=faults) as sfu:
        publisher = Publisher("porch", DirectSignaling(sfu), settings=LOCAL)
        await publisher.start()
        assert publisher.answer is not None
        assert publisher.answer.tracks[0].rtx_payload_type is not None
        async with playing(publisher, units):
            await until(lambda: (sfu.published("video") or {}).get("repaired", 0) >= 10)
            faults.upstream_loss = 0.0
            await until(lambda: _unrepaired(sfu) == 0)
            video = sfu.published("video")
            assert video is not None
            assert video["retransmissions"] >= video["repaired"] >= 10
            assert video["repaired"] == video["lost_before_repair"]
            assert publisher.stats().tracks["video"].nacks_too_late == 0


def _unrepaired(sfu: SfuSimulator) -> int:
    video = sfu.published("video")
    return -1 if video is None else int(video["lost"])


async def test_transport_feedback_is_used_when_the_answer_echoes_it(units: Units) -> None:
    async with SfuSimulator(variant=SfuVariant(transport_cc=True, remb=True, remb_bitrate=3_000_000)) as sfu:
        publisher = Publisher("porch", DirectSignaling(sfu), settings=LOCAL)
        await publisher.start()
        async with playing(publisher, units):
            await until(lambda: (publisher.stats().estimate.received_bitrate or 0) > 100_000)
            await until(lambda: publisher.stats().estimate.remb is not None)
            estimate = publisher.stats().estimate
            video = sfu.published("video")
        assert estimate.remb == pytest.approx(3_000_000, rel=0.01)
        assert estimate.transport_loss < 0.05
        assert video is not None
        assert video["lost"] == 0


async def test_a_refused_audio_section_costs_audio_only(units: Units) -> None:
    async with SfuSimulator() as sfu:

        class NoAudio(DirectSignaling):
            async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
                answer = await super().publish(offer, tracks)
                return answer.replace("m=audio 9", "m=audio 0")

        publisher = Publisher("porch", NoAudio(sfu), settings=LOCAL)
        await publisher.start()
        assert not publisher.audio_accepted
        async with playing(publisher, units):
            await until(lambda: publisher.stats().tracks["video"].packets > 30)


async def test_an_sfu_that_never_answers_checks_is_a_typed_error_in_time() -> None:
    async with SfuSimulator(faults=SfuFaults(never_connect=1.0)) as sfu:
        publisher = Publisher(
            "porch", DirectSignaling(sfu), settings=PublisherSettings(loopback=True, connect_timeout=0.5)
        )
        began = time.monotonic()
        with pytest.raises(PublishError, match=r"porch: no ICE connection to the SFU within 0\.5 s") as failure:
            await publisher.start()
        assert time.monotonic() - began < 5
        assert failure.value.stage is Stage.ICE
        assert publisher.state is PublisherState.FAILED
        await publisher.close()
        assert publisher.state is PublisherState.CLOSED


async def test_a_wrong_fingerprint_fails_in_dtls() -> None:
    async with SfuSimulator() as sfu:

        class Impostor(DirectSignaling):
            async def publish(self, offer: str, tracks: Sequence[PublishTrack]) -> str:
                answer = await super().publish(offer, tracks)
                head, _, tail = answer.partition("a=fingerprint:sha-256 ")
                return head + "a=fingerprint:sha-256 " + ("00:" if tail[:2] != "00" else "11:") + tail[3:]

        publisher = Publisher("porch", Impostor(sfu), settings=LOCAL)
        with pytest.raises(PublishError, match="DTLS") as failure:
            await publisher.start()
        assert failure.value.stage is Stage.DTLS
        await publisher.close()


async def test_a_session_ended_by_the_sfu_is_noticed(units: Units) -> None:
    lost: list[PublishError] = []
    async with SfuSimulator() as sfu:
        publisher = Publisher("porch", DirectSignaling(sfu), settings=LOCAL, on_lost=lost.append)
        await publisher.start()
        async with playing(publisher, units):
            await until(lambda: publisher.stats().tracks["video"].packets > 10)
            sfu.end_session(sfu.sessions()[-1]["session"])
            await until(lambda: bool(lost))
            assert publisher.state is PublisherState.FAILED
        assert len(lost) == 1
        assert lost[0].stage is Stage.SENDING


async def test_a_stock_peer_decodes_picture_and_sound(units: Units, peer: RTCPeerConnection) -> None:
    tracks: dict[str, MediaStreamTrack] = {}
    peer.on("track", lambda track: tracks.__setitem__(track.kind, track))
    wanted: list[float] = []
    publisher = Publisher(
        "porch",
        PeerSignaling(peer),
        profile_idc=66,
        settings=LOCAL,
        on_keyframe_request=lambda: wanted.append(time.monotonic()),
    )
    await publisher.start()
    async with playing(publisher, units):
        picture = await asyncio.wait_for(tracks["video"].recv(), 20)
        sound = await asyncio.wait_for(tracks["audio"].recv(), 20)
        assert (picture.width, picture.height) == (320, 240)
        assert sound.sample_rate == 48000
        # The receiver's lip-sync depends on these.
        assert publisher.stats().tracks["audio"].packets > 0
    assert len(wanted) >= 1


async def test_picture_loss_at_the_far_end_asks_for_a_keyframe(units: Units, peer: RTCPeerConnection) -> None:
    wanted: list[float] = []
    publisher = Publisher(
        "porch",
        PeerSignaling(peer),
        profile_idc=66,
        settings=LOCAL,
        on_keyframe_request=lambda: wanted.append(time.monotonic()),
    )
    await publisher.start()
    assert len(wanted) == 1  # the publisher's own: a viewer begins at a keyframe
    async with playing(publisher, units):
        assert publisher.answer is not None
        ssrc = publisher.answer.tracks[0].offered.ssrc
        receiver = next(r for r in peer.getReceivers() if r.track.kind == "video")
        await until(lambda: publisher.stats().tracks["video"].packets > 10)
        await receiver._send_rtcp_pli(ssrc)
        await until(lambda: len(wanted) == 2)
        await receiver._send_rtcp_pli(ssrc)
        await until(lambda: len(wanted) == 3)
        assert publisher.stats().tracks["video"].plis >= 2
    assert wanted[2] - wanted[1] >= 0.95


async def test_packets_that_no_longer_get_through_are_noticed_by_their_reports(units: Units) -> None:
    """ICE and the session look healthy, reports keep coming, but they acknowledge nothing new."""
    lost: list[PublishError] = []
    async with SfuSimulator(timings=SfuTimings(report_interval=0.2)) as sfu:
        publisher = Publisher(
            "porch",
            DirectSignaling(sfu),
            settings=PublisherSettings(loopback=True, report_silence=2.0),
            on_lost=lost.append,
        )
        await publisher.start()
        async with playing(publisher, units):
            await until(lambda: publisher.stats().estimate.last_report is not None)
            assert publisher.check(time.monotonic())
            sfu.faults.upstream_loss = 1.0
            await until(lambda: not publisher.check(time.monotonic()))
            assert publisher.state is PublisherState.FAILED
    assert [error.message for error in lost] == ["porch: the SFU acknowledged none of our packets: ended after 2 s"]


@pytest.mark.parametrize("profile", ["SRTP_AES128_CM_SHA1_80", "SRTP_AEAD_AES_256_GCM"])
async def test_other_srtp_profiles(units: Units, profile: str) -> None:
    async with SfuSimulator(variant=SfuVariant(srtp_profiles=profile)) as sfu:
        publisher = Publisher("porch", DirectSignaling(sfu), settings=LOCAL)
        await publisher.start()
        async with playing(publisher, units):
            await until(lambda: publisher.stats().tracks["video"].packets > 60)
            session = sfu.sessions()[-1]
        assert session["srtp"] == profile
        assert session["unauthenticated"] == 0
        assert session["published"][0]["lost"] == 0


async def arrivals_of_bursts(units: Units) -> list[float]:
    """When the pictures of four seconds reach the SFU that are sent fifteen at a time."""
    async with SfuSimulator() as sfu:
        publisher = Publisher("porch", DirectSignaling(sfu), settings=LOCAL, audio=False)
        await publisher.start()
        sfu.start_recording()
        start = time.monotonic()
        for burst in range(1, 9):
            await asyncio.sleep(max(0.0, start + burst * 0.5 - time.monotonic()))
            for index in range((burst - 1) * 15, burst * 15):
                publisher.send(Frame(Kind.VIDEO, units[index % len(units)], start + index / FPS), time.monotonic())
        await until(lambda: publisher.stats().queued_bytes == 0)
        await publisher.close()
        arrivals = sfu.arrivals()
    starts = sorted({timestamp: at for at, _, _, timestamp, *_ in reversed(arrivals)}.values())
    assert len(starts) == 120
    return starts


@pytest.mark.serial
async def test_a_source_in_bursts_arrives_evenly(units: Units) -> None:
    for _ in range(5):
        async with Lateness() as lateness:
            starts = await arrivals_of_bursts(units)
        if not lateness.busy:
            break
    gaps = [after - before for before, after in itertools.pairwise(starts[20:])]
    # Bursts forwarded as they arrive would leave gaps of half a second.
    assert max(gaps) < 0.25
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(1 / FPS, abs=0.015)
