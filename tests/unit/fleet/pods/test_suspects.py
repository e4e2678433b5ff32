"""A node that is lost is told from one that is only busy: by what is heard of it, not by how often it was suspected."""

from __future__ import annotations

from relay_supervisor.fleet.pods.suspects import SUSPECTED, Avoided, Suspects


def test_a_node_of_which_nothing_is_heard_is_lost_for_a_while() -> None:
    suspects = Suspects()
    suspects.silent("node2", 0.0)
    suspects.idle("node1", 10.0)
    suspects.silent("", 10.0)
    assert suspects.avoided(10.0) == Avoided(lost=("node1", "node2"))
    assert suspects.avoided(SUSPECTED) == Avoided(lost=("node1",))
    assert not suspects.avoided(10.0 + SUSPECTED)


def test_on_a_busy_machine_the_lost_node_stays_the_last_choice() -> None:
    """Workers of all nodes were silent for too long, those of the healthy ones in turns and as often."""
    suspects, healthy = Suspects(), ("node2", "node3")
    for second in range(8):
        for node in ("node1", *healthy):
            suspects.silent(node, float(second))
        for node in healthy:
            suspects.heard(node)
    assert suspects.avoided(8.0) == Avoided(lost=("node1",), doubtful=healthy)
    assert suspects.avoided(6.0 + SUSPECTED) == Avoided(lost=("node1",), doubtful=healthy)
    assert not suspects.avoided(7.0 + SUSPECTED)


def test_each_suspicion_ends_by_what_contradicts_it() -> None:
    suspects = Suspects()
    suspects.heard("node1")
    suspects.begun("node1")
    assert not suspects.avoided(0.0), "nobody suspected it"
    suspects.silent("node1", 0.0)
    suspects.begun("node1")
    assert suspects.avoided(1.0).lost == ("node1",), "what is begun there may not reach the supervisor"
    suspects.heard("node1")
    suspects.idle("node1", 2.0)
    suspects.heard("node1")
    assert suspects.avoided(3.0).lost == ("node1",), "workers live on where the kubelet is dead"
    suspects.begun("node1")
    assert suspects.avoided(4.0) == Avoided(doubtful=("node1",))
    suspects.silent("node1", 5.0)
    assert suspects.avoided(6.0).lost == ("node1",), "it is lost afterwards"
