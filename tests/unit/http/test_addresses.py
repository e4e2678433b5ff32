"""Who is asking: X-Forwarded-For counts only as far as trusted proxies wrote it."""

from __future__ import annotations

import pytest

from relay_common.errors import ConfigError
from relay_supervisor.http.addresses import TrustedProxies, share_of


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", ["10.0.0.1"], "203.0.113.9"),  # not a proxy of ours: what it says is ignored
        ("10.0.0.2", [], "10.0.0.2"),
        ("10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.2", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the first is what the client claimed
        ("10.0.0.2", ["203.0.113.9, 10.0.0.3"], "203.0.113.9"),  # two proxies in a row
        ("10.0.0.2", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),  # two headers are one list (RFC 9110 5.3)
        ("10.0.0.2", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.2", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.2", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.2", ["unknown"], "10.0.0.2"),
        ("10.0.0.2", ["203.0.113.9, nonsense"], "10.0.0.2"),
        ("10.0.0.2", ["10.0.0.4"], "10.0.0.4"),  # all of them ours: the one farthest away
        ("::ffff:10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("", ["203.0.113.9"], ""),  # a Unix socket
    ],
)
def test_the_client_is_the_last_hop_that_is_not_ours(peer: str, forwarded: list[str], client: str) -> None:
    assert TrustedProxies(["10.0.0.0/8", "fd00::1"]).client(peer, forwarded) == client


def test_a_long_list_is_cut() -> None:
    forwarded = ["203.0.113.9, " + ", ".join(["10.0.0.3"] * 5000)]
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.2", forwarded) == "10.0.0.3"


def test_without_proxies_nobody_is_believed() -> None:
    assert TrustedProxies().client("127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"
    assert "127.0.0.1" not in TrustedProxies()


def test_what_is_no_network_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"\[http\] trusted_proxies has 'nginx'"):
        TrustedProxies(["nginx"])


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_host_has_one_share(address: str, share: str) -> None:
    assert share_of(address) == share
