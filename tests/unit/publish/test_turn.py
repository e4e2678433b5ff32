"""When a publication goes through a TURN relay, and by which of its addresses."""

from __future__ import annotations

import pytest

from relay_common.protocol import Stage, TurnServer
from relay_worker.publish.turn import RENEW, TurnFallback, best


def given(*urls: str) -> list[TurnServer]:
    return [TurnServer(urls=["stun:s"]), TurnServer(urls=list(urls), username="u", credential="p")]


def test_a_relay_is_used_only_after_ice_failed_and_for_as_long_as_it_is_what_connects() -> None:
    turn = TurnFallback()
    turn.failed(Stage.ICE)
    assert turn.servers() == (), "none was given"
    turn = TurnFallback()
    turn.give(given("turn:a?transport=tcp"), 0.0)
    assert turn.servers() == ()
    turn.failed(Stage.PUBLISH)
    assert turn.servers() == (), "the SFU's API failed, not the path"
    turn.failed(Stage.ICE)
    (server,) = turn.servers()
    assert (server.urls, server.username, server.credential) == ("turn:a?transport=tcp", "u", "p")
    turn.connected(relayed=True)
    assert turn.servers()
    turn.connected(relayed=False)
    assert turn.servers() == ()


def test_a_relay_that_does_not_help_is_left_out_again() -> None:
    turn = TurnFallback()
    turn.give(given("turn:a?transport=tcp"), 0.0)
    turn.failed(Stage.ICE)
    assert turn.servers()
    turn.failed(Stage.ICE)
    assert turn.servers() == ()


def test_a_publication_is_replaced_before_its_credential_ends_once_there_is_a_newer_one() -> None:
    turn = TurnFallback()
    turn.give(given("turn:a?transport=tcp"), 10_000.0)
    turn.failed(Stage.ICE)
    turn.servers()
    turn.connected(relayed=True)
    assert not turn.outdated(9_999.0), "nothing newer to replace it with"
    turn.give(given("turn:a?transport=tcp"), 20_000.0)
    assert not turn.outdated(10_000.0 - RENEW - 1)
    assert turn.outdated(10_000.0 - RENEW)
    turn.servers()
    assert not turn.outdated(10_000.0)
    turn.connected(relayed=False)
    turn.give(given("turn:a?transport=tcp"), 30_000.0)
    assert not turn.outdated(25_000.0), "a direct path needs no credential"


@pytest.mark.parametrize(
    ("urls", "chosen"),
    [
        (("turn:a", "turn:a?transport=tcp", "turns:a:5349?transport=tcp", "turns:a:443?transport=tcp"), 3),
        (("turn:a:3478?transport=udp", "turn:a:80?transport=tcp", "turn:b?transport=tcp"), 1),
        (("turn:a?transport=udp",), 0),
        (("turns:a?transport=udp", "turns:b"), 1),
    ],
)
def test_the_address_that_blocks_of_udp_let_pass_comes_first(urls: tuple[str, ...], chosen: int) -> None:
    assert best(given(*urls))[0] == urls[chosen]


def test_without_a_credential_there_is_none() -> None:
    assert best([TurnServer(urls=["turn:a", "stun:b"])]) == ("", None)
