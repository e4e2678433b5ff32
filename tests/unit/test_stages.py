"""`make test` runs every test there is, however many times it starts pytest."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def runs(target: str) -> list[list[str]]:
    """The arguments of each pytest that the Makefile starts for a target."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe, target
    commands = re.findall(r"\$\(BIN\)/pytest (.*?)(?: \|\| .*)?$", recipe[1], re.MULTILINE)
    return [shlex.split(command) for command in commands]


def test_the_stages_of_the_suite_are_the_whole_suite() -> None:
    side_by_side, alone = runs("test")
    assert side_by_side == ["-m", "not serial", "-n", "$(JOBS)", "--dist", "loadgroup", "$(ARGS)"]
    assert alone == ["-m", "serial", "$(ARGS)"]
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert options["addopts"].split() == ["-ra", "--strict-markers", "--import-mode=importlib"], "nothing is left out"


def test_only_what_is_slow_is_left_out_of_the_quick_run() -> None:
    (quick,) = runs("quick")
    assert quick == ["tests/unit", "-q", "-m", "not slow", "-n", "$(CORES)", "$(ARGS)"]
