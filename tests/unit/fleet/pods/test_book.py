"""Which Pods there are and what follows from it: nobody is taken for dead unheard, and nothing is left behind."""

from __future__ import annotations

import pytest

from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.pods.book import LONGEST_UNACKNOWLEDGED, UNACKNOWLEDGED, Book
from relay_supervisor.fleet.pods.seen import PodVerdict, SeenPod, read_pod
from relay_supervisor.fleet.pods.suspects import Avoided
from tests.unit.fleet.pods.statuses import CREATING, NEW, RUNNING, Json, a_pod, ended

FIRST, SECOND = "cam.1", "cam.2"


def pod(status: Json, instance: str = FIRST, **more: str) -> SeenPod:
    return read_pod(a_pod(status, instance=instance, **more))


class Rig:
    """A book, and what it said of each worker."""

    def __init__(self) -> None:
        self.heard: dict[str, list[PodVerdict]] = {}
        self.book = Book(lambda instance, verdict: self.heard.setdefault(instance, []).append(verdict))

    def phases(self, instance: str = FIRST) -> list[EnginePhase]:
        return [verdict.phase for verdict in self.heard.get(instance, ())]

    def started(self, instance: str = FIRST) -> None:
        """A worker that runs."""
        self.book.expect(instance, "cam")
        self.book.accepted(instance, pod(NEW, instance, node=""), 0.0)
        self.book.seen(pod(RUNNING, instance), 0.0)


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.book.all_seen([], frozenset(), 0.0)
    return made


def test_a_worker_is_followed_from_waiting_to_its_end(rig: Rig) -> None:
    assert rig.book.expect(FIRST, "cam").phase is EnginePhase.WAITING
    rig.book.accepted(FIRST, pod(NEW, node=""), 0.0)
    for status in (NEW, CREATING, RUNNING, RUNNING, ended(3)):
        rig.book.seen(pod(status), 0.0)
    assert rig.phases() == [EnginePhase.WAITING] * 3 + [EnginePhase.RUNNING, EnginePhase.GONE]
    assert rig.heard[FIRST][-1].exit == Exit(3)
    assert rig.book.superfluous() == [FIRST], "its Pod has served"
    rig.book.deleted(pod(ended(3)))
    assert rig.book.superfluous() == []
    assert rig.phases()[-2:] == [EnginePhase.RUNNING, EnginePhase.GONE], "it ends once"


def test_the_watch_may_overtake_the_answer(rig: Rig) -> None:
    rig.book.expect(FIRST, "cam")
    rig.book.seen(pod(RUNNING), 0.0)
    rig.book.accepted(FIRST, pod(NEW, node=""), 0.0)
    assert rig.phases() == [EnginePhase.RUNNING]
    rig.book.expect(SECOND, "cam")
    rig.book.deleted(pod(NEW, SECOND))
    rig.book.accepted(SECOND, pod(NEW, SECOND), 0.0)
    assert rig.phases(SECOND) == [EnginePhase.GONE]


def test_a_pod_that_is_gone_says_how_it_ended_if_it_ever_did(rig: Rig) -> None:
    rig.started()
    rig.started(SECOND)
    rig.book.deleted(pod(RUNNING))
    rig.book.deleted(pod(ended(0, "Completed"), SECOND))
    assert rig.heard[FIRST][-1].exit == Exit(None, "its Pod was deleted", taken=True)
    assert rig.heard[SECOND][-1].exit == Exit(0)


def test_a_list_ends_those_alone_that_it_had_to_contain(rig: Rig) -> None:
    rig.started()
    asked = rig.book.asked()
    rig.started(SECOND)  # accepted after the list was asked for
    rig.book.all_seen([], asked, 0.0)
    assert rig.phases()[-1] is EnginePhase.GONE
    assert rig.phases(SECOND)[-1] is EnginePhase.RUNNING
    rig.book.seen(pod(RUNNING, SECOND), 0.0)
    rig.book.all_seen([pod(RUNNING, SECOND)], rig.book.asked(), 0.0)
    assert rig.phases(SECOND)[-1] is EnginePhase.RUNNING


def test_without_a_list_nobody_has_ended() -> None:
    rig = Rig()
    assert rig.book.living([FIRST, SECOND]) == [FIRST, SECOND]
    recalled = rig.book.recall(FIRST, "cam")
    assert recalled is not None
    assert recalled.phase is EnginePhase.RUNNING
    assert "has not said yet" in recalled.reason
    assert not rig.book.nobodys(SECOND), "its Secret may be needed"
    rig.book.recall(SECOND, "cam")
    rig.book.all_seen([pod(RUNNING, SECOND)], rig.book.asked(), 0.0)
    assert rig.heard[FIRST][-1].exit == Exit(None, "its Pod was deleted", taken=True)
    assert rig.phases(SECOND) == [EnginePhase.RUNNING]
    assert rig.book.nobodys(FIRST)


