"""Who takes which account, and who gives one up: a table of situations."""

from __future__ import annotations

import pytest

from relay_supervisor.cluster.spreading import ALIVE, SETTLED, TURN, AccountSeat, Spreading

LATER = 1e9
NAMES = ("a", "b", "c")


def views(
    holders: dict[str, str], alive: str = "abc", free: dict[str, float] | None = None, at: float = 0.0
) -> dict[str, Spreading]:
    """What each of those alive makes of it; accounts in `free` are so from then on, the others are held."""
    found = {name: Spreading(name) for name in alive}
    seats = {name: AccountSeat(holder, (free or {}).get(name, LATER)) for name, holder in holders.items()}
    for one in found.values():
        one.seen(seats, dict.fromkeys(alive, 1), at)
    return found


def takers(spreadings: dict[str, Spreading], account: str, now: float) -> set[str]:
    return {name for name, one in spreadings.items() if one.takes(account, now)}


@pytest.mark.parametrize(
    ("holders", "free", "taker"),
    [
        ({"1": ""}, {"1": 0.0}, None),
        ({"1": "a", "2": ""}, {"2": 0.0}, None),
        ({"1": "a", "2": "b", "3": ""}, {"3": 0.0}, "c"),
        ({"1": "a", "2": "b", "3": "c", "4": "a", "5": "b", "6": ""}, {"6": 0.0}, "c"),
        ({"1": "gone", "2": "a", "3": "b", "4": "b"}, {"1": 0.0}, "c"),
    ],
)
def test_one_takes_a_free_account_and_the_others_wait_their_turn(
    holders: dict[str, str], free: dict[str, float], taker: str | None
) -> None:
    (account,) = free
    found = views(holders, free=free)
    assert takers(found, account, -0.1) == set()
    first = takers(found, account, 0.0)
    assert len(first) == 1
    assert taker is None or first == {taker}
    assert "a" not in first or holders.get("2") != "", "it has one already"
    assert len(takers(found, account, TURN)) == 2
    assert takers(found, account, 2 * TURN) == {"a", "b", "c"}


def test_what_one_leaves_behind_is_shared() -> None:
    holders = {"1": "gone", "2": "gone", "3": "gone", "4": "a", "5": "b"}
    found = views(holders, alive="ab", free=dict.fromkeys(("1", "2", "3"), 0.0))
    taken = [takers(found, account, 0.0) for account in ("1", "2", "3")]
    assert all(len(one) == 1 for one in taken)
    assert {sum(one == {name} for one in taken) for name in "ab"} == {1, 2}


def test_one_that_left_accounts_behind_is_not_waited_for() -> None:
    holders = {"1": "c", "2": "a", "3": "b"}
    found = views(holders, free={"1": 0.0})
    assert len(takers({name: found[name] for name in "ab"}, "1", 0.0)) == 1


@pytest.mark.parametrize(
    ("holders", "giver"),
    [
        ({"1": "a", "2": "b", "3": "c"}, None),
        ({"1": "a", "2": "a", "3": "b"}, "a"),
        ({"1": "a", "2": "a", "3": "b", "4": "c"}, None),
        ({"1": "a", "2": "a", "3": "b", "4": "b"}, "b"),
        ({"1": "c", "2": "c", "3": "c"}, "c"),
    ],
)
def test_whoever_has_two_more_than_another_gives_one_up_when_nothing_moves(
    holders: dict[str, str], giver: str | None
) -> None:
    found = views(holders)
    registered = dict.fromkeys(NAMES, 2)
    for one in found.values():
        seats = {name: AccountSeat(holder, LATER) for name, holder in holders.items()}
        one.seen(seats, registered, SETTLED - 1.0)
        assert one.gives_up(SETTLED - 0.1) is None
    given = {name: account for name, one in found.items() if (account := one.gives_up(SETTLED)) is not None}
    assert set(given) == ({giver} if giver else set())
    assert all(holders[account] == name for name, account in given.items())


def test_nothing_is_given_up_for_one_that_was_not_heard_for_long() -> None:
    found = views({"1": "a", "2": "a"}, alive="ab")["a"]
    assert found.gives_up(max(SETTLED, ALIVE)) is None


def test_nothing_is_given_up_while_an_account_is_free() -> None:
    found = views({"1": "a", "2": "a", "3": ""}, alive="ab", free={"3": 0.0})["a"]
    found.seen({"1": AccountSeat("a", LATER), "2": AccountSeat("a", LATER), "3": AccountSeat("", 0.0)}, {"b": 2}, 30.0)
    assert found.gives_up(SETTLED) is None
