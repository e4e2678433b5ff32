"""Each thing that Kubernetes says of a Pod that waits has a row of its own, and advice that names something to do."""

from __future__ import annotations

import pytest

from relay_common.engine_waits import WAITS, EngineWait, wait_of

NONE = "Unschedulable: 0/3 nodes are available:"


def test_every_row_is_found_by_its_example_and_no_code_is_without_a_row() -> None:
    assert list(WAITS) == list(EngineWait)
    assert {wait: wait_of(text.example) for wait, text in WAITS.items()} == {wait: wait for wait in WAITS}
    assert all(text.advice and not text.advice.endswith(".") for text in WAITS.values())
    assert wait_of("") is EngineWait.OTHER


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        # Kubernetes 1.20.2, as the engine of tests/cluster says it.
        (f"{NONE} 3 Insufficient cpu.", "insufficient_cpu"),
        (f"{NONE} 3 Insufficient memory.", "insufficient_memory"),
        (f"{NONE} 3 Insufficient example.com/gpu.", "no_room"),
        (f"{NONE} 3 node(s) were unschedulable.", "cordoned"),
        (f"{NONE} 1 node(s) had taint {{a: b}}, that the pod didn't tolerate.", "tainted"),
        (f"{NONE} 3 node(s) didn't match node selector.", "not_matching"),
        ("ErrImageNeverPull: Container image is not present with pull policy of Never", "image_never_pulled"),
        ('the cluster refuses it: pods "x" is forbidden: exceeded quota: q, requested: pods=1', "quota_exceeded"),
        ("the cluster refuses it: pods is forbidden: User \"u\" cannot create resource", "not_allowed"),
        ('the cluster refuses it: pods "x" is forbidden: no PriorityClass with name absent was found', "not_admitted"),
        ('the cluster refuses it: namespaces "absent" not found', "namespace_absent"),
        ("the cluster's API server did not answer within 10 s", "api_away"),
        # Later ones, by their source.
        (f"{NONE} 1 Insufficient cpu, 2 node(s) had untolerated taint {{a: b}}. preemption: "
         "0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful.",
         "insufficient_cpu"),
        (f"{NONE} 3 node(s) had untolerated taint {{a: b}}.", "tainted"),
        (f"{NONE} 3 node(s) didn't match Pod's node affinity/selector.", "not_matching"),
        (f"{NONE} 3 node(s) didn't match pod topology spread constraints.", "spread"),
        (f"{NONE} 3 node(s) had volume node affinity conflict.", "volume"),
        ("Unschedulable: no nodes available to schedule pods", "no_nodes"),
        ("SchedulingGated: Scheduling is blocked due to non-empty scheduling gates", "gated"),
        ("ErrImagePull: rpc error: code = NotFound", "image_not_pulled"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', "pod_security"),
        ("ContainerCreating", "preparing"),
        ("a version of the year 2040 says something else", "other"),
    ],
)  # fmt: skip
def test_what_versions_say_is_told_apart(words: str, wait: str) -> None:
    assert wait_of(words).value == wait
