"""Keeping a camera published: refusals and faults are retried, and what does not last is not made too fast."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import Callable

import msgspec
import pytest

from relay_common import protocol
from relay_common.causes import Cause
from relay_common.clock import Clock, ManualClock, SystemClock
from relay_common.protocol import Stage, TrackOffer
from relay_common.simulation.sfu.simulator import SfuSimulator
from relay_worker.pipeline import Pipeline
from relay_worker.publish.keeper import PublicationKeeper
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.signaling import PublishRefused, SupervisorLost
from tests.fixtures.direct_signaling import DirectSignaling

LOOPBACK = PublisherSettings(loopback=True)


class Refusing:
    """Signalling that refuses every offer for an hour, the first with `fault` when there is one."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.offers: list[list[str]] = []
        self._fault = fault

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        self.offers.append([track.kind for track in tracks])
        fault, self._fault = self._fault, None
        raise fault or PublishRefused("no", retry_after=3600.0)


class Connecting:
    """Signalling by a real SFU; what was offered, and when."""

    def __init__(self, sfu: SfuSimulator) -> None:
        self._sfu = DirectSignaling(sfu)
        self.asked: list[tuple[float, list[str]]] = []
        self.on_asked: Callable[[], None] = lambda: None

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        self.asked.append((time.monotonic(), [track.kind for track in tracks]))
        self.on_asked()
        answer = await self._sfu.publish(offer, tracks)
        return protocol.PublishAnswer(request=0, publication=f"number {len(self.asked)}", answer=answer)


class Subject:
    def __init__(
        self,
        signaling: Refusing | Connecting,
        clock: Clock,
        settings: PublisherSettings = LOOPBACK,
        allowed: asyncio.Event | None = None,
    ) -> None:
        self.problems: list[Stage] = []
        self.causes: list[Cause] = []
        self.lost: list[str] = []
        self.keeper = PublicationKeeper(
            "Porch",
            Outputs(Pipeline()),
            signaling,
            clock,
            settings,
            on_live=lambda publication: None,
            on_lost=lambda publication, reason: self.lost.append(publication),
            on_problem=self._failed,
            on_keyframe_request=lambda: None,
            rng=random.Random(1),
            allowed=allowed,
        )

    def _failed(self, stage: Stage, reason: str, cause: Cause) -> None:
        self.problems.append(stage)
        self.causes.append(cause)


async def until(met: Callable[[], bool]) -> None:
    """Gathering candidates takes real time, however little."""
    async with asyncio.timeout(20.0):
        while not met():
            await asyncio.sleep(0.01)


async def test_a_new_supervisor_is_asked_at_once() -> None:
    clock, signaling = ManualClock(), Refusing()
    subject = Subject(signaling, clock)
    subject.keeper.start(audio=True, profile_idc=None)
    await until(lambda: len(subject.problems) == 1)
    await until(lambda: subject.keeper.next_try == clock.now() + 3600.0)
    await clock.advance(3000.0)
    assert len(signaling.offers) == 1
    subject.keeper.hurry()
    await until(lambda: len(subject.problems) == 2)
    await clock.advance(3601.0)
    await until(lambda: len(subject.problems) == 3)
    assert subject.problems == [Stage.PUBLISH] * 3
    await subject.keeper.close()


async def test_nothing_is_published_until_that_is_allowed() -> None:
    clock, signaling, allowed = ManualClock(), Refusing(), asyncio.Event()
    subject = Subject(signaling, clock, allowed=allowed)
    subject.keeper.start(audio=True, profile_idc=None)
    await clock.advance(60.0)
    assert signaling.offers == []
    allowed.set()
    await until(lambda: len(subject.problems) == 1)
    allowed.clear()
    subject.keeper.hurry()
    await clock.advance(3601.0)
    await asyncio.sleep(0.1)
    assert len(signaling.offers) == 1
    async with asyncio.timeout(10.0):
        await subject.keeper.close()


async def test_a_fault_of_our_own_does_not_end_publishing() -> None:
    clock, signaling = ManualClock(), Refusing(KeyError("on purpose"))
    subject = Subject(signaling, clock)
    subject.keeper.start(audio=True, profile_idc=None)
    await until(lambda: len(subject.problems) == 1)
    await clock.advance(1.0)
    await until(lambda: len(signaling.offers) == 2)
    assert subject.problems[0] is Stage.PUBLISH
    await subject.keeper.close()


