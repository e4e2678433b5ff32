"""The ports that tests choose before something listens there are chosen by nobody else."""

from __future__ import annotations

import itertools

import pytest

from tests.fixtures.ports import free_port, free_ports, free_udp_ports


def test_none_is_given_twice_while_it_may_still_be_used() -> None:
    found = [port for _ in range(50) for port in (free_port(), *free_ports(3), *free_udp_ports(4))]
    assert len(set(found)) == len(found)


def test_processes_that_run_tests_side_by_side_have_none_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "5")
    found: list[set[int]] = []
    for number in range(5):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        found.append({port for _ in range(20) for port in free_ports(8)})
    spans = sorted((min(ports), max(ports)) for ports in found)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(spans)), spans


def test_the_first_of_several_is_even() -> None:
    assert all(free_udp_ports(4)[0] % 2 == 0 for _ in range(20))
