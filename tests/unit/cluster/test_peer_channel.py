"""Promises over real sockets: given to who has the relay's key, and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import zmq
import zmq.asyncio

from relay_common.clock import SystemClock
from relay_common.errors import ConfigError
from relay_supervisor.cluster import peer_channel
from relay_supervisor.cluster.peer_channel import PeerChannel
from tests.fixtures.ports import free_ports


def made(key: str, listen: str, promises: Callable[[str, str], bool], relay: str = "relay") -> PeerChannel:
    return PeerChannel(relay, key, listen, promises, SystemClock())


def new_key() -> str:
    return zmq.curve_keypair()[1].decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "[127.0.0.1]", "[::1]"])
async def test_one_asks_and_the_other_answers_for_itself(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(peer_channel, "ANSWERED_WITHIN", 5.0)
    key, at = new_key(), f"{host}:{free_ports(1)[0]}"
    asked: list[tuple[str, str]] = []

    def promises(holder: str, session: str) -> bool:
        asked.append((holder, session))
        return session == "s"

    one, other, elsewhere = made(key, at, promises), made(key, "", promises), made(key, "", promises, "another relay")
    try:
        assert await other.ask(at, "a", "s")
        assert not await other.ask(at, "a", "t")
        assert asked == [("a", "s"), ("a", "t")]
        assert not await elsewhere.ask(at, "a", "s")
        assert len(asked) == 2
    finally:
        await asyncio.gather(one.aclose(), other.aclose(), elsewhere.aclose())


async def test_two_names_of_one_address_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pod may have the address of one that was there before it; nobody else's question is lost by that."""
    monkeypatch.setattr(peer_channel, "ANSWERED_WITHIN", 5.0)
    key, at = new_key(), f"127.0.0.1:{free_ports(1)[0]}"
    one, other = made(key, at, lambda *_: True), made(key, "", lambda *_: True)
    try:
        assert await asyncio.gather(*(other.ask(at, "a", "s") for _ in range(4))) == [True] * 4
        monkeypatch.setattr(peer_channel, "ANSWERED_WITHIN", 0.3)
        nobody = f"127.0.0.1:{free_ports(1)[0]}"
        assert await asyncio.gather(*(other.ask(nobody, "a", "s") for _ in range(4))) == [False] * 4
    finally:
        await asyncio.gather(one.aclose(), other.aclose())


async def test_a_stranger_gets_no_answer_and_gives_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer_channel, "ANSWERED_WITHIN", 0.3)
    key, at = new_key(), f"127.0.0.1:{free_ports(1)[0]}"
    asked: list[str] = []
    one, stranger = (
        made(key, at, lambda holder, session: bool(asked.append(holder))),
        made(new_key(), "", lambda *_: True),
    )
    # One that knows the public key, as every worker does, and shows another of its own.
    context = zmq.asyncio.Context()
    worker = context.socket(zmq.DEALER)
    worker.curve_serverkey = zmq.curve_public(key.encode())
    worker.curve_publickey, worker.curve_secretkey = zmq.curve_keypair()
    worker.connect(f"tcp://{at}")
    await worker.send(b"a promise, please")
    try:
        assert not await stranger.ask(at, "a", "s")
        assert not await one.ask(f"127.0.0.1:{free_ports(1)[0]}", "a", "s"), "nobody is there"
        assert not await one.ask("nowhere", "a", "s")
        async with asyncio.timeout(60.0):
            while "whose key no living worker has" not in caplog.text:
                await asyncio.sleep(0.01)
        assert asked == []
    finally:
        context.destroy(linger=0)
        await asyncio.gather(one.aclose(), stranger.aclose())


async def test_an_address_that_is_taken_is_said() -> None:
    at = f"127.0.0.1:{free_ports(1)[0]}"
    one = made(new_key(), at, lambda *_: True)
    try:
        with pytest.raises(ConfigError, match=f"peer_listen: cannot listen on {at}"):
            made(new_key(), at, lambda *_: True)
    finally:
        await one.aclose()
