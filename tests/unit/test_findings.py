"""findings/: each script can be run, parses, cleans up after itself, and is in the list. None is run here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_can_be_run_and_parses(script: Path) -> None:
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert "\ndir=$(mktemp -d)\n" in text
    assert "\ntrap '" in text
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_python_in_a_script_parses(script: Path) -> None:
    programs = re.findall(r"<<'PY'\n(.*?)\nPY\n", script.read_text(), re.DOTALL)
    for program in programs:
        compile(program, str(script), "exec")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_package_is_pinned(script: Path) -> None:
    installed = re.findall(r"pip\" install(.*(?:\\\n.*)*)", script.read_text())
    for line in installed:
        packages = [word for word in line.replace("\\\n", " ").split() if not word.startswith("-")]
        assert packages
        assert all("==" in package for package in packages), packages


def test_the_list_is_complete() -> None:
    assert SCRIPTS
    listed = re.findall(r"^\| \[([\w-]+\.sh)\]\(\1\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert listed == [script.name for script in SCRIPTS]