def test_the_living_are_those_whose_pods_have_not_ended_the_oldest_first(rig: Rig) -> None:
    younger = pod(RUNNING, FIRST, creationTimestamp="2026-11-29T12:50:00Z")
    rig.book.all_seen([younger, pod(RUNNING, SECOND), pod(ended(1), "cam.3")], frozenset(), 0.0)
    assert rig.book.living([FIRST, "cam.3", "cam.4", SECOND]) == [SECOND, FIRST]
    assert rig.book.recall("cam.3", "cam") is None
    found = rig.book.recall(FIRST, "cam")
    assert found is not None
    assert (found.phase, found.where) == (EnginePhase.RUNNING, "node1")


def test_what_is_nobodys_goes_once_it_is_known_who_was_left(rig: Rig) -> None:
    for instance in (FIRST, SECOND, "cam.3"):
        rig.book.seen(pod(RUNNING, instance), 0.0)
    assert rig.book.superfluous() == []
    rig.book.keep([SECOND])
    rig.book.expect("cam.3", "cam")
    assert rig.book.superfluous() == [FIRST]
    rig.book.forget("cam.3")
    assert rig.book.superfluous() == [FIRST], "another supervisor will adopt what this one forgets"
    rig.book.seen(pod(ended(1), SECOND), 0.0)
    assert rig.book.superfluous() == [FIRST, SECOND]


def test_one_that_was_created_although_no_answer_came_goes(rig: Rig) -> None:
    rig.book.keep([])
    rig.book.expect(FIRST, "cam")
    rig.book.failed(FIRST)
    rig.book.seen(pod(NEW), 0.0)
    assert rig.book.superfluous() == [FIRST]
    assert rig.heard == {}


def test_what_is_to_end_goes_whoever_watches_or_forgets_it(rig: Rig) -> None:
    rig.started()
    rig.book.doom(FIRST)
    assert rig.book.superfluous() == [FIRST]
    rig.book.forget(FIRST)
    assert rig.book.superfluous() == [FIRST]
    rig.book.deleted(pod(RUNNING))
    assert rig.book.superfluous() == []


def bound(rig: Rig, instance: str, now: float) -> None:
    rig.book.expect(instance, "cam")
    rig.book.accepted(instance, pod(NEW, instance, node=""), now)
    rig.book.seen(pod(NEW, instance), now)


def test_a_node_that_does_not_begin_is_given_up_later_each_time(rig: Rig) -> None:
    now, patience = 0.0, UNACKNOWLEDGED
    for number in range(7):
        instance = f"cam.{number}"
        bound(rig, instance, now)
        assert rig.book.overdue(now + patience - 0.1) == []
        now += patience
        assert rig.book.overdue(now) == [instance]
        assert rig.book.overdue(now) == []
        gone = rig.heard[instance][-1]
        assert (gone.phase, gone.where) == (EnginePhase.GONE, "node1")
        assert str(gone.exit) == "ended (node node1 did not start it)"
        assert gone.exit is not None
        assert gone.exit.node_failed
        assert instance in rig.book.superfluous()
        patience = min(2 * patience, LONGEST_UNACKNOWLEDGED)
    bound(rig, FIRST, now)
    rig.book.seen(pod(CREATING), now)
    assert rig.book.overdue(now + 1000.0) == [], "it has begun: an image may take its time"
    bound(rig, SECOND, now)
    assert rig.book.overdue(now + UNACKNOWLEDGED) == [SECOND], "nodes begin in time again"


def test_time_in_which_nothing_was_heard_is_no_nodes_fault(rig: Rig) -> None:
    bound(rig, FIRST, 0.0)
    rig.book.resumed(300.0)
    assert rig.book.overdue(300.0 + UNACKNOWLEDGED - 0.1) == []
    assert rig.book.overdue(300.0 + UNACKNOWLEDGED) == [FIRST]


def test_a_node_that_does_not_begin_is_avoided_until_it_begins_with_any(rig: Rig) -> None:
    bound(rig, FIRST, 100.0)
    rig.book.overdue(100.0 + UNACKNOWLEDGED)
    assert rig.book.suspects.avoided(106.0) == Avoided(lost=("node1",))
    rig.book.seen(pod(RUNNING, "other.1"), 107.0)
    assert rig.book.suspects.avoided(108.0) == Avoided(lost=("node1",)), "that one was begun nobody knows when"
    bound(rig, SECOND, 108.0)
    rig.book.seen(pod(CREATING, SECOND), 109.0)
    assert rig.book.suspects.avoided(110.0) == Avoided(doubtful=("node1",))
