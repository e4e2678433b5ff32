"""Shared by all tests: hypothesis without a deadline per example, because the machine may be busy.

Examples are the same in every run, so that a change is judged by its effect and not by luck. To search further:
HYPOTHESIS_PROFILE=search pytest tests/unit, and the fuzzer. `make quick` looks at fewer.

What runs in a worker is tested on the worker's event loop, what runs in the supervisor on the supervisor's. With
RELAY_WORKERS_DATA_PATH=python (or compiled) all of it is tested on that data path, here and in processes that are
started; without it on compiled code, where that is there.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from relay_common.stderr import StderrHandler
from relay_worker import native
from tests.fixtures import together
from tests.fixtures.ports import free_port

WORKERS = ("unit/media", "unit/rtp", "unit/rtsp", "unit/webrtc", "unit/worker", "integration/test_ingest.py")
WORKERS += ("integration/test_media_quality.py", "integration/test_publisher.py")
"""Tests of worker code in the test's own process."""

LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> LoopFactories:
    """uvloop where workers have it (`relay_worker.process.entry`)."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    if path in WORKERS or path.rpartition("/")[0] in WORKERS:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process of a run with `-n` has to collect the same names: a file run by itself would not tell."""
    if changing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"{changing[0]} is named after an address in memory: give its parameters ids")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For every run with `-n`, whatever `--dist` says."""
    return together.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """A program that a test ran in this process has sent the logs to standard error: those of later tests stay here."""
    result = yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, StderrHandler)]:
        root.removeHandler(handler)
        root.setLevel(logging.WARNING)
    return result


# A suite that a shell started in the background ignores interrupts, and so would every process that it starts and
# interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

native.choose("auto")

settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("quick", settings.get_profile("same"), max_examples=20)
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def unused_tcp_port() -> int:
    """Replaces pytest-asyncio's fixture, whose ports the kernel also gives to others."""
    return free_port()


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    return free_port
