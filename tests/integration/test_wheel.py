"""The wheel is complete, and what it installs runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relay_worker import native

ROOT = Path(__file__).parents[2]
PACKAGES = ("relay_common", "relay_supervisor", "relay_worker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as it is built here."""
    return built(tmp_path_factory)


def built(tmp_path_factory: pytest.TempPathFactory, **environ: str) -> Path:
    """The wheel, built from a copy: setuptools writes into the tree it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", str(out), str(source)]
    env = os.environ | environ
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_everything_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert "relay_supervisor/http/static/index.html" in source
    assert sorted(source - names) == []
    compiled = [name for name in names if name.endswith(".so")]
    assert compiled == ([] if native.missing() else ["relay_worker/native/_runs.abi3.so"])
    foreign = {name.split("/")[0] for name in names} - set(PACKAGES)
    assert [name for name in foreign if not name.endswith(".dist-info")] == []


def installed(wheel: Path, folder: Path) -> Callable[..., str]:
    """Install it into `folder`; returns what runs commands from there."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=100)

    def run(*command: str) -> str:
        environ = os.environ | {"PYTHONPATH": str(folder)}
        return subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True, text=True).stdout

    return run


def test_the_programs_run_from_it(wheel: Path, tmp_path: Path) -> None:
    run = installed(wheel, tmp_path)
    # Not the source tree of these tests.
    assert run(sys.executable, "-c", "import relay_worker; print(relay_worker.__file__)").startswith(str(tmp_path))
    for program in ("relay-supervisor", "relay-worker"):
        assert run(str(tmp_path / "bin" / program), "--help").startswith(f"Usage: {program}")


def test_without_a_compiler_it_is_installed_and_says_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    without = built(tmp_path_factory, CC="false")
    assert [name for name in zipfile.ZipFile(without).namelist() if name.endswith(".so")] == []
    run = installed(without, tmp_path)
    said = run(sys.executable, "-c", "from relay_worker.process import data_path; print(data_path.lost())")
    assert said.startswith("there is no compiled data path (it was installed without a C compiler)")
    assert run(str(tmp_path / "bin" / "relay-worker"), "--help").startswith("Usage: relay-worker")