async def test_tracks_that_change_between_two_tries_are_in_the_next() -> None:
    clock, signaling = ManualClock(), Refusing()
    subject = Subject(signaling, clock)
    subject.keeper.start(audio=False, profile_idc=None)
    await until(lambda: len(subject.problems) == 1)
    subject.keeper.start(audio=True, profile_idc=None)
    await clock.advance(3601.0)
    await until(lambda: len(subject.problems) == 2)
    assert signaling.offers == [["video"], ["video", "audio"]]
    await subject.keeper.close()


@pytest.mark.media
async def test_tracks_that_change_while_it_connects_make_another_publication() -> None:
    async with SfuSimulator() as sfu:
        signaling = Connecting(sfu)
        subject = Subject(signaling, SystemClock())
        keeper = subject.keeper
        signaling.on_asked = lambda: keeper.start(audio=True, profile_idc=None)
        keeper.start(audio=False, profile_idc=None)
        await until(lambda: keeper.publication == "number 2")
        assert [kinds for _, kinds in signaling.asked] == [["video"], ["video", "audio"]]
        assert subject.lost == ["number 1"]
        await keeper.close()


class Unreachable(Connecting):
    """The same, but that its answers name an address where nobody is, and a TURN server."""

    def __init__(self, sfu: SfuSimulator, turn: str) -> None:
        super().__init__(sfu)
        self._server = protocol.TurnServer(urls=[turn], username="relay", credential="secret")

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        found = await super().publish(offer, tracks, sink)
        nobody = re.sub(r"(?m)^(a=candidate:.* 127\.0\.0\.1) \d+ ", r"\1 9 ", found.answer)
        assert nobody != found.answer
        return msgspec.structs.replace(found, answer=nobody, ice_servers=[self._server])


@pytest.mark.media
async def test_servers_that_a_whip_server_names_serve_the_next_attempt() -> None:
    asked: list[int] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(len(signaling.asked))
        writer.close()

    turn = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = turn.sockets[0].getsockname()[1]
    async with turn, SfuSimulator() as sfu:
        signaling = Unreachable(sfu, f"turn:127.0.0.1:{port}?transport=tcp")
        subject = Subject(signaling, SystemClock(), PublisherSettings(loopback=True, connect_timeout=0.3))
        subject.keeper.start(audio=True, profile_idc=None)
        await until(lambda: bool(asked))
        assert asked[0] == 1, "before the second offer, as the first was made without it"
        assert subject.problems[0] is Stage.ICE
        await subject.keeper.close()


@pytest.mark.slow
@pytest.mark.media
async def test_publications_that_do_not_last_are_made_with_growing_pauses() -> None:
    async with SfuSimulator() as sfu:
        signaling = Connecting(sfu)
        subject = Subject(signaling, SystemClock())
        subject.keeper.start(audio=True, profile_idc=None)
        ended: list[float] = []
        for number in range(1, 5):
            await until(lambda name=f"number {number}": subject.keeper.publication == name)  # type: ignore[misc]
            ended.append(time.monotonic())
            subject.keeper.republish("lost at once")
        await until(lambda: len(signaling.asked) == 5)
        pauses = [asked - end for (asked, _), end in zip(signaling.asked[1:], ended, strict=True)]
        assert all(pause > least for pause, least in zip(pauses, (0.0, 0.25, 0.5, 1.0), strict=True))
        assert subject.lost == [f"number {number}" for number in range(1, 5)]
        assert subject.problems == []
        await subject.keeper.close()


async def test_there_is_one_schedule_of_tries_and_what_the_sfu_asks_for_counts() -> None:
    clock = ManualClock()

    class Failing:
        """Refuses each offer; notes when it was asked."""

        def __init__(self) -> None:
            self.asked: list[float] = []
            self.retry_after = 0.0

        async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
            self.asked.append(clock.now())
            raise PublishRefused("no", retry_after=self.retry_after)

    signaling = Failing()
    subject = Subject(signaling, clock)  # type: ignore[arg-type]
    subject.keeper.start(audio=True, profile_idc=None)

    async def asked(count: int) -> None:
        # Addresses are gathered in real time, the pauses pass on the manual clock.
        async with asyncio.timeout(20.0):
            while len(signaling.asked) < count:
                await asyncio.sleep(0.005)
                if clock.next_deadline() is not None:
                    await clock.advance(0.05)

    await asked(9)
    pauses = [b - a for a, b in itertools.pairwise(signaling.asked)]
    for number, waited in enumerate(pauses):
        nominal = min(10.0, 0.25 * 2**number)
        assert nominal / 2 - 0.01 <= waited <= nominal + 0.2, (number, pauses)
    signaling.retry_after = 30.0
    await asked(11)
    assert 30.0 <= signaling.asked[10] - signaling.asked[9] <= 30.2
    await subject.keeper.close()


