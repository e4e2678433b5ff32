"""Rows of supervisors' faults on three cameras, with the manifests as shipped; `make cluster-matrix` has all, on 20."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.cluster.api import Api
from tests.cluster.engine import Cluster, skipped
from tests.cluster.matrix.bench import Outcome
from tests.cluster.matrix.pair import Pair, pair
from tests.cluster.matrix.pair_rows import (
    cut_off_from_the_api_server,
    restarted,
    stands_still,
)

pytestmark = [pytest.mark.timeout(400), pytest.mark.media]


@pytest.mark.parametrize(
    ("second", "rows"),
    [
        pytest.param("refuse", (stands_still, restarted), id="refuse"),
        pytest.param("replace", (cut_off_from_the_api_server,), id="replace"),
    ],
)
async def test_each_fault_of_supervisors_costs_what_it_may(
    cluster: Cluster,
    api: Api,
    tmp_path: Path,
    figure: Callable[[str], None],
    second: str,
    rows: Sequence[Callable[[Pair], Awaitable[Outcome]]],
) -> None:
    if shutil.which("kubectl") is None:
        skipped("kubectl is not installed (apt install kubernetes-client)")
    async with pair(cluster, api, tmp_path, second, 3, 1) as both:
        for row in rows:
            outcome = await row(both)
            times = ", ".join(f"{took:.1f}" for took in outcome.times)
            figure(f"{second}, {row.__name__}: in command with all live after {times} s {outcome.words}")
            assert outcome.wrong == [], row.__name__
