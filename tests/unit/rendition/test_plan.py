"""Which pictures become small ones, on a manual clock: by cost, by who watches, by what does not fit the budget."""

from __future__ import annotations

import itertools

from relay_worker.rendition.plan import (
    COST_WINDOW,
    KEPT_FOR,
    KEYFRAME_COST,
    KEYFRAMES,
    OFF,
    OVERRUNS,
    SMOOTH,
    TRY_AGAIN,
    RenditionPlan,
)


def played(plan: RenditionPlan, *, group: float, seconds: float, cost: float, begin: float = 0.0) -> list[float]:
    """Media times of the keyframes that are made small, each costing so much."""
    taken = []
    for number in range(round(seconds / group)):
        at = begin + number * group
        if plan.admit_keyframe(at, 100.0 + at):
            taken.append(at)
            plan.spent(cost, 100.0 + at)
    return taken


def plan_of(mode: str, *, watched: bool = True, budget: float = 80.0) -> RenditionPlan:
    plan = RenditionPlan()
    plan.configure(mode, watched=watched, budget=budget, now=100.0)
    return plan


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def test_cheap_keyframes_are_all_made() -> None:
    taken = played(plan_of(KEYFRAMES), group=2.0, seconds=120.0, cost=6.0)
    assert gaps(taken) == [2.0] * 59


def test_the_rate_follows_the_cost() -> None:
    plan = plan_of(KEYFRAMES)
    taken = played(plan, group=1.0, seconds=300.0, cost=11.0)
    late = [at for at in taken if at > 60]
    assert max(gaps(late)) <= 4.0
    assert len(late) * 11.0 <= 240 * KEYFRAME_COST * 1.05
    assert len(late) * 11.0 >= 240 * KEYFRAME_COST * 0.7, "as many as fit"


def test_one_in_four_seconds_is_made_however_dear_it_is() -> None:
    taken = played(plan_of(KEYFRAMES), group=1.5, seconds=150.0, cost=60.0)
    late = [at for at in taken if at > 15]
    assert set(gaps(late)) == {3.0}, "4.5 s would be more than four"
    assert set(gaps(played(plan_of(KEYFRAMES), group=8.0, seconds=160.0, cost=60.0))) == {8.0}


def test_no_two_within_a_second() -> None:
    assert min(gaps(played(plan_of(KEYFRAMES), group=0.25, seconds=30.0, cost=0.1))) >= 0.95


def test_unwatched_there_is_one_in_ten_seconds() -> None:
    plan = plan_of(KEYFRAMES, watched=False)
    assert set(gaps(played(plan, group=2.0, seconds=100.0, cost=6.0))) == {10.0}
    assert set(gaps(played(plan_of(KEYFRAMES, watched=False), group=3.0, seconds=100.0, cost=6.0))) == {9.0}
    plan.configure(KEYFRAMES, watched=True, budget=0.0, now=202.0)
    assert plan.admit_keyframe(102.0, 202.0), "who comes gets the next one"


def test_memory_is_kept_for_half_a_minute_after_the_last_viewer() -> None:
    plan = plan_of(SMOOTH)
    assert not plan.release(100.0 + 1000)
    plan.configure(SMOOTH, watched=False, budget=80.0, now=2000.0)
    plan.configure(SMOOTH, watched=False, budget=70.0, now=2020.0)
    assert not plan.release(2000.0 + KEPT_FOR - 1)
    assert plan.release(2000.0 + KEPT_FOR)


def test_smooth_takes_ten_a_second_and_only_while_watched() -> None:
    plan = plan_of(SMOOTH)
    assert plan.active(100.0) == SMOOTH
    assert sum(plan.admit_smooth(number / 30 + number % 3 * 0.002) for number in range(300)) == 100
    plan.configure(SMOOTH, watched=False, budget=80.0, now=101.0)
    assert plan.active(101.0) == KEYFRAMES
    plan.configure(OFF, watched=True, budget=80.0, now=102.0)
    assert plan.active(102.0) == OFF
    plan.configure("another", watched=True, budget=80.0, now=103.0)
    assert plan.active(103.0) == KEYFRAMES, "of a later release: what every release can do"


def test_smooth_that_exceeds_its_budget_falls_back_and_is_tried_again_later_each_time() -> None:
    plan, now = plan_of(SMOOTH, budget=40.0), 100.0
    fallbacks = []
    while now < 1000.0:
        if plan.active(now) == SMOOTH:
            plan.spent(5.0, now)
            if plan.limited:
                fallbacks.append(now)
        now += 0.1
    assert "51 ms of CPU a second, and 40 are allowed" in plan.limited
    assert fallbacks[0] - 100.0 < COST_WINDOW
    assert [round(gap / TRY_AGAIN[0]) for gap in gaps(fallbacks)] == [1, 2, 4]
    plan.configure(SMOOTH, watched=True, budget=90.0, now=now)
    assert plan.active(now) == SMOOTH, "there is more to spend"


def test_smooth_within_its_budget_stays() -> None:
    plan = plan_of(SMOOTH, budget=60.0)
    for number in range(3000):
        assert plan.active(100.0 + number / 10) == SMOOTH
        plan.spent(5.0, 100.0 + number / 10)
    assert round(plan.cost.rate(400.0)) == 50


def test_without_a_budget_there_are_keyframes_alone() -> None:
    assert plan_of(SMOOTH, budget=0.0).active(100.0) == KEYFRAMES


def test_a_machine_that_cannot_follow_makes_keyframes_alone() -> None:
    plan = plan_of(SMOOTH)
    for number in range(OVERRUNS):
        assert plan.active(110.0 + number) == SMOOTH
        plan.overrun(110.0 + number)
    assert plan.active(113.0) == KEYFRAMES
    assert "too busy" in plan.limited
    plan = plan_of(SMOOTH)
    for number in range(OVERRUNS):
        plan.overrun(110.0 + 20 * number)
    assert plan.active(200.0) == SMOOTH
