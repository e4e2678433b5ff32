"""One cluster of three nodes for all tests of a process; a namespace for each. Figures are in pytest's summary."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.api import Api, ApiRefused
from tests.cluster.engine import Cluster, by_request_alone, running_cluster
from tests.cluster.kubelets.node import kind_of_nodes

LONGEST: Final = (
    "test_another_goes_on_without_a_generate_and_without_the_api_server",
    "test_each_fault_of_supervisors_costs_what_it_may[replace]",
    "test_each_fault_of_supervisors_costs_what_it_may[refuse]",
    "test_each_fault_costs_what_it_may[nothing-is-lost]",
    "test_each_fault_costs_what_it_may[replace]",
    "test_each_fault_costs_what_it_may[refuse]",
    "test_a_cluster_runs_as_shipped",
    "test_while_the_api_server_is_away_workers_go_on_and_those_that_die_wait",
    "test_one_relay_runs_as_shipped",
    "test_pods_of_a_killed_node_stay_until_told",
    "test_a_node_that_dies_before_its_pod_starts_is_not_waited_for",
    "test_a_relay_moves_into_a_cluster_and_back",
    "test_an_account_moves_when_its_holder_is_gone",
    "test_a_watch_goes_on_by_bookmarks_and_says_when_it_cannot",
    "test_cameras_are_live_in_pods_and_nothing_secret_is_in_them",
    "test_why_a_pod_waits_is_said_and_nothing_is_restarted_for_it",
    "test_nothing_outlives_a_test_that_was_killed",
    "test_probes_say_when_a_container_has_started_is_ready_and_hangs",
)
"""The tests that take longest, the longest first: ten seconds and more, as they took at 04:06 on 2026-11-30."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have each of several processes begin with a long test: one that begins last keeps all the others waiting.

    Each gets as many in a row (`--dist worksteal`), and what it has not begun with goes to those that are done; only
    the next one it keeps, so that is a short one.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes == 1 or any(Path(__file__).parent not in item.path.parents for item in items):
        return
    rank = {name: place for place, name in enumerate(LONGEST)}
    ranked = sorted(items, key=lambda item: rank.get(item.name, len(LONGEST)))
    queues: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, item in enumerate(ranked):
        turn, place = divmod(number, processes)
        queues[place if turn % 2 == 0 else -1 - place].append(item)  # who has the longest gets the shortest after it
    queues.sort(key=len)  # the first processes get one less where it does not come out even
    items[:] = [item for queue in queues for item in (*queue[:1], *queue[1:][-1:], *queue[1:-1])]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    by_request_alone()
    with running_cluster(tmp_path_factory.mktemp("cluster"), kind=kind_of_nodes()) as cluster:
        yield cluster


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was measured, in the summary: whether it is good a machine that has much else to do cannot say."""
    return lambda text: request.node.user_properties.append(("figure", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    said = [
        text
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, text in report.user_properties
        if name == "figure"
    ]
    if said:
        terminalreporter.section("figures")
        for text in said:
            terminalreporter.write_line(text)


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """The administrator's, with every node ready."""
    await cluster.ready()
    async with cluster.api() as api:
        yield api


@pytest.fixture
async def namespace(cluster: Cluster, api: Api, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The path of the test's own namespace, whose Pods are gone afterwards."""
    path = await cluster.make_namespace(api, re.sub(r"[^a-z0-9]+", "-", request.node.name)[:60].strip("-"))
    yield path
    for pod in (await api.get(f"{path}/pods"))["items"]:
        try:
            await api.delete(f"{path}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)
        except ApiRefused as error:
            if error.code != 404:  # it has ended by itself since then
                raise
