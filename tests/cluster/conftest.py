"""One cluster of three nodes for all tests of a process; a namespace for each. Figures are in pytest's summary."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster, by_request_alone, running_cluster
from tests.cluster.kubelets.node import kind_of_nodes


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
        await api.delete(f"{path}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)
