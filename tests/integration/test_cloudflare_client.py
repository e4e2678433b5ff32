"""Client, broker and viewers against the simulated SFU, with stock aiortc as the camera and as the viewer."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from relay_common.clock import SystemClock
from relay_common.cloudflare import RemoteTrack, ResponseLost, SessionGone, SfuClient, SfuError
from relay_common.errors import Remedy
from relay_common.protocol import PublishFailed, PublishRequest, TrackOffer
from relay_common.secrets import Secret
from relay_common.simulation.sfu.simulator import ApiFault, SfuFaults, SfuSimulator, SfuTimings
from relay_supervisor.sinks.broker import Change, Publication
from tests.fixtures.fake_relay import BrokeredCamera, FakeRelay, connected
from tests.fixtures.stock_page import StockPage
from tests.fixtures.stock_publisher import encoded_loop

pytestmark = pytest.mark.media


@pytest.fixture
async def sfu() -> AsyncIterator[SfuSimulator]:
    timings = SfuTimings(connect_wait=0.3, empty_track_wait=0.3, flowing_within=1.0)
    async with SfuSimulator(faults=SfuFaults(), timings=timings) as simulator:
        yield simulator


@contextlib.asynccontextmanager
async def client_of(sfu: SfuSimulator, secret: str = "secret", app: str = "app") -> AsyncIterator[SfuClient]:
    client = SfuClient(app, Secret(secret), clock=SystemClock(), rng=random.Random(1), base_url=sfu.base_url)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
async def relay(sfu: SfuSimulator) -> AsyncIterator[FakeRelay]:
    fake = FakeRelay(SystemClock(), cameras=2, sfu_url=sfu.base_url)
    yield fake
    await fake.aclose()


@contextlib.asynccontextmanager
async def camera_of(relay: FakeRelay, number: int = 0) -> AsyncIterator[BrokeredCamera]:
    status = relay.cameras[number]
    camera = BrokeredCamera(relay.broker, status.id, status.name, encoded_loop((64, 64)))
    try:
        await camera.publish()
        await connected(camera)
        yield camera
    finally:
        await camera.close()


async def test_a_published_camera_reaches_a_viewer_and_follows_when_published_anew(
    relay: FakeRelay, sfu: SfuSimulator
) -> None:
    # One camera: aiortc as a viewer does not tell bundled audio tracks apart; Chromium in tests/browser does.
    camera = relay.cameras[0].id
    page = StockPage(relay.viewers)
    wanted = (f"{camera}/video", f"{camera}/audio")
    async with camera_of(relay):
        await page.open([camera])
        await page.receives(*wanted)
        assert sfu.published(f"front-door-{camera}-video") is not None
        async with camera_of(relay):
            answer = await relay.viewers.update(page.view)
            assert (answer.action, relay.viewers.outcomes["repointed"]) == ("none", 1)
            await page.receives(*wanted)
    await relay.viewers.close(page.view)
    await page.close()


async def test_wrong_secret_and_wrong_app_are_told_apart(sfu: SfuSimulator) -> None:
    async with client_of(sfu, secret="wrong") as client:
        with pytest.raises(SfuError, match="app_secret") as caught:
            await client.new_session()
        assert (caught.value.code, caught.value.remedy) == ("unauthorized", Remedy.FATAL)
    async with client_of(sfu, app="other") as client:
        with pytest.raises(SfuError, match="app_id") as caught:
            await client.new_session()
        assert (caught.value.code, caught.value.remedy) == ("not_found", Remedy.FATAL)


async def test_pulling_what_nobody_publishes_is_a_result_not_an_exception(sfu: SfuSimulator) -> None:
    async with client_of(sfu) as client:
        session = await client.new_session()
        pull = await client.pull(session, [RemoteTrack(session="nobody", name="nothing")])
        (track,) = pull.tracks
        assert (pull.offer, track.mid) == (None, "")
        assert track.error is not None
        assert (track.error.code, track.error.remedy) == ("not_found_track_error", Remedy.RETRY)


async def test_a_session_that_was_never_used_is_gone_and_closing_it_is_done() -> None:
    async with SfuSimulator(timings=SfuTimings(unconnected_expiry=0.5)) as sfu, client_of(sfu) as client:
        session = await client.new_session()
        await asyncio.sleep(0.7)  # its expiry, in the simulator's own real time
        with pytest.raises(SessionGone):
            await client.get_session(session)
        with pytest.raises(SfuError) as caught:
            await client.renegotiate(session, "v=0")
        assert caught.value.remedy is Remedy.REGENERATE
        await client.close(session, ["0"])


async def test_passing_faults_are_ridden_out(relay: FakeRelay, sfu: SfuSimulator) -> None:
    sfu.faults.api += [
        ApiFault("sessions/new", "lost_response"),
        ApiFault("tracks/new", "error", status=503, code="temporarily_unavailable_error"),
        ApiFault("tracks/new", "error", status=429, code=""),
    ]
    async with camera_of(relay):
        # Each fault was met once, by one of the worker's attempts; the client retried nothing by itself.
        assert sfu.faults.api == []
        assert sum(relay.client.meter.retries.values()) == 0


async def test_a_lost_answer_replaces_the_session(relay: FakeRelay, sfu: SfuSimulator) -> None:
    sfu.faults.api.append(ApiFault("tracks/new", "lost_response"))
    camera = BrokeredCamera(relay.broker, "cam", "Door", encoded_loop((64, 64)))
    request = PublishRequest(request=1, offer="v=0", tracks=[TrackOffer(kind="video", mid="0")])
    failed = await relay.broker.publish("cam", "Door", request)
    assert isinstance(failed, PublishFailed)
    assert failed.retry_after < 1
    try:
        await camera.publish()
        await connected(camera)
    finally:
        await camera.close()


async def test_lost_answers_of_changes_are_never_repeated(sfu: SfuSimulator) -> None:
    sfu.faults.api.append(ApiFault("tracks/new", "lost_response"))
    async with client_of(sfu) as client:
        session = await client.new_session()
        with pytest.raises(ResponseLost):
            await client.pull(session, [RemoteTrack(session="x", name="y")])
        assert client.meter.retries["pull"] == 0


async def test_an_ended_publication_is_noticed_by_verification(relay: FakeRelay, sfu: SfuSimulator) -> None:
    changes: list[tuple[Change, str]] = []

    def listener(change: Change, publication: Publication, reason: str) -> None:
        changes.append((change, publication.id))

    relay.broker.listen(listener)
    async with camera_of(relay) as camera:
        assert await relay.broker.verify(camera.camera)
        publication = relay.broker.locate(camera.camera)
        assert publication is not None
        sfu.end_session(publication.session)
        assert not await relay.broker.verify(camera.camera)
        assert changes[-1] == (Change.GONE, camera.publication)
        answer = await relay.viewers.open([camera.camera])
        assert answer.unavailable[0].reason == "The camera is not live"


async def test_retiring_closes_the_tracks_at_the_sfu(relay: FakeRelay, sfu: SfuSimulator) -> None:
    async with camera_of(relay) as camera:
        name = f"front-door-{camera.camera}-video"
        assert sfu.published(name) is not None
        await relay.broker.retire(camera.camera)
        assert sfu.published(name) is None
