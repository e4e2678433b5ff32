"""What surrounds the code (workflow, hooks, forms, changelog) parses and agrees with what it names."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.specifiers import SpecifierSet

from relay_supervisor.commands.cli import cli
from tests.unit.deploy.test_lock import ENVIRONMENTS

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install pyyaml)")

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RULES = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
GUIDES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("findings/*.md")]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


@pytest.fixture
def jobs() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    return loaded


def targets(command: str) -> list[str]:
    """What a `make` command line makes."""
    words = shlex.split(command, comments=True)
    return [word for word in words[1:] if "=" not in word and not word.startswith("-")] if words[:1] == ["make"] else []


def test_the_matrix_is_the_pythons_that_we_support_and_the_next(jobs: dict[str, Any]) -> None:
    versions: list[str] = jobs["unit"]["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) for version in versions), "3.10 without quotes is the number 3.1"
    minors = [int(version.removeprefix("3.")) for version in versions]
    assert minors == list(range(minors[0], minors[-1] + 1))
    supported = SpecifierSet(PROJECT["requires-python"])
    assert all(version in supported for version in versions)
    assert f"3.{minors[0] - 1}" not in supported
    locked = {environment["python_version"] for environment in ENVIRONMENTS}
    assert set(versions[:-1]) == locked, "only the last one may be a Python that the lock is not made for"
    assert jobs["unit"]["continue-on-error"] == f"${{{{ matrix.python == '{versions[-1]}' }}}}"


def test_the_workflow_runs_what_there_is(jobs: dict[str, Any]) -> None:
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    made = [target for command in commands for target in targets(command)]
    assert {"lint", "types", "unit"} <= set(made) <= RULES
    for argument in re.findall(r"\btests/\S+", " ".join(commands)):
        assert (ROOT / argument).is_dir(), argument


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_target_that_a_guide_names_exists(path: Path) -> None:
    text = path.read_text()
    commands = re.findall(r"`(make [^`]+)`", text) + re.findall(r"^    (make .*)$", text, re.MULTILINE)
    for command in commands:
        assert set(targets(command.replace("…", "").replace("\n", " "))) <= RULES, command


def test_hooks_run_what_make_runs_and_download_nothing() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    makefile = (ROOT / "Makefile").read_text()
    said = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks}
    assert said == {"ruff check", "ruff format --check", "mypy"}
    for entry in said:
        assert re.search(rf"^\t\$\(BIN\)/{entry}( \.)?$", makefile, re.MULTILINE), entry


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_of_issues(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["type"] in {"textarea", "input", "checkboxes", "dropdown"}
        assert field["attributes"]["label"]
    for command in re.findall(r"`relay-supervisor ([^`]+)`", path.read_text()):
        verb, *options = command.split()
        known = cli if verb.startswith("-") else cli.get_command(click.Context(cli), verb)
        assert known is not None, command
        wanted = [verb, *options] if known is cli else options
        assert set(wanted) <= {name for parameter in known.params for name in parameter.opts}, command


def test_a_bug_comes_with_what_we_need_to_find_it() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    asked = [field for field in form["body"] if field.get("validations", {}).get("required")]
    text = " ".join(field["attributes"].get("description", "") for field in asked)
    for command in ("relay-supervisor status --json", "relay-supervisor check", "relay-supervisor --version"):
        assert f"`{command}`" in text
    (confirmed,) = [field for field in form["body"] if field["type"] == "checkboxes"]
    assert all(option["required"] for option in confirmed["attributes"]["options"])


def test_all_that_names_the_version_names_this_one() -> None:
    version = PROJECT["version"]
    named = {
        "CHANGELOG.md": re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)[
            :1
        ],
    }
    for path in (*ROOT.glob("deploy/kubernetes/**/*.yaml"), ROOT / "docs/deployment.md"):
        found = re.findall(r"newTag: (\S+)|nest-relay:(\d[^\s\"]*)|nest_relay-(\d[^-]*)-cp3", path.read_text())
        named[str(path.relative_to(ROOT))] = [text for texts in found for text in texts if text]
    assert named["CHANGELOG.md"], "no release in the changelog"
    assert len(named["docs/deployment.md"]) >= 3
    assert named["deploy/kubernetes/single/kustomization.yaml"]
    assert {text for texts in named.values() for text in texts} == {version}, named
    assert (ROOT / "CHANGELOG.md").read_text().index("## [Unreleased]") < (ROOT / "CHANGELOG.md").read_text().index(
        f"## [{version}]"
    )


def test_no_module_holds_a_version_of_its_own() -> None:
    for package in ("relay_common", "relay_worker", "relay_supervisor"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(rf"\"{re.escape(PROJECT['version'])}\"|^__version__", path.read_text(), re.M), path
