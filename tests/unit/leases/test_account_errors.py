"""What failures say about the whole account."""

from __future__ import annotations

import random

from relay_supervisor.google.errors import Unauthenticated
from relay_supervisor.google.leases.account_errors import AccountErrors


def account_errors() -> AccountErrors:
    return AccountErrors(random.Random(1))


def test_a_second_401_holds_the_account() -> None:
    account = account_errors()
    assert account.failed(Unauthenticated("no", status=401), sent=0.0, now=1.0) == 0.0
    assert account.failed(Unauthenticated("no", status=401), sent=1.5, now=2.0) > 0.0
    assert account.error


def test_commands_under_way_with_the_same_dead_token_are_one_strike() -> None:
    account = account_errors()
    for answered in (1.0, 1.1, 1.2):
        assert account.failed(Unauthenticated("no", status=401), sent=0.5, now=answered) == 0.0
    assert account.error == ""
    account.succeeded()
    assert account.failed(Unauthenticated("no", status=401), sent=5.0, now=6.0) == 0.0
