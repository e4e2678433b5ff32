"""The compiled code under AddressSanitizer and UndefinedBehaviorSanitizer, where a compiler can build it so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "relay_worker/native"
PATIENCE = 600
"""Seconds for the compiler, and for what it built: they hold nothing, and a busy machine takes ten times as long."""
pytestmark = pytest.mark.timeout(2 * PATIENCE + 60)

LOADED = """
import importlib.util, sys
name, path = "relay_worker.native._runs", sys.argv.pop(1)
spec = importlib.util.spec_from_file_location(name, path)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from relay_worker import native
assert native._found.__file__ == path, native._found
"""
LOADING = (
    LOADED
    + """
from tests.fuzz import data_paths
sys.exit(data_paths.main())
"""
)
TESTING = (
    LOADED
    + """
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
)
UNITS = ("tests/unit/native",)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")


def build(source: Path, target: Path, *options: str) -> None:
    """Compile the C files of a folder, with both sanitizers unless `options` are given; skipped where it cannot be."""
    compiler = shutil.which("gcc")
    include = sysconfig.get_paths()["include"]
    if compiler is None or not (Path(include) / "Python.h").exists():
        pytest.skip("there is no gcc, or Python's headers are missing")
    checks = [*options] or [*SANITIZERS, "-Wall", "-Wextra", "-Werror"]
    command = [
        compiler,
        *checks,
        "-fPIC",
        "-shared",
        f"-I{include}",
        *map(str, sorted(source.glob("*.c"))),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode and "cannot find" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr


def run(module: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What `data_paths` does with these options, with this module."""
    return _checked(LOADING, module, options, PATIENCE)


def sanitized(module: Path, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """The unit tests of the compiled data path, with this module."""
    return _checked(TESTING, module, UNITS, seconds)


def _checked(program: str, module: Path, options: tuple[str, ...], seconds: float) -> subprocess.CompletedProcess[str]:
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # With malloc under every object, reading past the end of one is an error; CPython does not free all at its end.
    environ = os.environ | {"LD_PRELOAD": library.stdout.strip(), "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT)}
    environ |= {"ASAN_OPTIONS": "detect_leaks=0:handle_segv=0", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", program, str(module), *options]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module with both sanitizers in it."""
    module = tmp_path_factory.mktemp("checked") / "_runs.abi3.so"
    build(SOURCE, module)
    return module


def test_no_error_of_memory_over_the_corpus(checked: Path) -> None:
    done = run(checked, "--packets", "4000", "--seed", "41")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no difference" in done.stdout
    assert " 0 wakes taken whole" not in done.stdout


def test_no_error_of_memory_at_any_bound(checked: Path) -> None:
    """The unit tests stand on the bounds of the compiled code, and one beyond them."""
    done = sanitized(checked)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def changed(folder: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of the C files with one place changed."""
    for path in SOURCE.glob("*.[ch]"):
        shutil.copy(path, folder)
    text = (folder / file).read_text()
    assert text.count(right) == 1
    (folder / file).write_text(text.replace(right, wrong))
    return folder


@pytest.mark.parametrize(
    ("file", "right", "where"),
    [
        ("runs.c", "if (size < 3 || size > most", "pass_fragments"),
        ("pictures.c", "if (size < 3 || (at[0] & 0x1F)", "go_on"),
        ("pictures.c", "if (size < 2 || I(in_fragment)", "take_payload"),
    ],
    ids=["pass_fragments", "go_on", "take_payload"],
)
def test_a_read_beyond_the_end_is_found(tmp_path: Path, file: str, right: str, where: str) -> None:
    # Changes no result, so that no comparison would notice.
    read = "if ((((volatile const uint8_t *)at)[size + 40] == 7 && size > 70000) || "
    module = tmp_path / "_runs.abi3.so"
    build(changed(tmp_path, file, right, right.replace("if (", read)), module)
    done = run(module, "--made", "--packets", "1500", "--seed", "41")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert where in done.stderr
