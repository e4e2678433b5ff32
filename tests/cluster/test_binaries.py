"""What is built once is found again, and never half of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.fixtures.product_source import ROOT

BUILD = """
import pathlib, sys
from tests.cluster import binaries
binaries.RECIPE = pathlib.Path(sys.argv[1])
binaries.build()
"""
RECIPE = """
echo built >>"$COUNT"; mkdir -p "$OUT"
for program in {programs}; do touch "$OUT/$program"; done
{end}
"""

_PACKED = 'for file in $FILES; do touch "$OUT/${file##*/}"; done\n'


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that takes no time, in a cache of its own."""
    file = tmp_path / "build.sh"
    file.write_text(RECIPE.format(programs=" ".join(binaries.CONTROL_PLANE.contents), end=""))
    monkeypatch.setattr(binaries, "RECIPE", file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return file


def built(recipe: Path) -> int:
    return (recipe.parent / "count").read_text().count("built")


def test_a_recipe_is_followed_once_and_anew_when_it_has_changed(recipe: Path) -> None:
    assert "make kubernetes" in (binaries.missing() or "")
    first = binaries.build()
    assert first.parent == recipe.parent / "cache" / "nest-relay"
    assert f"kubernetes-{binaries.VERSION}-" in first.name
    assert binaries.missing() is None
    assert binaries.build() == first
    assert built(recipe) == 1
    recipe.write_text(recipe.read_text() + "\n# another one")
    assert binaries.missing() is not None
    assert binaries.build() != first
    assert built(recipe) == 2


def test_a_cache_whose_path_is_relative_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert binaries.cache_folder() == Path.home() / ".cache/nest-relay"


def test_what_a_node_takes_is_a_kit_of_its_own(recipe: Path) -> None:
    first = binaries.build()
    recipe.write_text('mkdir -p "$OUT"; for one in $PROGRAMS pause; do touch "$OUT/$one"; done\n' + _PACKED)
    assert "make nodes" in (binaries.missing(binaries.NODE) or "")
    place = binaries.build(binaries.NODE)
    assert place.parent == first.parent
    assert {file.name for file in place.iterdir()} == set(binaries.NODE.contents)
    assert {"kubelet", "containerd", "runc", "pause"} < set(binaries.NODE.contents)
    assert binaries.missing() is not None  # the recipe is another one now


def test_a_failed_build_leaves_nothing(recipe: Path) -> None:
    recipe.write_text(RECIPE.format(programs=binaries.CONTROL_PLANE.contents[0], end="exit 3"))
    with pytest.raises(subprocess.CalledProcessError):
        binaries.build()
    assert binaries.missing() is not None
    assert [file.name for file in binaries.cache_folder().iterdir()] == ["kubernetes.lock"]


def test_of_two_builds_one_waits_for_the_other(recipe: Path) -> None:
    recipe.write_text(RECIPE.format(programs=" ".join(binaries.CONTROL_PLANE.contents), end="sleep 1"))
    command = [sys.executable, "-c", BUILD, str(recipe)]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert built(recipe) == 1


def test_debian_is_named_where_there_is_none(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="Debian 12"):
        binaries.build()