async def test_whenever_an_outage_ends_the_camera_is_published_in_layers() -> None:
    clock = ManualClock()

    class Down:
        """Answers nothing; notes when it was asked, and whether for layers."""

        def __init__(self) -> None:
            self.asked: list[tuple[float, bool]] = []

        async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
            self.asked.append((clock.now(), bool(tracks[0].rids)))
            raise PublishRefused("502", retry_after=0.0)

    signaling = Down()
    subject = Subject(signaling, clock)  # type: ignore[arg-type]
    subject.keeper.layers.configure("keyframes")
    subject.keeper.start(audio=True, profile_idc=None)
    async with asyncio.timeout(20.0):
        while len(signaling.asked) < 7:
            await asyncio.sleep(0.005)
            if subject.keeper.next_try > clock.now() and clock.next_deadline() is not None:
                await clock.advance(0.05)
    assert [layers for _, layers in signaling.asked[:6]] == [True, True, False] * 2
    for (before, _), (at, layers) in itertools.pairwise(signaling.asked):
        assert (at > before) == layers, "a plain offer only in the moment of the one that failed"
    assert subject.lost == []
    await subject.keeper.close()


class Replaced:
    """Signalling whose supervisor is gone with every answer until `answers` are left, and refuses after that."""

    def __init__(self, *answers: SupervisorLost) -> None:
        self.answers, self.asked = list(answers), list[bool]()
        self.on_asked: Callable[[], None] = lambda: None

    async def publish(self, offer: str, tracks: list[TrackOffer], sink: str = "") -> protocol.PublishAnswer:
        self.asked.append(bool(tracks[0].rids))
        self.on_asked()
        await asyncio.sleep(0)
        raise self.answers.pop(0) if self.answers else PublishRefused("500", retry_after=3600.0)


async def test_what_is_lost_with_its_supervisor_is_asked_again_and_is_no_refusal() -> None:
    clock = ManualClock()
    signaling = Replaced(*(SupervisorLost("it was replaced", retry_after=0.0) for _ in range(5)))
    subject = Subject(signaling, clock)  # type: ignore[arg-type]
    subject.keeper.layers.configure("keyframes")
    subject.keeper.start(audio=True, profile_idc=None)
    await until(lambda: bool(subject.problems))
    assert signaling.asked == [True] * 6, "at once, and the sink refused no layers"
    assert subject.causes == [Cause.SFU_REFUSES], "the one refusal that there was"
    assert subject.lost == []
    await subject.keeper.close()


async def test_where_there_is_no_supervisor_that_is_said_and_the_next_one_asked_at_once() -> None:
    clock = ManualClock()
    signaling = Replaced(*(SupervisorLost("no supervisor", retry_after=1.0) for _ in range(2)))
    subject = Subject(signaling, clock)  # type: ignore[arg-type]
    subject.keeper.start(audio=True, profile_idc=None)
    await until(lambda: subject.keeper.next_try == clock.now() + 1.0)
    assert (subject.causes, subject.keeper.cause) == ([Cause.SUPERVISOR_SILENT], Cause.SUPERVISOR_SILENT)
    # It comes up while an attempt is failing.
    signaling.on_asked = subject.keeper.hurry
    await clock.advance(1.0)
    await until(lambda: len(signaling.asked) == 4)
    signaling.on_asked = lambda: None
    assert subject.causes[:3] == [Cause.SUPERVISOR_SILENT] * 2 + [Cause.SFU_REFUSES]
    await subject.keeper.close()


async def test_a_fault_of_our_own_is_not_said_to_be_the_sinks() -> None:
    subject = Subject(Refusing(ValueError("whatever")), ManualClock())
    subject.keeper.start(audio=True, profile_idc=None)
    await until(lambda: bool(subject.problems))
    assert subject.causes == [Cause.INTERNAL_ERROR]
    await subject.keeper.close()
