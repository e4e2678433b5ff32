"""Workers that crash, hang, stay silent or take too much memory, as real processes; and a planned replacement."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay_common.causes import RestartCause
from relay_common.clock import SystemClock
from relay_common.protocol import FromWorker, Hello
from relay_supervisor.fleet import keeper as keeper_module
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.fleet import Fleet
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import Phase, Slot
from relay_supervisor.supervise import Loops
from relay_worker.process.spec import WorkerSpec
from tests.fixtures.running_relay import SMALL, running_relay
from tests.fixtures.stub_worker import StubLauncher

pytestmark = pytest.mark.media


class Rig:
    """A fleet of stubs, and the events it reported: ("ready" or "gone", instance)."""

    def __init__(self, directory: Path, behaviour: str, memory_limit: int) -> None:
        self.told: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.launcher = StubLauncher(directory, behaviour)
        self.bus = Bus(directory)
        self.fleet = Fleet(
            self.launcher,
            self.bus,
            SystemClock(),
            lambda: RestartPolicy(intensity=3, base=0.1, ceiling=30.0),
            memory_limit,
        )
        self.fleet.listen(self)
        self.spec = WorkerSpec(
            camera="cam",
            name="Cam",
            instance="",
            control=self.bus.keyed.control_endpoint,
            stats=self.bus.keyed.stats_endpoint,
        )

    @property
    def slot(self) -> Slot:
        slot = self.fleet.slot("cam")
        assert slot is not None
        return slot

    def worker_started(self, camera: str, instance: str, ref: str) -> None: ...

    def worker_ready(self, camera: str, hello: Hello) -> None:
        if self.told[-1:] != [("ready", hello.instance)]:  # a worker that is not answered at once says hello again
            self.told.append(("ready", hello.instance))

    def worker_message(self, camera: str, message: FromWorker) -> None: ...

    def worker_gone(self, camera: str, instance: str, reason: str, cause: RestartCause) -> None:
        self.told.append(("gone", instance))
        self.reasons.append(reason)

    async def until(self, condition: Callable[[], bool], within: float = 30.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def rig(directory: Path, behaviour: str, memory_limit: int = 0) -> AsyncIterator[Rig]:
    subject = Rig(directory, behaviour, memory_limit)
    await subject.bus.start()
    loops = Loops(SystemClock())
    loops.start("fleet", subject.fleet.run)
    subject.fleet.start(subject.spec)
    try:
        yield subject
    finally:
        await subject.fleet.stop_all("the test is over")
        await loops.aclose()
        await subject.bus.stop()


async def test_a_worker_that_keeps_crashing_becomes_degraded_and_says_where_it_crashed(tmp_path: Path) -> None:
    async with rig(tmp_path, "crash") as subject:
        await subject.until(lambda: len(subject.reasons) == 3)
        now = SystemClock().now()
        assert subject.slot.last_exit == "killed by SIGSEGV in tls, 3rd time in 10 minutes"
        assert subject.slot.policy.degraded(now)
        assert subject.slot.phase is Phase.BACKOFF
        assert 20.0 < subject.slot.next_start - now < 37.0
        assert subject.launcher.started == 3


async def test_a_hung_worker_tells_where_it_hangs_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "SILENCE", 1.0)
    async with rig(tmp_path, "hang") as subject:
        await subject.until(lambda: bool(subject.reasons))
        assert subject.reasons[0].startswith("hung in tls, ")
        (dump,) = [record.getMessage() for record in caplog.records if "stacks of the hung worker" in record.msg]
        assert "stuck_in_a_loop_without_end" in dump
        subject.launcher.behaviour = "well"
        await subject.until(lambda: subject.slot.running and len(subject.told) >= 3)
    assert list(tmp_path.glob("*.stacks")) == []


async def test_a_worker_over_its_memory_limit_is_replaced_by_one_that_is_up_first(tmp_path: Path) -> None:
    async with rig(tmp_path, "fat", memory_limit=200 << 20) as subject:
        await subject.until(lambda: subject.slot.running)
        subject.launcher.behaviour = "well"
        old = subject.slot.instance
        await subject.until(lambda: subject.slot.instance != old)
        new = subject.slot.instance
        assert subject.told == [("ready", old), ("gone", old), ("ready", new)]
        assert subject.reasons == ["memory of 500 MiB, over its limit of 200"]
        assert subject.slot.last_exit == subject.reasons[0]
        assert subject.slot.policy.restarts == 1
        assert subject.slot.running


@pytest.mark.parametrize("replacement", ["is killed", "stays silent"])
async def test_while_the_replacement_does_not_come_up_the_old_worker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacement: str
) -> None:
    async with rig(tmp_path, "well") as subject:
        await subject.until(lambda: subject.slot.running)
        monkeypatch.setattr(keeper_module, "HELLO_TIMEOUT", 1.0)
        old = subject.slot
        subject.launcher.behaviour = "mute"
        subject.fleet.replace("cam", "a test")
        await subject.until(lambda: old.replacement is not None and old.replacement.successor.process is not None)
        if replacement == "is killed":
            assert old.replacement is not None
            assert old.replacement.successor.process is not None
            old.replacement.successor.process.end_now()
        await subject.until(lambda: old.replacement is None)
        assert subject.slot is old
        assert old.running
        assert subject.told == [("ready", old.instance)]
        assert subject.launcher.started == 2


async def test_an_old_worker_that_dies_first_is_followed_by_its_replacement(tmp_path: Path) -> None:
    async with rig(tmp_path, "well") as subject:
        await subject.until(lambda: subject.slot.running)
        old = subject.slot
        subject.fleet.replace("cam", "a test")
        assert old.process is not None
        old.process.end_now()
        await subject.until(lambda: subject.slot is not old and subject.slot.running)
        assert [what for what, _ in subject.told] == ["ready", "gone", "ready"]
        assert subject.launcher.started == 2, "no third one"


async def test_a_worker_that_is_wanted_again_while_it_stops_is_started_again(tmp_path: Path) -> None:
    async with rig(tmp_path, "well") as subject:
        await subject.until(lambda: subject.slot.running)
        stopping = subject.fleet.stop("cam", "a test")
        assert subject.slot.phase is Phase.STOPPING
        subject.fleet.start(subject.spec)
        await stopping
        await subject.until(lambda: subject.slot.running)
        assert [what for what, _ in subject.told] == ["ready", "gone", "ready"]
        assert subject.slot.policy.restarts == 0, "nothing went wrong"


async def test_stopping_in_the_middle_of_a_replacement_leaves_no_process(tmp_path: Path) -> None:
    async with rig(tmp_path, "well") as subject:
        for pause in (0.0, 0.05, 0.3):
            await subject.until(lambda: subject.slot.running)
            subject.fleet.replace("cam", "a test")
            await asyncio.sleep(pause)
            await subject.fleet.stop("cam", "a test")
            await subject.until(lambda: not subject.fleet._by_instance, 30.0)
            assert subject.slot.phase is Phase.ABSENT
            assert subject.slot.replacement is None
            subject.fleet.start(subject.spec)


async def test_who_is_stopped_while_being_restarted_stays_stopped(tmp_path: Path) -> None:
    async with rig(tmp_path, "well") as subject:
        await subject.until(lambda: subject.slot.running)
        restarting = asyncio.create_task(subject.fleet.restart("cam", "a test"))
        await asyncio.sleep(0)
        await subject.fleet.stop("cam", "another test")
        await restarting
        await subject.until(lambda: subject.slot.phase is Phase.ABSENT, 30.0)
        assert subject.launcher.started == 1


async def test_a_viewer_misses_little_of_a_planned_replacement() -> None:
    """Every worker exceeds a limit of 1 MiB: each is replaced once, since another replacement would be too soon."""
    async with running_relay(1, options=SMALL, sections={"workers": {"memory_limit_mb": 1}}) as relay:
        await relay.until(lambda: bool(relay.supervisor.status().cameras), 20.0, "the camera is discovered")
        (name,) = [camera.name for camera in relay.supervisor.status().cameras]
        before = after = 0.0

        def replaced_and_live() -> bool:
            nonlocal before, after
            camera, now = relay.camera(name), time.monotonic()
            if camera.state == "live" and camera.worker.restarts == 0:
                before = now
            elif camera.state == "live":
                after = now
            return after > 0.0

        await relay.until(replaced_and_live, 40.0, "the worker is replaced and its camera live")
        camera = relay.camera(name)
        assert camera.worker.last_exit.startswith("memory of ")
        assert (camera.worker.restarts, camera.lease.generates) == (1, 1)
        assert relay.supervisor.director.restart_causes == {"memory": 1}
        gap = after - before if before else 0.0
        print(f"picture away for {gap:.2f} s")
        assert gap < 10.0
