"""Counting connections: bounds of an address and of all, and idle ones that make room."""

from __future__ import annotations

import random
import resource

import pytest

from relay_supervisor.http.admission import Admission, Share, most_connections


def test_an_address_has_its_bound_and_others_get_in() -> None:
    bounds: Admission[int] = Admission(100, most_of_an_address=3)
    assert [bounds.admit(n, "a")[0] for n in range(4)] == [True, True, True, False]
    assert bounds.admit(10, "b") == (True, None)
    bounds.gone(0)
    assert bounds.admit(4, "a") == (True, None)
    assert bounds.counters()["refused_address"] == 1


def test_when_full_the_one_idle_longest_makes_room() -> None:
    bounds: Admission[str] = Admission(3)
    for name in ("first", "second", "third"):
        bounds.admit(name, name)
    bounds.busy("first")
    bounds.busy("third")
    bounds.idle("third")
    assert bounds.admit("fourth", "d") == (True, "second")
    bounds.busy("third")
    bounds.busy("fourth")
    assert bounds.admit("fifth", "e") == (False, None)  # all are answering
    assert len(bounds) == 3
    assert (bounds.counters()["displaced"], bounds.counters()["refused_full"]) == (1, 1)


def test_what_is_not_counted_is_ignored() -> None:
    bounds: Admission[str] = Admission(1)
    bounds.admit("a", "x")
    bounds.admit("b", "x")
    bounds.gone("a")  # was displaced: its end comes later
    bounds.idle("a")
    assert len(bounds) == 1
    assert bounds.admit("c", "x") == (True, "b")


@pytest.mark.parametrize("seed", range(20))
def test_nothing_leaks_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    bounds: Admission[int] = Admission(8, most_of_an_address=4)
    open_: set[int] = set()
    for number in range(2000):
        action = rng.randrange(4)
        if action == 0:
            admitted, evicted = bounds.admit(number, rng.choice(["", "a", "b", "c"]))
            open_ -= {evicted}
            open_ |= {number} if admitted else set()
        elif open_:
            one = rng.choice(sorted(open_))
            (bounds.busy, bounds.idle, bounds.gone)[action - 1](one)
            open_ -= {one} if action == 3 else set()
        assert len(bounds) == len(open_) <= 8
    for one in open_:
        bounds.gone(one)
    assert (len(bounds), len(bounds._addresses), len(bounds._idle)) == (0, 0, 0)


def test_a_share_forgets_who_has_nothing() -> None:
    share = Share(2)
    for _ in range(3):
        assert (share.take("a"), share.take("a"), share.take("a")) == (True, True, False)
        share.give_back("a")
        share.give_back("a")
    assert len(share) == 0


def test_http_has_a_quarter_of_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((256, 64), (1024, 256), (65536, 256), (20, 16), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert most_connections() == most
