"""The part of the benchmark that looks at workers' memory: which settings it tries, and what it reads."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.benchmarks import proc
from tests.benchmarks.stage import Stage
from tests.benchmarks.table import Report
from tests.benchmarks.worker_memory import looked_at, measure_memory


def test_what_a_process_shares_is_in_its_proportional_size_alone() -> None:
    looked = looked_at(os.getpid())
    assert 0 < looked["private"] <= looked["PSS"] < 1000
    assert looked["threads"] == len(os.listdir("/proc/self/task"))
    # Its share of what it has in common with others changes as they come and go.
    assert proc.memory(os.getpid()) == pytest.approx(proc.memory_of(os.getpid())["Pss"], rel=0.05)


class OneProcess:
    """A stage whose workers are this process; keeps what each relay was configured with."""

    def __init__(self) -> None:
        self.configured: list[Mapping[str, Any]] = []

    @asynccontextmanager
    async def relay(self, cameras: int, *, sections: Mapping[str, Any]) -> AsyncIterator[OneProcess]:
        self.configured.append(sections)
        yield self

    async def until_live(self) -> None:
        pass

    async def pids(self) -> dict[str, int]:
        return {"a": os.getpid()}


async def test_each_setting_takes_its_turn_beside_the_relay_as_it_is() -> None:
    stage, report = OneProcess(), Report()
    settings = ["workers.immortal_objects=off", "log.level=debug"]
    await measure_memory(cast("Stage", stage), report, 1, rounds=2, settings=settings, settle=0.0)
    assert stage.configured == [{}, {"workers": {"immortal_objects": "off"}}, {"log": {"level": "debug"}}] * 2
    assert [row.name.rpartition(", ")[2] for row in report.rows[::3]] == ["as it is", *settings]
    assert all(row.value for row in report.rows)
