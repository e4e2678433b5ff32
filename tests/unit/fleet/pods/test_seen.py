"""What a Pod's status means for its worker: the table, by statuses as API servers have them."""

from __future__ import annotations

from typing import Any

import pytest

from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.pods.seen import LONGEST_REASON, judge, read_pod
from tests.unit.fleet.pods.statuses import (
    BOOKMARK,
    CREATING,
    DISRUPTED,
    EVICTED,
    INITIALISING,
    NEW,
    NO_IMAGE,
    NODE,
    RUNNING,
    UNSCHEDULABLE,
    a_pod,
    ended,
    waits,
)

WAITING, RUNS, ENDING, GONE = EnginePhase.WAITING, EnginePhase.RUNNING, EnginePhase.ENDING, EnginePhase.GONE
DELETED = {"deletionTimestamp": "2026-11-29T12:48:19Z", "deletionGracePeriodSeconds": 3}


@pytest.mark.parametrize(
    ("pod", "phase", "reason"),
    [
        (a_pod(NEW, node=""), WAITING, "no node has been chosen yet"),
        (a_pod(UNSCHEDULABLE, node=""), WAITING, "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu."),
        (a_pod(NEW), WAITING, "node node1 has not begun with it"),
        (a_pod(NEW | {"startTime": "2026-11-29T12:48:13Z"}), WAITING, "node node1 prepares it"),
        (a_pod(CREATING), WAITING, "ContainerCreating"),
        (a_pod(NO_IMAGE), WAITING, 'ImagePullBackOff: Back-off pulling image "absent.invalid/x:1"'),
        (
            a_pod(waits("CreateContainerConfigError", 'secret "x" not found')),
            WAITING,
            'CreateContainerConfigError: secret "x" not found',
        ),
        (a_pod(INITIALISING), WAITING, "ErrImagePull"),
        (a_pod(RUNNING), RUNS, ""),
        (a_pod({"phase": "Running"}), RUNS, ""),
        (a_pod({"phase": "Unknown"}), RUNS, ""),
        (a_pod(RUNNING, **DELETED), ENDING, "its Pod was deleted"),
        (a_pod(DISRUPTED, **DELETED), ENDING, "EvictionByEvictionAPI: Eviction API: evicting"),
        (a_pod(CREATING, **DELETED), ENDING, "its Pod was deleted"),
        (a_pod(ended(0, "Completed"), **DELETED), GONE, ""),
        (a_pod(EVICTED), GONE, ""),
        (a_pod({}, node=""), WAITING, "no node has been chosen yet"),
    ],
)
def test_phase_and_reason(pod: dict[str, Any], phase: EnginePhase, reason: str) -> None:
    found = judge(read_pod(pod))
    assert (found.phase, found.reason) == (phase, reason)
    assert (found.exit is not None) == (phase is GONE)


@pytest.mark.parametrize(
    ("status", "exit_", "words"),
    [
        (ended(0, "Completed"), Exit(0), "exited with status 0"),
        (ended(3), Exit(3), "exited with status 3"),
        (ended(137), Exit(-9), "killed by SIGKILL"),
        (ended(137, "OOMKilled"), Exit(-9, "OOMKilled"), "killed by SIGKILL (OOMKilled)"),
        (ended(137, "ContainerStatusUnknown"), Exit(None, "ContainerStatusUnknown"), "ended (ContainerStatusUnknown)"),
        (
            EVICTED,
            Exit(None, "Evicted: The node was low on resource: memory. "),
            "ended (Evicted: The node was low on resource: memory. )",
        ),
        ({"phase": "Failed"}, Exit(None), "ended (exit status unknown)"),
    ],
)
def test_how_it_ended(status: dict[str, Any], exit_: Exit, words: str) -> None:
    found = judge(read_pod(a_pod(status)))
    assert (found.exit, found.where) == (exit_, NODE)
    assert str(found.exit) == words


def test_one_whose_pod_was_deleted_was_taken_away_however_it_ended() -> None:
    for status, code in ((ended(0, "Completed"), 0), (ended(137), -9), ({"phase": "Failed"}, None)):
        found = judge(read_pod(a_pod(status, **DELETED)))
        assert found.exit == Exit(code, "its Pod was deleted", taken=True)
        assert str(found.exit) == "taken away (its Pod was deleted)"
    drained = judge(read_pod(a_pod(ended(0, "Completed") | {"conditions": DISRUPTED["conditions"]}, **DELETED)))
    assert str(drained.exit) == "taken away (EvictionByEvictionAPI: Eviction API: evicting)"


def test_a_worker_ends_although_another_container_of_its_pod_goes_on() -> None:
    status = ended(1) | {"phase": "Running"}
    status["containerStatuses"].insert(0, {"name": "beside", "state": {"running": {"startedAt": None}}})
    assert judge(read_pod(a_pod(status))).exit == Exit(1)
    status["containerStatuses"].pop()
    assert judge(read_pod(a_pod(status))).phase is RUNS


def test_last_words_are_those_of_a_failure() -> None:
    assert judge(read_pod(a_pod(ended(1, message="Timeout (0:00:08)!")))).last_words == "Timeout (0:00:08)!"
    assert judge(read_pod(a_pod(ended(0, "Completed", message="bye")))).last_words == ""


def test_the_engines_words_are_bounded() -> None:
    assert len(judge(read_pod(a_pod(waits("Failed", "x" * 1000)))).reason) == LONGEST_REASON


def test_null_where_a_list_is_empty_and_what_another_version_adds_are_read() -> None:
    assert read_pod(BOOKMARK).instance == ""
    more = {"containerStatuses": None, "initContainerStatuses": None, "conditions": None, "resize": {"new": 1}}
    assert judge(read_pod(a_pod(NEW | more))).phase is WAITING
