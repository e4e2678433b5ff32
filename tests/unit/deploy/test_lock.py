"""The lock files name all that is installed, with hashes, and nothing is installed without them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
RUN, IMAGE, DEV = (ROOT / f"requirements{of}.lock" for of in ("", "-cluster", "-dev"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

ENVIRONMENTS = [
    {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    for python, machine in product(("3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64"))
]


class Locked(NamedTuple):
    """One entry of a lock file."""

    requirement: Requirement
    version: str
    hashes: frozenset[str]


def locked(path: Path) -> dict[str, Locked]:
    """The entries of a lock file by canonical name; a package has one version there, for all environments."""
    entries: dict[str, Locked] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("#"):
            continue
        text, *hashes = line.split(" --hash=")
        requirement = Requirement(text)
        (version,) = requirement.specifier
        assert version.operator == "==", line
        name = canonicalize_name(requirement.name)
        assert name not in entries, name
        entries[name] = Locked(requirement, version.version, frozenset(text.strip() for text in hashes))
    return entries


def applies(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def needed(package: str, environment: dict[str, str], extra: str, seen: set[tuple[str, str]]) -> Iterator[Requirement]:
    """What `package` asks for in `environment`, and what that asks for, as the installed packages' metadata says."""
    for text in importlib.metadata.requires(package) or ():
        requirement = Requirement(text)
        if not applies(requirement, environment, extra):
            continue
        yield requirement
        for further in ("", *requirement.extras):
            if (requirement.name, further) not in seen:
                seen.add((requirement.name, further))
                try:
                    yield from needed(requirement.name, environment, further, seen)
                except importlib.metadata.PackageNotFoundError:
                    continue  # not for the environment that runs this test


@pytest.mark.parametrize("path", [RUN, IMAGE, DEV], ids=lambda path: path.name)
def test_every_entry_has_hashes_and_no_source(path: Path) -> None:
    entries = locked(path)
    assert len(entries) > 25
    for entry in entries.values():
        assert entry.hashes, entry.requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in entry.hashes), entry.requirement
        assert entry.requirement.url is None
    assert not re.search(r"/|\.whl|^\s*--(?!hash)", path.read_text(), re.MULTILINE), "a lock names packages only"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']}-{e['platform_machine']}")
@pytest.mark.parametrize(
    ("path", "extras"),
    [(RUN, [""]), (IMAGE, ["", "cluster"]), (DEV, ["", *PYPROJECT["project"]["optional-dependencies"]])],
    ids=["run", "cluster", "dev"],
)
def test_all_that_is_needed_is_locked(path: Path, extras: list[str], environment: dict[str, str]) -> None:
    entries = locked(path)
    asked = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    asked += [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    for extra in extras:
        asked += [Requirement(text) for text in PYPROJECT["project"]["optional-dependencies"].get(extra, ())]
        asked += needed("nest-relay", environment, extra, set())
    for requirement in asked:
        if not applies(requirement, environment):
            continue
        name = canonicalize_name(requirement.name)
        assert name in entries, f"{name} is not in {path.name}"
        assert requirement.specifier.contains(entries[name].version), f"{requirement} is wanted, not {entries[name]}"
        assert applies(entries[name].requirement, environment), f"{name} is needed there: {entries[name].requirement}"


@pytest.mark.parametrize(("path", "wider"), [(RUN, IMAGE), (RUN, DEV), (IMAGE, DEV)], ids=lambda path: path.name)
def test_all_locks_have_the_same_versions(path: Path, wider: Path) -> None:
    """The tests run on what the relay runs on, in an image or not."""
    others = locked(wider)
    for name, entry in locked(path).items():
        assert (others[name].version, others[name].hashes) == (entry.version, entry.hashes), name


def test_who_needs_no_cluster_gets_no_client_for_one() -> None:
    """It brings an HTTP library of its own."""
    assert not {"lightkube", "httpx2"} & locked(RUN).keys()
    assert {"lightkube", "httpx2"} <= locked(IMAGE).keys()


def installs(script: str) -> list[str]:
    """The pip commands in `script` that install or build something."""
    commands = re.split(r"\n|&&|;", script.replace("\\\n", " "))
    return [command for command in commands if re.search(r"\bpip\S* .*\b(install|wheel)\b", command)]


def check(commands: list[str], lock: Path) -> None:
    """Each command takes `lock` with its hashes, or adds the project to what is installed, and both are done."""
    kinds = set()
    for command in commands:
        if "--no-deps" in command:
            assert "--no-build-isolation" in command, command
            kinds.add("project")
        else:
            assert re.search(rf"--require-hashes -r {re.escape(lock.name)}\s*$", command), command
            kinds.add("libraries")
    assert kinds == {"libraries", "project"}, commands


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("stamp", "lock"), [("installed", RUN), ("installed-dev", DEV)])
def test_make_installs_from_the_lock(stamp: str, lock: Path, tmp_path: Path) -> None:
    command = ["make", "--dry-run", f"VENV={tmp_path}", f"{tmp_path}/{stamp}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    check(installs(said.stdout), lock)


def test_the_image_is_made_from_the_lock() -> None:
    check(installs((ROOT / "deploy/Dockerfile").read_text()), IMAGE)
    assert f"\n!{IMAGE.name}\n" in (ROOT / ".dockerignore").read_text()


def test_nothing_else_installs_packages() -> None:
    rules = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (only,) = [line for line in rules.splitlines() if re.search(r"\bpip.* install ", line) and ":=" not in line]
    assert "'uv" in only, "only `make lock` installs something that is not locked: the program that makes the locks"
    for script in (".ci/run", "deploy/check-containers.sh"):
        assert not installs((ROOT / script).read_text()), script
