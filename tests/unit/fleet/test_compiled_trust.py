"""A worker that crashes on the compiled data path twice in ten minutes does without it from then on."""

from __future__ import annotations

import dataclasses
import signal

import pytest

from relay_common.proc import CRASHES
from relay_supervisor.cameras.status import _worker
from relay_supervisor.fleet.compiled_trust import MOST, WINDOW, CompiledTrust
from relay_supervisor.fleet.slot import Phase
from relay_worker import native
from tests.unit.fleet.scripted import SPEC, Rig, settle


def test_only_crashes_within_the_window_count_and_they_count_once() -> None:
    for signals, apart, lost in (
        ([signal.SIGSEGV, signal.SIGSEGV], WINDOW, True),
        ([signal.SIGBUS, signal.SIGABRT], 1.0, True),
        ([signal.SIGILL, signal.SIGILL], WINDOW + 1, False),
        ([signal.SIGSEGV, signal.SIGILL, signal.SIGBUS], WINDOW - 1, True),
        ([signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM], 1.0, False),
        ([signal.SIGSEGV], 1.0, False),
    ):
        trust = CompiledTrust()
        told = [trust.died(-number, index * apart) for index, number in enumerate(signals)]
        assert (trust.lost, sum(told)) == (lost, int(lost)), signals
    assert not any(CompiledTrust().died(code, 0.0) for code in (None, 0, 1, 11))
    assert len(CRASHES) == 4


async def crash(rig: Rig, data_path: str = "") -> None:
    """Its worker says what it uses, if that is given, and is killed by SIGSEGV; the next one is launched."""
    process = await rig.launcher.answer()
    if data_path:
        rig.hello(data_path=data_path)
    assert rig.phase is (Phase.RUNNING if data_path else Phase.STARTING)
    process.end(-signal.SIGSEGV)
    await settle()
    while not rig.launcher.waiting:
        await rig.wait(1.0)


async def test_the_third_worker_is_started_on_python(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.fleet.start(dataclasses.replace(SPEC, data_path="compiled"))
    await settle()
    for _ in range(MOST):
        assert rig.launcher.specs[-1].data_path == "compiled"
        await crash(rig, "compiled")
    assert [spec.data_path for spec in rig.launcher.specs] == ["compiled", "compiled", "python"]
    warnings = [record for record in caplog.records if "without the compiled data path" in record.message]
    assert [record.levelname for record in warnings] == ["WARNING"]
    await crash(rig, "python")
    rig.fleet.start(dataclasses.replace(SPEC, data_path="compiled"))  # as `reload` does
    await settle()
    assert rig.launcher.specs[-1].data_path == "python", "for all its further life"
    status = _worker(rig.slot, rig.clock.now())
    assert status.data_path_fallbacks == 1


async def test_a_worker_on_python_may_crash_as_it_likes() -> None:
    rig = Rig()
    rig.fleet.start(SPEC)
    await settle()
    for _ in range(MOST + 1):
        await crash(rig, "python")
    assert {spec.data_path for spec in rig.launcher.specs} == {"auto"}
    assert _worker(rig.slot, rig.clock.now()).data_path_fallbacks == 0


@pytest.mark.parametrize(
    ("setting", "there", "remote", "lost"),
    [
        ("auto", True, False, True),
        ("auto", False, False, False),
        ("auto", False, True, True),  # there it may be in the image
        ("compiled", True, False, True),
        ("python", True, False, False),
        ("python", True, True, False),
    ],
)
async def test_a_crash_before_the_hello_counts_where_compiled_code_may_have_run(
    monkeypatch: pytest.MonkeyPatch, setting: native.Setting, there: bool, remote: bool, lost: bool
) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)  # the suite's own
    monkeypatch.setattr(native, "_found", object() if there else None)
    rig = Rig()
    rig.launcher.remote = remote
    rig.fleet.start(dataclasses.replace(SPEC, data_path=setting))
    await settle()
    await crash(rig)
    assert not rig.slot.policy.trust.lost
    await crash(rig)
    assert rig.slot.policy.trust.lost is lost
    assert rig.launcher.specs[-1].data_path == ("python" if lost else setting)


async def test_one_that_runs_counts_by_what_it_says() -> None:
    """Its image may have no compiled data path, whatever this machine has."""
    rig = Rig()
    rig.launcher.remote = True
    rig.fleet.start(SPEC)
    await settle()
    await crash(rig)
    await crash(rig, "python")
    assert not rig.slot.policy.trust.lost
    await crash(rig, "compiled")
    assert rig.slot.policy.trust.lost
