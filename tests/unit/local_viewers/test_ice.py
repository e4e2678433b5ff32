"""The ICE-lite agent and the demultiplexer, on a clock of their own, against checks as aioice makes them."""

from __future__ import annotations

from typing import Any

import pytest
from aioice import stun as reference

from relay_worker.local.ice import CONSENT, MAX_ADDRESSES, Demultiplexer, LiteAgent, UdpSource
from relay_worker.local.stun import StunError, parse_binding_request

HOME = UdpSource(0, ("192.168.1.7", 50000))
OTHER = UdpSource(0, ("192.168.1.8", 50001))
V6 = UdpSource(1, ("fe80::1%eth0", 50002, 0, 2))


def check(agent: LiteAgent, *, password: str = "", username: str = "", **attributes: Any) -> bytes:
    """A connectivity check as a controlling agent sends it."""
    message = reference.Message(reference.Method.BINDING, reference.Class.REQUEST)
    ice = agent.credentials
    message.attributes["USERNAME"] = username or f"{ice.ufrag}:theirs"
    message.attributes["PRIORITY"] = 1845501695
    message.attributes.update(attributes or {"ICE-CONTROLLING": 7})
    message.add_message_integrity((password or ice.password).encode())
    return bytes(message)


class World:
    def __init__(self) -> None:
        self.port = Demultiplexer()
        self.agents = [LiteAgent(name, 0.0) for name in ("a", "b")]
        for agent in self.agents:
            self.port.add(agent)

    def receive(self, data: bytes, source: UdpSource = HOME, now: float = 1.0) -> reference.Message | None:
        agent, response = self.port.receive_check(data, source, now)
        self.valid = agent
        return reference.parse_message(response) if response else None


def test_a_check_is_answered_with_the_address_that_it_came_from() -> None:
    for source in (HOME, V6):
        world = World()
        agent = world.agents[0]
        response = world.receive(check(agent), source)
        assert response is not None
        assert response.message_class is reference.Class.RESPONSE
        assert response.attributes["XOR-MAPPED-ADDRESS"] == (source.address[0].partition("%")[0], source.address[1])
        assert response.check_message_integrity(agent.credentials.password.encode())
        assert world.valid is agent
        assert world.port.owner(source) is agent
        assert agent.heard_at == 1.0


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"password": "not the password"}, 401),
        ({"ICE-CONTROLLED": 7}, 487),
        ({"ICE-CONTROLLING": 7, "CHANGE-REQUEST": 6}, 420),
    ],
)
def test_what_is_no_valid_check_is_refused_and_changes_nothing(made: dict[str, Any], code: int) -> None:
    world = World()
    response = world.receive(check(world.agents[0], **made))
    assert response is not None
    assert response.error_code == code
    assert world.valid is None
    assert world.agents[0].selected is None
    assert world.agents[0].heard_at == 0.0
    assert world.port.owner(HOME) is None


def test_nobody_is_told_which_names_there_are() -> None:
    world = World()
    assert world.receive(check(world.agents[0], username="guessed:theirs")) is None
    assert world.port.unknown == 1
    for data in (b"", b"\x00", bytes(20), check(world.agents[0])[:-4], check(world.agents[0]) + b"x"):
        assert world.receive(data) is None
    assert world.port.malformed == 5


def test_the_fingerprint_is_verified() -> None:
    data = bytearray(check(World().agents[0]))
    data[-1] ^= 1
    with pytest.raises(StunError, match="fingerprint"):
        parse_binding_request(bytes(data))


def test_media_follow_the_nominated_address() -> None:
    world = World()
    agent = world.agents[0]
    world.receive(check(agent), HOME)
    assert agent.selected == HOME, "before a nomination any valid one will do"
    world.receive(check(agent, **{"ICE-CONTROLLING": 7, "USE-CANDIDATE": None}), OTHER)
    assert agent.selected == OTHER
    world.receive(check(agent), HOME)
    assert agent.selected == OTHER, "a check of another pair moves nothing"
    world.receive(check(agent, **{"ICE-CONTROLLING": 7, "USE-CANDIDATE": None}), V6)
    assert agent.selected == V6, "the viewer has moved to another network"


def test_no_viewer_gets_the_address_of_another_while_it_is_in_use() -> None:
    world = World()
    first, second = world.agents
    world.receive(check(first), HOME, now=1.0)
    assert world.receive(check(second), HOME, now=2.0) is None
    assert world.port.contested == 1
    assert world.port.owner(HOME) is first
    assert world.receive(check(second), HOME, now=1.0 + CONSENT) is not None
    assert world.port.owner(HOME) is second


def test_a_viewer_that_left_leaves_nothing() -> None:
    world = World()
    agent = world.agents[0]
    world.receive(check(agent))
    world.port.remove(agent)
    assert world.port.owner(HOME) is None
    assert world.receive(check(agent)) is None


def test_addresses_are_bounded() -> None:
    world = World()
    agent = world.agents[0]
    for port in range(4 * MAX_ADDRESSES):
        world.receive(check(agent, **{"ICE-CONTROLLING": 7, "USE-CANDIDATE": None}), UdpSource(0, ("10.0.0.1", port)))
        assert len(agent.addresses) <= MAX_ADDRESSES
    assert world.port.owner(UdpSource(0, ("10.0.0.1", 0))) is None
    assert world.port.owner(UdpSource(0, ("10.0.0.1", port))) is agent


def test_a_restart_makes_new_credentials_and_the_old_ones_end_with_the_next() -> None:
    world = World()
    agent = world.agents[0]
    before = check(agent)
    agent.restart()
    world.port.add(agent)
    for data in (before, check(agent)):
        assert world.receive(data) is not None
        assert world.valid is agent
    agent.restart()
    world.port.add(agent)
    assert world.receive(before) is None
