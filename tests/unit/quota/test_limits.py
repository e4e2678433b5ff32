"""Google's table and the calls that draw on it."""

from __future__ import annotations

import msgspec
import pytest

from relay_common.config import LimitsConfig
from relay_supervisor.google.quota.budget import UNANSWERED, Budget, Call, LoggedCall
from relay_supervisor.google.quota.limits import EXECUTE, GET, LIST, limits_from

EXTEND = Call(EXECUTE, "ExtendRtspStream", "d1", "CAMERA")


def drawn(call: Call) -> dict[str, int]:
    limits = limits_from()
    found = limits.draws_on(call.method, call.command, call.device, call.kind)
    return {f"{key.scope.value} {key.subject} {key.span:g}": limit.count for key, limit in found}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            EXTEND,
            {
                "method ExecuteDeviceCommand 60": 10,
                "command ExtendRtspStream d1 60": 5,
                "device d1 60": 30,
                "device d1 3600": 100,
            },
        ),
        (
            Call(EXECUTE, "StopRtspStream", "d2", "DISPLAY"),
            {"method ExecuteDeviceCommand 60": 10, "command StopRtspStream d2 60": 5},
        ),
        (Call(GET), {"method GetDevice 60": 10}),
        (Call(LIST), {"method ListDevices 60": 5}),
    ],
)
def test_published_limits(call: Call, expected: dict[str, int]) -> None:
    assert drawn(call) == expected


def test_a_share_is_rounded_down_but_never_to_nothing() -> None:
    limits = limits_from(LimitsConfig(share=0.25))
    assert limits.allowed(limits.per_minute()) == 2
    tiny = limits_from(LimitsConfig(share=0.01))
    assert tiny.allowed(tiny.per_minute()) == 1


def test_a_device_is_limited_by_itself() -> None:
    budget = Budget(limits_from())
    for n in range(5):
        assert budget.ready_at(EXTEND, n) <= n
        budget.answered(budget.take(EXTEND, n), n)
    assert budget.ready_at(EXTEND, 5.0) > 60.0
    other = msgspec.structs.replace(EXTEND, device="d2")
    assert budget.ready_at(other, 5.0) <= 5.0


@pytest.mark.parametrize(
    ("bucket", "others_wait", "same_waits"),
    [
        ("ExecuteDeviceCommand", True, True),
        ("", True, True),
        ("SomethingNew", True, True),
        ("ExtendRtspStream", False, True),
        ("CAMERA device per hour", False, True),
    ],
)
def test_a_refusal_holds_the_bucket_it_names(bucket: str, others_wait: bool, same_waits: bool) -> None:
    budget = Budget(limits_from())
    ticket = budget.take(EXTEND, 0.0)
    budget.answered(ticket, 0.1)
    budget.refused(ticket, bucket, 0.1)
    other = msgspec.structs.replace(EXTEND, device="d2")
    assert (budget.ready_at(other, 1.0) > 60.0) is others_wait
    assert (budget.ready_at(EXTEND, 1.0) > 60.0) is same_waits


def test_restored_calls_count_and_unanswered_ones_longest() -> None:
    budget = Budget(limits_from(LimitsConfig(commands_per_minute=1)))
    budget.restore([LoggedCall(EXTEND, -20.0, -19.0)])
    assert 41.0 < budget.ready_at(EXTEND, 0.0) < 41.5
    budget.restore([LoggedCall(EXTEND, -20.0, None)])
    assert budget.ready_at(EXTEND, 0.0) > UNANSWERED - 20.0 + 60.0


def test_idle_devices_are_forgotten() -> None:
    budget = Budget(limits_from(LimitsConfig(commands_per_minute=10_000)))
    now = 0.0
    for n in range(2000):
        now += 30.0
        call = msgspec.structs.replace(EXTEND, device=f"d{n}")
        budget.answered(budget.take(call, now), now)
    assert len(budget._logs) < 1100
