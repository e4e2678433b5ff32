"""Every parser takes any bytes: seeds and old findings always, mutations of them for a bounded time."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.pieces import OF_THE_SUPERVISOR, chunks
from tests.fuzz.seeds import seeds
from tests.fuzz.supervisor_targets import SUPERVISOR_TARGETS
from tests.fuzz.targets import TARGETS

RUNS = int(os.environ.get("RELAY_FUZZ_RUNS", "3000"))
"""Inputs for each target, from a fixed seed, so that every run gives the same result; `python -m tests.fuzz all`
uses random ones, and fuzzes the supervisor's slower targets, too."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_old_findings(name: str) -> None:
    inputs = seeds(name)
    assert inputs
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    @settings(max_examples=60)
    @given(st.sampled_from(seeds(name)), st.lists(st.tuples(st.integers(0, 4096), st.binary(max_size=8)), max_size=4))
    def mutate(seed: bytes, edits: list[tuple[int, bytes]]) -> None:
        for position, patch in edits:
            at = position % (len(seed) + 1)
            seed = seed[:at] + patch + seed[at + len(patch) :]
        TARGETS[name](seed)

    mutate()


class Fuzzer:
    """A process that fuzzes target after target."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "tests.fuzz.forked", str(RUNS), "1"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def fuzz(self, name: str, directory: Path) -> tuple[int, str]:
        """The exit code of fuzzing the target, and what was said meanwhile."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name} {directory}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            ended, code = line.split()
            if ended == name:  # and not one for which a test no longer waited
                return int(code), (directory / "said.txt").read_text(errors="replace")
        raise AssertionError(f"the fuzzer has ended: {self.process.wait()}")

    def stop(self) -> None:
        """End it, and what it fuzzes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed (there is none for this platform)")
    made = Fuzzer()
    yield made
    made.stop()


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in OF_THE_SUPERVISOR])
def test_coverage_guided(name: str, fuzzer: Fuzzer, tmp_path: Path) -> None:
    code, said = fuzzer.fuzz(name, tmp_path)
    assert code == 0, said[-3000:]
    ran = re.search(r"stat::number_of_executed_units:\s+(\d+)", said)
    assert ran is not None
    assert int(ran.group(1)) >= RUNS


def test_the_targets_of_the_supervisor_are_named() -> None:
    assert tuple(target.__name__ for target in SUPERVISOR_TARGETS) == OF_THE_SUPERVISOR


def test_chunks_take_any_bytes() -> None:
    assert chunks(b"\x02ab\x00\x05cd") == [b"ab", b"", b"cd"]
