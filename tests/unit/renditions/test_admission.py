"""Which cameras are smooth: within what one may cost and all may cost, in the order in which they were watched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_supervisor.renditions.admission import (
    KEYFRAMES_COST,
    MARGIN,
    MEASURED_AFTER,
    NOTHING,
    REFUSED_FOR,
    RenditionAdmission,
    RenditionWish,
)


def smooth(cost: float = 0.0) -> RenditionWish:
    return RenditionWish("smooth", True, cost)


def admitted(admission: RenditionAdmission, wishes: dict[str, RenditionWish], now: float) -> set[str]:
    grants = admission.decide(wishes, now)
    return {camera for camera, grant in grants.items() if wishes[camera].mode == "smooth" and grant.budget}


def test_what_each_mode_may_cost() -> None:
    admission = RenditionAdmission(150.0, 500.0)
    wishes = {
        "off": RenditionWish("off", True),
        "keyframes": RenditionWish("keyframes", True),
        "unwatched": RenditionWish("smooth", False),
        "watched": smooth(),
    }
    grants = admission.decide(wishes, 0.0)
    assert grants["off"] == NOTHING
    assert grants["keyframes"] == (KEYFRAMES_COST, "")
    assert grants["unwatched"] == grants["watched"] == (150.0, "")


def test_who_is_watched_first_is_smooth_and_the_others_learn_why_not() -> None:
    admission = RenditionAdmission(150.0, 320.0)
    assert admitted(admission, {"a": RenditionWish("smooth", False), "b": smooth(), "c": smooth()}, 0.0) == {
        "b",
        "c",
        "a",
    }
    wishes = {"a": smooth(), "b": smooth(), "c": smooth()}
    assert admitted(admission, wishes, 1.0) == {"b", "c"}
    grant = admission.decide(wishes, 2.0)["a"]
    assert grant == (0.0, "all renditions together may cost 320 ms of CPU a second, which others take: keyframes alone")
    assert admission.unafforded == 1


def test_other_limits_count_at_once_also_for_who_was_refused() -> None:
    admission = RenditionAdmission(150.0, 160.0)
    wishes = {"a": smooth(), "b": smooth()}
    assert admitted(admission, wishes, 0.0) == {"a"}
    admission.configure(150.0, 160.0)
    assert admitted(admission, wishes, 1.0) == {"a"}
    admission.configure(150.0, 320.0)
    assert admitted(admission, wishes, 2.0) == {"a", "b"}
    admission.configure(0.0, 320.0)
    assert admitted(admission, wishes, 3.0) == set()


def test_what_is_measured_makes_room_for_others() -> None:
    admission = RenditionAdmission(150.0, 320.0)
    wishes = {name: smooth() for name in "abc"}
    assert admitted(admission, wishes, 0.0) == {"a", "b"}
    wishes = {"a": smooth(60.0), "b": smooth(60.0), "c": smooth()}
    assert admitted(admission, wishes, MEASURED_AFTER - 1) == {"a", "b"}
    assert admitted(admission, wishes, MEASURED_AFTER) == {"a", "b"}, "it was refused, and is not asked every second"
    assert admitted(admission, wishes, REFUSED_FOR) == {"a", "b", "c"}


def test_a_camera_that_comes_to_cost_more_costs_the_last_one_its_place_for_a_while() -> None:
    admission = RenditionAdmission(150.0, 200.0)
    wishes = {"a": smooth(), "b": smooth()}
    assert admitted(admission, wishes, 0.0) == {"a"}
    wishes = {"a": smooth(50.0), "b": smooth(50.0)}
    assert admitted(admission, wishes, REFUSED_FOR) == {"a"}, "b may still cost as much as one camera may"
    known = REFUSED_FOR * 2
    admission.decide({"a": RenditionWish("smooth", False), "b": smooth()}, known)
    admission.decide({"a": RenditionWish("smooth", False), "b": smooth(50.0)}, known + MEASURED_AFTER)
    both = known + MEASURED_AFTER + REFUSED_FOR
    assert admitted(admission, wishes, both) == {"a", "b"}, "both are known"
    dearer = {"a": smooth(140.0), "b": smooth(140.0)}
    assert admitted(admission, dearer, both + MEASURED_AFTER) == {"b"}, "b has been smooth for longer"
    assert admission.decide(dearer, both + MEASURED_AFTER + 1)["a"].budget == 0.0


def test_the_keyframes_of_all_come_first() -> None:
    wishes: dict[str, RenditionWish] = {f"k{n}": RenditionWish("keyframes", True) for n in range(30)}
    wishes["s"] = smooth()
    admission = RenditionAdmission(150.0, 200.0)
    grants = admission.decide(wishes, 0.0)
    assert grants["s"].budget == 0.0
    assert {grants[name].budget for name in wishes if name != "s"} == {KEYFRAMES_COST}


def test_a_camera_that_is_no_longer_watched_leaves_its_place_at_once() -> None:
    admission = RenditionAdmission(150.0, 200.0)
    wishes = {"a": smooth(), "b": smooth()}
    assert admitted(admission, wishes, 0.0) == {"a"}
    gone = {"b": smooth()}
    assert admitted(admission, gone, REFUSED_FOR) == {"b"}


def test_none_is_smooth_where_one_may_cost_nothing() -> None:
    assert RenditionAdmission(0.0, 500.0).decide({"a": smooth()}, 0.0)["a"] == (
        0.0,
        "workers.rendition_cpu_ms is 0: keyframes alone",
    )


@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.floats(0, 400)), min_size=6, max_size=6), max_size=30),
    st.floats(10, 1000),
)
def test_what_is_known_to_be_spent_never_exceeds_the_budget(looks: list[list[tuple[bool, float]]], most: float) -> None:
    admission = RenditionAdmission(150.0, most)
    costs: dict[str, float] = {}
    before: set[str] = set()
    for index, look in enumerate(looks):
        wishes = {f"c{n}": RenditionWish("smooth", watched, cost) for n, (watched, cost) in enumerate(look)}
        grants = admission.decide(wishes, index * MEASURED_AFTER)
        watched = {camera for camera, wish in wishes.items() if wish.watched}
        costs |= {camera: wishes[camera].cost * MARGIN for camera in before & watched if wishes[camera].cost}
        before = {camera for camera in watched if grants[camera].budget}
        spent = sum(max(0.0, min(150.0, costs.get(camera, 150.0)) - KEYFRAMES_COST) for camera in before)
        assert spent <= max(0.0, most - KEYFRAMES_COST * len(wishes)) + 1e-6
