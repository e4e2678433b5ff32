"""A camera serves one client: a source leaves it to another worker, or waits until that one can be alive no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from relay_common.clock import ManualClock
from relay_common.errors import Remedy
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.source_keeper import CONTESTED_DELAY, REFUSED_DELAYS, RETRY_DELAYS, SourceKeeper
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.rtsp.errors import AccessError, GoneError, RtspError, RtspStage, SessionLostError
from relay_worker.rtsp.source import RtspSource, SourceSettings


class Answered(SourceKeeper):
    """Each try ends at once with `answer`, on a manual clock; `tries` are their times."""

    def __init__(self, clock: ManualClock, answer: RtspError) -> None:
        self.answer, self.tries, self.failed = answer, list[float](), list[Remedy]()
        super().__init__(
            Pipeline(),
            clock,
            SourceSettings(),
            lambda stream, stage, remedy, reason: self.failed.append(remedy),
        )

    async def _play(self, stream: GrantedStream, settings: SourceSettings) -> RtspError | None:
        self.tries.append(self._clock.now())
        return self.answer


def stream(clock: ManualClock, contested: float = 0.0) -> GrantedStream:
    url, until = Secret("rtsps://127.0.0.1:1/x?auth=g.0.abc"), clock.now() + contested
    return GrantedStream(1, Protocol.RTSP, url, clock.wall() + 300, contested=bool(contested), contested_until=until)


REFUSED = AccessError(RtspStage.DESCRIBE, "403")


async def test_a_url_that_is_refused_is_tried_until_its_last_client_can_be_alive_no_more() -> None:
    clock, contested = ManualClock(), 3.5 * CONTESTED_DELAY
    keeper, began = Answered(clock, REFUSED), clock.now()
    keeper.play(stream(clock, contested))
    await clock.advance(contested - 0.01)
    assert [at - began for at in keeper.tries] == pytest.approx([n * CONTESTED_DELAY for n in range(4)])
    assert keeper.failed == [], "no Generate is spent before"
    await clock.advance(0.02)
    assert keeper.tries[-1] - began == pytest.approx(contested)
    assert keeper.failed == [Remedy.REGENERATE], "nor waited for any longer"


async def test_a_worker_that_comes_later_than_that_tries_a_url_that_is_refused_once() -> None:
    """The camera may hold on to a client that is dead for a minute."""
    clock = ManualClock()
    keeper = Answered(clock, REFUSED)
    keeper.play(stream(clock, -0.5))
    await clock.advance(0.01)
    assert (len(keeper.tries), keeper.failed) == (1, [Remedy.REGENERATE])


async def test_a_worker_that_has_played_a_contested_url_was_its_client_itself() -> None:
    clock = ManualClock()
    keeper = Answered(clock, SessionLostError(RtspStage.STREAMING, "the connection broke"))
    keeper.play(stream(clock, -0.5))
    keeper._pipeline.last_media[Kind.VIDEO] = clock.now() + 0.1
    await clock.advance(RETRY_DELAYS[0] / 2)
    keeper.answer = REFUSED
    await clock.advance(RETRY_DELAYS[0] + 0.1)
    assert (len(keeper.tries), keeper.failed) == (2, [])


async def test_a_url_that_is_gone_is_not_tried_again_because_it_is_contested() -> None:
    clock = ManualClock()
    keeper = Answered(clock, GoneError(RtspStage.DESCRIBE, "410"))
    keeper.play(stream(clock, 60.0))
    await clock.advance(sum(REFUSED_DELAYS) + 0.1)
    assert keeper.failed == [Remedy.REGENERATE]


async def test_a_worker_that_hears_no_supervisor_tries_nothing_and_begins_anew_with_one() -> None:
    clock = ManualClock()
    keeper = Answered(clock, REFUSED)
    keeper.play(stream(clock))
    await clock.advance(REFUSED_DELAYS[0] + 0.1)
    keeper.hold()
    assert len(keeper.tries) == 2
    await clock.advance(1000.0)
    assert (len(keeper.tries), keeper.failed) == (2, [])
    assert keeper.stream is not None, "a hello still names it"
    keeper.allow()
    await clock.advance(sum(REFUSED_DELAYS) + 0.1)
    assert len(keeper.tries) == 2 + 1 + len(REFUSED_DELAYS)
    assert keeper.failed == [Remedy.REGENERATE]


@pytest.mark.parametrize("end", ["close", "play"])
async def test_one_that_may_not_connect_can_be_ended_and_given_another_stream(end: str) -> None:
    clock = ManualClock()
    keeper = Answered(clock, REFUSED)
    keeper.hold()
    keeper.play(stream(clock))
    await clock.advance(1.0)
    async with asyncio.timeout(5):
        if end == "play":
            keeper.play(stream(clock))
            keeper.allow()
            await clock.advance(1.0)
            assert len(keeper.tries) == 2, "of the second stream alone"
        await keeper.close()


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(20.0):
        while not met():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("playing", [False, True])
async def test_what_plays_goes_on_and_what_was_being_connected_is_let_go(
    playing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: connections.append(writer), "127.0.0.1", 0)
    problems: list[str] = []
    clock = ManualClock()
    keeper = SourceKeeper(
        Pipeline(),
        clock,
        SourceSettings(),
        lambda stream, stage, remedy, reason: None,
        lambda stage, reason, cause: problems.append(reason),
    )
    monkeypatch.setattr(SourceKeeper, "playing", property(lambda self: playing))
    url = Secret(f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    async with server:
        keeper.play(GrantedStream(1, Protocol.RTSP, url, clock.wall() + 300))
        await until(lambda: connections)
        source = keeper._source
        assert isinstance(source, RtspSource)
        keeper.hold()
        if playing:
            await asyncio.sleep(0.1)
            assert (keeper._source, problems) == (source, [])
        else:
            await until(lambda: problems)
            assert problems[0].startswith("RTSP connect: no supervisor")
            await clock.advance(10.0)
            assert (keeper._source, len(connections)) == (None, 1)
        keeper.drop()
        await until(lambda: keeper._task is not None and keeper._task.done())
        for writer in connections:
            writer.close()


def test_who_was_let_go_may_try_again() -> None:
    assert SessionLostError.remedy is Remedy.RETRY
