"""`make test` runs every test there is, however many times it starts pytest."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fixtures.together import TOGETHER

ROOT = Path(__file__).parents[2]
SIDE_BY_SIDE = ("tests/unit", "tests/fuzz", "tests/simulation")
"""Folders without tests that have the machine to themselves."""


def runs(target: str) -> list[list[str]]:
    """The arguments of each pytest that the Makefile starts for a target."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe, target
    commands = re.findall(r"\$\(BIN\)/pytest (.*?)(?: \|\| .*)?$", recipe[1], re.MULTILINE)
    return [shlex.split(command) for command in commands]


def test_the_stages_of_the_suite_are_the_whole_suite() -> None:
    side_by_side, alone = runs("test")
    assert side_by_side == ["-m", "not serial", "-n", "$(JOBS)", "$(ARGS)"]
    assert alone == ["-m", "serial", *(f"--ignore={folder}" for folder in SIDE_BY_SIDE), "$(ARGS)"]
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert options["addopts"].split() == ["-ra", "--strict-markers", "--import-mode=importlib"], "nothing is left out"


def test_nothing_is_alone_in_the_folders_that_are_left_out_there() -> None:
    files = [file for folder in SIDE_BY_SIDE for file in (ROOT / folder).rglob("*.py")]
    assert files
    assert [file.name for file in files if re.search(r"\bmark\.serial\b", file.read_text())] == []


def test_only_what_is_slow_is_left_out_of_the_quick_run() -> None:
    (quick,) = runs("quick")
    assert quick == ["tests/unit", "-q", "-m", "not slow", "-n", "$(JOBS)", "$(ARGS)"]


def test_what_the_suite_skips_for_want_of_a_cluster_is_run_by_itself() -> None:
    (cluster,) = runs("cluster")
    assert cluster == ["tests/cluster", "-n", "$(CLUSTERS)", "--dist", "worksteal", "$(ARGS)"]
    steps = re.findall(r"^ *(make \w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert steps.index("make cluster") > steps.index("make test"), "never beside other tests"


def test_what_stays_together_is_there() -> None:
    assert [path for path in TOGETHER if not (ROOT / path).is_file()] == []


@pytest.mark.slow
def test_files_that_share_something_stay_in_one_process() -> None:
    files = [path for path in TOGETHER if path in ("tests/unit/test_arrows.py", "tests/unit/test_counters.py")]
    command = [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *files]
    command += ["-k", "way_back_up or vocabulary or counter_has_a_reader"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    ran = re.findall(r"^\[(gw\d)\].* PASSED (\S+?)::", done.stdout, re.MULTILINE)
    assert (len(ran), {path for _, path in ran}) == (3, set(files)), done.stdout
    assert len({process for process, _ in ran}) == 1, done.stdout
