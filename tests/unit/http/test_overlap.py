"""Which addresses to listen on are each other's: what is said of them is what the kernel does."""

from __future__ import annotations

import socket

import pytest

from relay_common.errors import ConfigError
from relay_supervisor import net
from relay_supervisor.net import bind, overlap

HERE = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1")


@pytest.fixture(scope="module")
def ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("first", HERE)
@pytest.mark.parametrize("second", HERE)
def test_it_is_what_the_kernel_says(first: str, second: str) -> None:
    with bind(first, 0) as taken:
        try:
            bind(second, taken.getsockname()[1]).close()
            refused = False
        except ConfigError:
            refused = True
    assert overlap(first, second) is refused


def test_names_are_not_looked_up() -> None:
    assert overlap("Relay.home", "relay.home")
    assert not overlap("relay.home", "other.home")
    assert not overlap("relay.home", "192.0.2.1")
    assert overlap("relay.home", "0.0.0.0")


def test_every_address_is_those_of_ipv4_where_the_kernel_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifests listen at "[::]", and a node may have been started with ipv6.disable=1."""
    with bind("::", 0) as both:
        assert both.family == socket.AF_INET6
    monkeypatch.setattr(net, "_has_ipv6", lambda: False)
    with bind("::", 0) as one:
        assert one.family == socket.AF_INET


def test_no_part_of_an_answer_waits_until_the_one_before_it_is_acknowledged() -> None:
    """For 40 ms, by Linux; the page asks many times on one connection, and what is passed on has two of them."""
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
